"""Sweeps whose jobs Hydra's launchers run in processes of their own."""

import json

import pytest

LAUNCHERS = {
    "joblib": ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    "submitit": ["hydra/launcher=submitit_local", "hydra.launcher.submitit_folder=jobs"],
}
ANSWERS = ("in00.png", "in00.safetensors", "in01.png", "in01.safetensors", "grid.png")


@pytest.fixture
def sweep(small, linear):
    return ["run", "-m", f"data.inputs=[{small[0].parent}]", "generator=linear", *linear[2:], "--quiet"]


@pytest.fixture
def results():
    """Lines of a job, without what differs between any two runs."""

    def read(folder):
        lines = (json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines())
        return [{key: value for key, value in line.items() if key not in ("seconds", "time")} for line in lines]

    return read


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_jobs_are_those_of_a_plain_sweep_and_one_that_fails_leaves_the_other_alone(
    pulse, pulse_process, results, sweep, tmp_path, launcher
):
    jobs = [*sweep, "search.steps=0,3"]
    plain = pulse(*jobs, f"output={tmp_path / 'plain'}")
    done = pulse_process(*jobs, *LAUNCHERS[launcher], f"output={tmp_path / launcher}", cwd=tmp_path)
    assert (plain.status, done.status) == (2, 2)
    assert "search.steps=0" in done.error_lines[-1]
    ours, theirs = tmp_path / launcher / "1", tmp_path / "plain" / "1"
    assert {name: (ours / name).read_bytes() for name in ANSWERS} == {name: (theirs / name).read_bytes() for name in ANSWERS}
    assert results(ours) == results(theirs)
