"""A run that Ray shares out: the same bytes, also where a worker dies; it needs the extra ``ray``."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.test_reliability import contents

COUNT = 8


def below(parent):
    """Processes that a process has started, and theirs, each with its title."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, seen = {}, [parent]
    while seen:
        seen = [process for process, of in parents.items() if of in seen]
        for process in seen:
            try:
                found[process] = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")[0].decode()
            except OSError:
                continue
    return found


def test_a_worker_that_is_killed_is_done_without(pulse, make_inputs, linear, tmp_path):
    make_inputs(tmp_path / "inputs", COUNT)
    (tmp_path / "inputs" / "bad.png").write_bytes((tmp_path / "inputs" / "in00.png").read_bytes()[:-30])
    command = [*map(str, ("upsample", tmp_path / "inputs", *linear)), "search.steps=600", "--device", "cpu", "--quiet"]
    ray = ["--engine", "ray", "engine.workers=2", "engine.part=2"]
    program = [sys.executable, "-m", "pulse_framework", *command, "-o", str(tmp_path / "shared"), *ray]
    killed = []
    with subprocess.Popen(
        program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as run:
        until = time.monotonic() + 200
        while not killed and run.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
            at_work = [process for process, title in below(run.pid).items() if title == "ray::_search"]
            if at_work:
                os.kill(at_work[0], signal.SIGKILL)
                killed.append(at_work[0])
        _, told = run.communicate(timeout=200)
    assert killed, told
    assert run.returncode == 1, told  # for the input that cannot be read
    assert "bad.png" in told
    assert pulse(*command, "-o", tmp_path / "plain").status == 1
    assert contents(tmp_path / "shared") == contents(tmp_path / "plain")


def test_what_ray_cannot_do_is_refused_before_it_starts(pulse, small, linear, tmp_path, monkeypatch):
    command = ["upsample", *small, *linear, "-o", tmp_path / "out", "--engine", "ray"]
    for extra, told in (
        (["engine.part=0"], "part >= 1"),
        (["trainer.devices=2"], "use more workers"),
        (["engine.workers=2", "engine.address=auto"], "leave it out"),
        (["trainer.checkpoint_every=5"], "whose workers keep nothing"),
        (["--profile"], "whose time goes elsewhere"),
    ):
        done = pulse(*command, *extra)
        assert (done.status, len(done.error_lines)) == (2, 1)
        assert told in done.err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = pulse(*command)
    assert done.status == 2
    assert "pip install 'pulse-latent[ray]'" in done.err
    assert not list(tmp_path.glob("out/*.png"))
