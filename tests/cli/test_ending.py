"""Sweeps and commands that are told to end: what they say, what they leave, and how they go on."""

import gzip
import json
import signal

import pytest

from pulse_framework.cli import jobs
from pulse_framework.runtime import profiling
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


@SIGNALS
def test_an_interrupted_run_tells_objects(pulse, small, linear, at_call, tmp_path, sent, status, said):
    at_call(Engine, "_advance", 5, sent)
    done = pulse("upsample", *small, "-o", tmp_path / "out", *linear, "--log-json")
    *_, last = (json.loads(line) for line in done.err.splitlines())
    assert (done.status, last["level"]) == (status, "error")
    assert last["message"].startswith(f"{said}; ")


@SIGNALS
@pytest.mark.parametrize(("owner", "name"), [(Engine, "_advance"), (profiling, "_parts")], ids=["searching", "writing"])
def test_an_interrupted_run_has_its_profile(pulse, small, linear, at_call, tmp_path, owner, name, sent, status, said):
    """Also where it is interrupted just as the profile is written: what was recorded until then."""
    at_call(owner, name, 1 if owner is profiling else 5, sent)
    done = pulse("upsample", *small, "-o", tmp_path / "out", *linear, "search.slots=1", "--profile")
    assert (done.status, done.error_lines[-1].startswith(f"pulse: {said}; ")) == (status, True)
    table = (tmp_path / "out" / "profile.txt").read_text()
    assert "generator" in table
    with gzip.open(tmp_path / "out" / "profile.json.gz") as file:
        assert any(event.get("name") == "pulse: generator" for event in json.load(file)["traceEvents"])


@pytest.mark.parametrize("nth", [0, 1], ids=["table", "trace"])
def test_a_profile_that_cannot_be_written_costs_no_results(pulse, small, linear, tmp_path, monkeypatch, caplog, nth):
    tried = []

    def full(path, content):
        tried.append(path)
        if len(tried) > nth:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(profiling, "write_atomic", full)
    assert pulse("upsample", *small, "-o", tmp_path / "out", *linear, "--profile").status == 0
    assert pulse("upsample", *small, "-o", tmp_path / "whole", *linear).status == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    (told,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    wanted = f"{tmp_path / 'out'}: expected a folder that a profile can be written to"
    assert told == f"{wanted}, got: [Errno 28] No space left on device; the run goes on"


def test_an_exception_that_nobody_expected_is_an_object(pulse, small, linear, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("one\ntwo")

    monkeypatch.setattr(Engine, "_advance", fail)
    done = pulse("upsample", *small, "-o", tmp_path / "out", *linear, "--log-json")
    *_, last = (json.loads(line) for line in done.err.splitlines())
    assert (done.status, last["level"], last["message"]) == (1, "error", "ZeroDivisionError: one two")
    assert "in predict_step" in last["exception"]
