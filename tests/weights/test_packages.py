"""Weights within a wheel, whose code nothing runs, and in a repository of the hub."""

import hashlib
import os
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from pulse_framework.weights import WeightsError, fetch, read_card, sources, verify
from tests.weights.toy import DATA, leftovers, write_card

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A wheel with the data, in a folder that stands for the index; importing or building anything of it would fail."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "toy_weights-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("toy_weights/__init__.py", "raise SystemExit('imported')")
        archive.writestr("toy_weights/w.pt", DATA)
        archive.writestr("toy_weights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        metadata = "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\nRequires-Python: <3\nRequires-Dist: no-such-package\n"
        archive.writestr("toy_weights-1.0.dist-info/METADATA", metadata)
        archive.writestr("toy_weights-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))


PIN = "pypi:toy-weights==1.0/toy_weights/w.pt"


def test_member_of_a_wheel(tmp_path, wheel, home):
    assert fetch(write_card(tmp_path, PIN)).read_bytes() == DATA
    assert leftovers(home) == []


def test_pip_is_found_without_the_hook_of_setuptools(tmp_path, wheel, monkeypatch):
    """Where distutils is loaded, as by PyTorch's compiler, setuptools warns whoever asks the import system for pip."""

    class Hook:
        @staticmethod
        def find_spec(name, path=None, target=None):
            assert name != "pip"

    monkeypatch.setattr(sys, "meta_path", [Hook, *sys.meta_path])
    assert fetch(write_card(tmp_path, PIN)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        (
            "pypi:toy-weights==1.0/toy_weights/other.pt",
            r"expected toy_weights/other.pt in toy_weights-1.0-py3-none-any.whl, got 5",
        ),
        ("pypi:toy-weights==2.0/toy_weights/w.pt", "expected pip to download one wheel of toy-weights==2.0, got .*ERROR"),
    ],
)
def test_absent_packages_and_members(tmp_path, wheel, place, reason):
    with pytest.raises(WeightsError, match=reason) as error:
        fetch(write_card(tmp_path, place))
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for uv is a shell script")
def test_uv_stands_in_for_pip(tmp_path, wheel, monkeypatch):
    """Without pip the command is `uv tool run pip ...`, here a script that hands the rest to pip."""
    script = tmp_path / "uv"
    script.write_text(f'#!/bin/sh\ntest "$1 $2 $3" = "tool run pip" && shift 3 && exec "{sys.executable}" -m pip "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sources.importlib.machinery.PathFinder, "find_spec", lambda name, *rest: None)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert fetch(write_card(tmp_path, PIN)).read_bytes() == DATA


def test_neither_pip_nor_uv(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.importlib.machinery.PathFinder, "find_spec", lambda name, *rest: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WeightsError, match="expected pip or uv, got neither; install one of them"):
        fetch(write_card(tmp_path, PIN))


# The hub


def test_hub_is_asked_for_the_file_of_the_repository(tmp_path, monkeypatch):
    asked = []

    def download(repo_id, filename, *, revision, local_dir):
        asked.append((repo_id, filename, revision))
        (Path(local_dir) / "f").write_bytes(DATA)
        return str(Path(local_dir) / "f")

    hub = ModuleType("huggingface_hub")
    hub.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert fetch(write_card(tmp_path, "hf://someone/faces@v1/sub/w.pt")).read_bytes() == DATA
    fetch(write_card(tmp_path, "hf://someone/faces/w.pt", format="bin"))
    assert asked == [("someone/faces", "sub/w.pt", "v1"), ("someone/faces", "w.pt", None)]


def test_hub_is_optional(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"expected the package huggingface_hub, got none; install pulse-latent\[hub\]"):
        fetch(write_card(tmp_path, "hf://someone/faces/w.pt"))


@pytest.mark.weights
def test_real_weights_come_from_their_package():
    card = read_card("pkg://generators/cards/digiface-dcgan-64.yaml")
    path = fetch(card)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card.sha256
    assert verify(card) == path
