"""The wheel, built here and put into an empty environment, does the main job from a folder of another name."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from pulse_framework.images import write_png

ROOT = Path(__file__).parents[1]
PACKAGES = ("pulse_framework", "generators", "degradations")


def run(*command, cwd):
    """Standard output of a command that must succeed, without this process's Python path."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_CORE", "COVERAGE"))}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def build(kind, folder):
    """One distribution of the checkout, in the running environment: no isolation, no network."""
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder, cwd=ROOT)
    (path,) = folder.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build("wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """The interpreter of an environment that has the wheel, and borrows everything else."""
    folder = tmp_path_factory.mktemp("an environment") / "with spaces"
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=ROOT)
    (site,) = folder.glob("lib/python3*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin" / "python"


def test_wheel_has_everything_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        points = archive.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    configs = {f"pulse_framework/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    sources = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    cards = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("cards/*.yaml")}
    typed = {f"{package}/py.typed" for package in PACKAGES}
    assert len(configs) > 20
    assert cards
    pictures = {f"pulse_framework/examples/{name}" for name in ("face.png", "portrait.faces.json", "portrait.jpg")}
    missing = (configs | sources | cards | typed | pictures) - names
    assert not missing
    others = {name for name in names if not name.startswith((*(f"{package}/" for package in PACKAGES), "pulse_latent-"))}
    assert not others
    assert not [name for name in names if "test_" in name or name.endswith((".pyc", ".md"))]
    assert "pulse = pulse_framework.cli:main" in points


def test_source_distribution_builds_the_same_wheel(wheel, tmp_path):
    with tarfile.open(build("sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "a copy", filter="data")
    (copy,) = (tmp_path / "a copy").iterdir()
    assert {"tests", "docs", "README.md", "Makefile", "constraints.txt"} <= {path.name for path in copy.iterdir()}
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "again", cwd=copy)
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(next((tmp_path / "again").iterdir())) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


@pytest.mark.weights
def test_wheel_does_the_main_job_in_an_empty_environment(python, tmp_path):
    here = tmp_path / "some other folder"
    here.mkdir()
    (site,) = python.parents[1].glob("lib/python3*/site-packages")
    for package in PACKAGES:
        found = Path(run(python, "-c", f"import {package}; print({package}.__file__)", cwd=here).strip())
        assert found.is_relative_to(site), f"{package} is of {found}"
    listed = run(python, "-m", "pulse_framework", "list", cwd=here).splitlines()
    assert {"generators\tdigiface-dcgan-64", "degradations\tbicubic", "weights\tdigiface-dcgan-64"} <= set(listed)

    write_png(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)), here / "low resolution.png")
    options = ["--steps", "2", "--device", "cpu", "--quiet", "search.start.draws=1"]
    run(python, "-m", "pulse_framework", "upsample", "low resolution.png", "-o", "the answers", *options, cwd=here)
    (line,) = (here / "the answers/results.jsonl").read_text().splitlines()
    assert (here / "the answers" / json.loads(line)["output"]).is_file()
    assert {path.name for path in here.iterdir()} == {"low resolution.png", "the answers"}
