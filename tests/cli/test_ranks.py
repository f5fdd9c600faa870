"""Runs whose images several processes share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pulse_framework.runtime import OutputFolder, make_trainer
from pulse_framework.runtime.ranks import leads


def contents(folder):
    """Every file's bytes; lines without their times, in order."""
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("results.jsonl", "config.yaml", "multirun.yaml")
    }
    lines = [json.loads(text) for path in sorted(folder.rglob("results.jsonl")) for text in path.read_text().splitlines()]
    return files, sorted(json.dumps({**line, "seconds": None}) for line in lines)


def test_two_processes_share_the_runs_of_a_sweep(pulse, make_inputs, linear, tmp_path):
    """The first run has one image, so that one of them has no share; the second has one that cannot be read."""
    inputs = make_inputs(tmp_path / "inputs", 4)
    broken = tmp_path / "inputs" / "broken.png"
    broken.write_bytes(inputs[0].read_bytes()[:60])
    command = ["run", "-m", f"data.inputs=[{inputs[0]}],[{inputs[0].parent}]", "generator=linear", *linear[2:]]
    one, two = tmp_path / "one", tmp_path / "two"
    assert pulse(*command, "trainer.device=cpu", f"output={one}").status == 1
    program = [sys.executable, str(Path(__file__).with_name("ranked.py")), "2", *map(str, command), "trainer.device=cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([*program, f"output={two}"], capture_output=True, text=True, env=environment, timeout=120, check=False)
    *written, statuses = done.stdout.splitlines()
    assert statuses == "1 0", done.stderr
    assert sorted(written) == sorted(str(path) for path in two.rglob("in*.png"))
    assert contents(two) == contents(one)
    assert len(contents(two)[1]) == 6
    assert sorted(path.name for path in two.iterdir()) == ["0", "1", "multirun.yaml"]
    assert [line for line in done.stderr.splitlines() if line.startswith("pulse: ")][-1].startswith(
        "pulse: 4 best effort, 1 in err"
    )


def test_lines_of_processes_that_died_are_merged_once(tmp_path):
    def folder():
        known = {"generator": "g", "degradation": "d", "samples": 1, "settings": {}}
        return OutputFolder(tmp_path, **known)

    line = {"input": "a.png", "output": None}
    (tmp_path / "results.jsonl").write_text(json.dumps(line) + "\n" + json.dumps(line)[:7])
    (tmp_path / ".results-1.jsonl").write_text(json.dumps(line) + "\n" + json.dumps({**line, "input": "b.png"}) + '\n{"inp')
    first = folder()
    first.merge()
    first.release()
    assert [json.loads(text)["input"] for text in (tmp_path / "results.jsonl").read_text().splitlines()] == ["a.png", "b.png"]
    assert not list(tmp_path.glob(".results-*"))


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "1"}, False),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),
        ({"SLURM_PROCID": "3"}, False),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, False),
    ],
)
def test_the_first_process_knows_that_it_is(environment, first, monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert leads() is first


def test_any_other_process_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    (tmp_path / "results.jsonl").write_text("torn")
    other = OutputFolder(tmp_path, generator="g", degradation="d", samples=1, settings={})
    assert other.remaining([]) == []
    other.strike_rejected([])
    other.release()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("results.jsonl", "torn")]


def test_torchrun_says_how_many(monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="expected 2, as many as torchrun started, got 3"):
        make_trainer("cpu", devices=3)
    with pytest.raises(ValueError, match="got 5 steps and 4 devices"):
        make_trainer("cpu", checkpoint_every=5)


@pytest.mark.parametrize("command", ["run", "restore"])
def test_what_several_processes_cannot_do_is_refused(pulse, small, tmp_path, command):
    several = ["trainer.device=cpu", "trainer.devices=2"]
    given = {
        "run": ["run", "-m", f"data.inputs=[{small[0]}]", f"output={tmp_path / 'out'}", "search.seed=0,1"],
        "restore": ["restore", small[0], "-o", tmp_path / "out"],
    }
    done = pulse(*given[command], *several)
    assert done.status == 2
    assert "trainer.devices: expected 1" in done.err
    assert len(done.error_lines) == 1
