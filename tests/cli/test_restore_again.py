"""``pulse restore`` stopped, repeated and damaged: it goes on, and ends with the same pictures."""

import json
import shutil
import sys

import pytest
from typer.testing import CliRunner

from pulse_framework.cli.app import app
from pulse_framework.files import write_atomic
from tests.cli.photos import FAST, files, gradient


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Two photos of two faces each, the command that restores them, and what it makes."""
    place = tmp_path_factory.mktemp("two")
    (place / "photos").mkdir()
    for turn, name in ((0, "a"), (90, "b")):
        gradient("RGB", (120, 120)).rotate(turn).save(place / "photos" / f"{name}.png")
    (place / "two.json").write_text(json.dumps([{"box": [20, 20, 42, 42]}, {"box": [60, 70, 90, 100]}]))
    command = ["restore", str(place / "photos"), "--boxes", str(place / "two.json"), *FAST]
    done = CliRunner().invoke(app, [*command, "-o", str(place / "whole")])
    assert done.exit_code == 0, done.output
    return place, command, files(place / "whole")


def test_a_run_stopped_at_any_write_ends_as_an_unbroken_one(pulse, two, tmp_path, monkeypatch):
    """Each run is stopped halfway through writing a file, and the next goes on from there."""
    _, command, whole = two
    assert len([name for name in whole if not name.startswith(".")]) == 2 + 2 * 4
    writes, stop = 0, 12

    def stopped(path, content, check=None):
        nonlocal writes
        writes += 1
        if writes == stop:
            path.with_name(f".{'0' * 32}.part").write_bytes(content[: len(content) // 2])
            raise KeyboardInterrupt
        write_atomic(path, content, check)

    for name, module in list(sys.modules.items()):  # all that write; they were imported when the whole run was made
        if name.startswith("pulse_framework.") and vars(module).get("write_atomic") is write_atomic:
            monkeypatch.setattr(module, "write_atomic", stopped)
    left = []
    while pulse(*command, "-o", tmp_path / "stopped").status == 130:
        left.append(len(set(whole) - set(files(tmp_path / "stopped"))))
        writes = 0
        assert len(left) < 9
    assert len(left) >= 2
    assert left == sorted(left, reverse=True)
    assert 0 < left[-1] < left[0] < len(whole)
    monkeypatch.undo()
    assert files(tmp_path / "stopped") == whole
    assert not list((tmp_path / "stopped").rglob("*.part"))


def test_what_is_done_is_not_done_again_and_what_is_damaged_is(pulse, two, tmp_path):
    place, command, whole = two
    shutil.copytree(place / "whole", tmp_path / "out")
    again = pulse(*command, "-o", tmp_path / "out")
    assert (again.status, again.out) == (0, "")
    assert "4 already done" in again.err
    for name in ("a.png", "b_face1.png", ".faces/a/a.png_face0.safetensors"):
        path = tmp_path / "out" / name
        path.write_bytes(path.read_bytes()[:-9])
    (tmp_path / "out" / ".faces/b/faces.json").write_bytes(b"{")
    mended = pulse(*command, "-o", tmp_path / "out")
    assert mended.status == 0
    assert "3 already done" in mended.err
    assert files(tmp_path / "out") == whole


def test_a_face_does_not_depend_on_the_others_of_the_run(pulse, two, tmp_path):
    place, command, whole = two
    options = [*command[2:], "--faces", "1", "--only-crops", "-o", tmp_path / "alone"]
    assert pulse("restore", place / "photos" / "b.png", *options).status == 0
    assert files(tmp_path / "alone", "b_face*.png") == {"b_face1.png": whole["b_face1.png"]}
    assert whole["b_face1.png"] != whole["b_face0.png"]
