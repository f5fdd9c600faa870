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
def test_a_sweep_is_the_same_in_processes_of_its_own(pulse, pulse_process, results, sweep, tmp_path, launcher):
    plain = pulse(*sweep, "search.seed=0,1", f"output={tmp_path / 'plain'}")
    done = pulse_process(*sweep, *LAUNCHERS[launcher], "search.seed=0,1", f"output={tmp_path / launcher}", cwd=tmp_path)
    assert (plain.status, done.status, done.err) == (0, 0, "")
    for job in "01":
        ours, theirs = tmp_path / launcher / job, tmp_path / "plain" / job
        assert {name: (ours / name).read_bytes() for name in ANSWERS} == {name: (theirs / name).read_bytes() for name in ANSWERS}
        assert results(ours) == results(theirs)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_that_fails_leaves_the_others_alone(pulse_process, records, sweep, tmp_path, launcher):
    done = pulse_process(*sweep, *LAUNCHERS[launcher], "search.steps=0,3", f"output={tmp_path / 'out'}", cwd=tmp_path)
    assert done.status == 2
    assert "search.steps=0" in done.error_lines[-1]
    assert [line["steps"] for line in records(tmp_path / "out" / "1")] == [3, 3]
