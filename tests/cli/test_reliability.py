"""Runs that are killed, damaged, doubled or short of disk, and what is promised then."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pulse_framework.runtime import outputs
from pulse_framework.search.engine import Engine

COUNT, KILLS = 40, 20


def contents(folder):
    """Every file's bytes; lines without their times, in order."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("results.jsonl", "config.yaml")}
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return files, sorted(json.dumps({**line, "seconds": None}) for line in lines)


def test_a_run_killed_twenty_times_ends_as_an_unbroken_one(make_inputs, linear, pulse, tmp_path):
    inputs = make_inputs(tmp_path / "inputs", COUNT)
    command = ["upsample", str(tmp_path / "inputs"), *map(str, linear), "trainer.device=cpu", "data.queue=4"]
    assert pulse(*command, "-o", tmp_path / "whole").status == 0
    program = [sys.executable, str(Path(__file__).with_name("killed.py")), "7", str(KILLS), str(tmp_path / "killed")]
    done = subprocess.run(
        [*program, *command, "-o", str(tmp_path / "killed")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=300,
        check=False,
    )
    died, status = map(int, done.stdout.split())
    assert status == 0, done.stderr
    assert died >= KILLS // 2
    killed, whole = contents(tmp_path / "killed"), contents(tmp_path / "whole")
    assert killed[0].keys() == whole[0].keys()
    assert len(killed[0]) == 2 * len(inputs) + 1
    assert killed == whole


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        (".png", lambda data: data[:-20]),
        (".png", lambda data: b""),
        (".png", lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:]),
        (".safetensors", lambda data: data[:-20]),
        (".safetensors", lambda data: b""),
    ],
    ids=["short png", "empty png", "flipped bit", "short latents", "empty latents"],
)
def test_a_damaged_file_is_made_anew(pulse, small, linear, tmp_path, suffix, damage):
    """As a power cut may leave it."""
    command = ["upsample", *small, "-o", tmp_path / "out", *linear]
    pulse(*command)
    whole = contents(tmp_path / "out")
    path = tmp_path / "out" / f"{small[0].stem}{suffix}"
    path.write_bytes(damage(path.read_bytes()))
    again = pulse(*command)
    assert again.status == 0
    assert "1 already done" in again.err
    assert contents(tmp_path / "out") == whole


@pytest.mark.parametrize("keep", [1, 30, -2])
def test_a_torn_line_is_written_anew(pulse, small, linear, tmp_path, keep):
    command = ["upsample", *small, "-o", tmp_path / "out", *linear]
    pulse(*command)
    whole = contents(tmp_path / "out")
    results = tmp_path / "out" / "results.jsonl"
    first, second = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(first + second[:keep])
    assert pulse(*command).status == 0
    assert contents(tmp_path / "out") == whole


