"""Sweeps and commands that are told to end: what they say, what they leave, and how they go on."""

import signal

import pytest

from pulse_framework.cli import jobs
from pulse_framework.search.engine import Engine
from tests.cli.test_ranks import contents

SIGNALS = pytest.mark.parametrize(
    ("sent", "status", "said"),
    [(signal.SIGTERM, 143, "told to end"), (signal.SIGINT, 130, "interrupted")],
    ids=["terminated", "interrupted"],
)


@pytest.fixture
def at_call(monkeypatch):
    """Sends a signal to this process at a certain call of a function, once."""
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores

    def arrange(owner, name, number, sent):
        called, actual = [], getattr(owner, name)

        def wrapped(*arguments, **settings):
            called.append(name)
            if len(called) == number:
                signal.raise_signal(sent)
            return actual(*arguments, **settings)

        monkeypatch.setattr(owner, name, wrapped)
        return called

    yield arrange
    signal.signal(signal.SIGINT, ctrl_c)


@pytest.fixture
def swept(small, linear, tmp_path):
    """A sweep of three jobs; each of the second takes 20 steps an image, one image after the other."""
    inputs = f"data.inputs=[{','.join(map(str, small))}]"
    fixed = ["generator=linear", linear[2], "search.start.draws=1", "search.at_target=false", "search.slots=1"]
    return lambda name: ["run", "-m", inputs, *fixed, "search.steps=3,20,5", f"output='{tmp_path / name}'"]


@SIGNALS
def test_a_sweep_that_is_told_to_end_begins_no_later_job(pulse, swept, at_call, tmp_path, sent, status, said):
    """It is told to in the second image of its second job."""
    assert pulse(*swept("whole")).status == 0
    out = tmp_path / "out"
    steps = at_call(Engine, "_advance", 2 * 3 + 20 + 7, sent)
    done = pulse(*swept("out"))
    assert (done.status, len(steps)) == (status, 33)
    assert done.error_lines[-2:] == [
        f"pulse: {said}; what was finished is on disk, and the same command goes on from there",
        f"pulse: the sweep was {said} after 1 job; what was finished is on disk, and the same command goes on from there",
    ]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == ["0", "1"]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("in*.png")) == ["0/in00.png", "0/in01.png", "1/in00.png"]
    assert not list(out.rglob(".running"))
    again = pulse(*swept("out"))
    assert again.status == 0
    assert "2 already done" in again.err
    assert "1 already done" in again.err
    assert len(steps) == 33 + 20 + 2 * 5
    assert contents(out) == contents(tmp_path / "whole")


@SIGNALS
def test_a_sweep_is_told_to_end_between_two_jobs(pulse, swept, at_call, tmp_path, sent, status, said):
    """As it is in the process that hands the jobs out, whatever launcher runs them."""
    at_call(jobs, "named", 3, sent)
    done = pulse(*swept("out"))
    assert done.status == status
    assert done.error_lines[-1].startswith(f"pulse: the sweep was {said} after 2 jobs; ")
    assert len(list((tmp_path / "out").rglob("in*.png"))) == 4
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


@SIGNALS
def test_a_run_is_told_to_end_before_it_searches(pulse, small, linear, at_call, tmp_path, sent, status, said):
    at_call(jobs, "prepare", 1, sent)
    command = ["upsample", *small, "-o", tmp_path / "out", *linear]
    done = pulse(*command)
    assert (done.status, len(done.error_lines)) == (status, 1)
    assert done.err.startswith(f"pulse: {said}; ")
    assert pulse(*command).status == 0