def test_the_second_of_two_runs_into_one_folder_is_refused(pulse, small, linear, tmp_path):
    out = tmp_path / "out"
    slow = [*map(str, small), "-o", str(out), *map(str, linear), "search.steps=300000", "search.target_db=300"]
    with subprocess.Popen(
        [sys.executable, "-m", "pulse_framework", "upsample", *slow], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as first:
        try:
            until = time.monotonic() + 60
            while not (out / "config.yaml").exists() and time.monotonic() < until:
                time.sleep(0.05)
            second = pulse("upsample", *small, "-o", out, *linear)
            assert second.status == 2
            assert "got one that is in use" in second.err
        finally:
            first.send_signal(signal.SIGKILL)
    after = pulse("upsample", *small, "-o", out, *linear)
    assert after.status == 0  # the dead hold nothing
    assert not (out / ".running").exists()


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["terminated", "interrupted"])
def test_a_run_that_is_told_to_end_says_so_and_goes_on_later(pulse, small, linear, tmp_path, sent, status):
    out = tmp_path / "out"
    endless = [*map(str, small), "-o", str(out), *map(str, linear), "search.target_db=300", "search.steps=300000"]
    # What runs in a shell's background ignores Ctrl-C, and hands that down.
    listening = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from pulse_framework.cli import main; main()"
    )
    program = [sys.executable, "-c", f"{listening}; from pulse_framework.cli import main; main()", "upsample", *endless]
    with subprocess.Popen(program, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
        until = time.monotonic() + 60
        while not (out / "config.yaml").exists() and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(1)
        run.send_signal(sent)
        try:
            _, told = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == status
    assert "the same command goes on from there" in told
    assert "Traceback" not in told
    assert not (out / ".running").exists()
    assert pulse("upsample", *small, "-o", out, *linear).status == 0


def test_a_full_disk_is_told_and_what_was_written_stays(pulse, small, linear, tmp_path, monkeypatch):
    out, write = tmp_path / "out", outputs.write_atomic

    def full(path, *arguments):
        if path.name == f"{small[1].stem}.png":
            raise OSError(28, "No space left on device")
        return write(path, *arguments)

    monkeypatch.setattr(outputs, "write_atomic", full)
    done = pulse("upsample", *small, "-o", out, *linear)
    assert done.status == 1
    assert "No space left on device" in done.err
    assert "Traceback" not in done.err
    monkeypatch.undo()
    again = pulse("upsample", *small, "-o", out, *linear)
    assert again.status == 0
    assert "1 already done" in again.err


@pytest.mark.parametrize("options", [[], ["--samples", "2"], ["--precision", "64-true"]], ids=["one", "samples", "double"])
def test_a_run_that_goes_on_shows_the_first_images_of_the_folder(pulse, make_inputs, linear, tmp_path, options):
    inputs = make_inputs(tmp_path / "inputs", 3)
    whole = ["upsample", *inputs, "-o", tmp_path / "whole", *linear, *options]
    parts = ["upsample", *inputs[1:], "-o", tmp_path / "parts", *linear, *options]
    assert pulse(*whole).status == pulse(*parts).status == 0
    shown = (tmp_path / "whole" / "grid.png").read_bytes()
    assert (tmp_path / "parts" / "grid.png").read_bytes() != shown
    parts[1:1] = [inputs[0]]
    again = pulse(*parts)
    assert "2 already done" in again.err
    assert (tmp_path / "parts" / "grid.png").read_bytes() == shown
    (tmp_path / "parts" / "grid.png").unlink()
    assert pulse(*parts).status == 0  # nothing is left to do but this
    assert (tmp_path / "parts" / "grid.png").read_bytes() == shown


LONG = ["search.steps=60", "search.at_target=false", "search.samples=2", "search.slots=1", "trainer.checkpoint_every=10"]
DIES = """
import os, signal, sys
from pulse_framework.search.engine import Engine
advance, looks = Engine._advance, []

def look(*arguments):
    looks.append(0)
    if len(looks) == 107:
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(*arguments)

Engine._advance = look
from pulse_framework.cli import main
main()
"""


@pytest.fixture
def looks(monkeypatch):
    """Counts the steps of a run in this process; stops it as Ctrl-C does after as many as are asked for."""
    advance, counted = Engine._advance, {"steps": 0, "most": None}

    def look(*arguments):
        if counted["steps"] == counted["most"]:
            raise KeyboardInterrupt
        counted["steps"] += 1
        return advance(*arguments)

    monkeypatch.setattr(Engine, "_advance", look)
    return counted


def test_a_long_search_that_is_killed_goes_on_where_it_was(pulse, small, linear, looks, tmp_path):
    command = ["upsample", small[0], *linear, *LONG]
    assert pulse(*command, "-o", tmp_path / "whole").status == 0
    assert looks["steps"] == 120
    arguments = [*map(str, command), "-o", str(tmp_path / "out")]
    died = subprocess.run([sys.executable, "-c", DIES, *arguments], capture_output=True, timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    (written,) = (tmp_path / "out").glob(".searches-*.ckpt")
    assert written.stat().st_size < 200_000
    looks["steps"] = 0
    assert pulse(*command, "-o", tmp_path / "out").status == 0
    assert looks["steps"] == 21  # one at the sample that was over; of the other those after the last checkpoint, at its step 40
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_damaged_checkpoint_or_one_of_other_settings_is_left_alone(pulse, small, linear, looks, tmp_path, caplog):
    command = ["upsample", small[0], *linear, *LONG]
    assert pulse(*command, "-o", tmp_path / "whole").status == 0
    out = tmp_path / "out"

    def interrupted():
        looks.update(steps=0, most=35)
        assert pulse(*command, "-o", out).status == 130
        looks.update(steps=0, most=None)
        (path,) = out.glob(".searches-*.ckpt")
        return path

    interrupted().write_bytes(interrupted().read_bytes()[:-1000])
    assert pulse(*command, "-o", out).status == 0
    assert looks["steps"] == 120
    assert "expected searches that were written down, got a damaged file" in caplog.text
    assert contents(out) == contents(tmp_path / "whole")
    for path in out.iterdir():
        path.unlink()
    interrupted()
    assert pulse(*command, "search.steps=61", "-o", out).status == 0
    assert looks["steps"] == 122
    assert not list(out.glob(".searches-*"))


@pytest.mark.parametrize(
    ("setting", "got"), [("checkpoint_every=0", "0 steps"), ("checkpoint_every=5 trainer.devices=2", "2 dev")]
)
def test_checkpoints_are_for_one_device(pulse, small, linear, tmp_path, setting, got):
    refused = pulse("upsample", *small, "-o", tmp_path / "out", *linear, *f"trainer.{setting}".split(), "trainer.device=cpu")
    assert refused.status == 2
    assert got in refused.err
