"""One process of several fails: the others end with it, what was written stays, and the next run goes on."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_reliability import contents

PROGRAM = str(Path(__file__).with_name("failing.py"))
STEPS = 200


def torchrun():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]


@pytest.mark.parametrize(
    ("started_by", "rank", "how", "the_other", "told"),
    [
        ("lightning", 1, "raise", "searches", "ZeroDivisionError: injected"),
        ("lightning", 0, "raise", "searches", "ZeroDivisionError: injected"),
        ("lightning", 1, "raise", "waits", "ZeroDivisionError: injected"),
        ("lightning", 0, "SIGKILL", "searches", "expected the process that started this one, got one that is gone"),
        ("lightning", 0, "SIGTERM", "waits", "pulse: told to end; what was finished is on disk"),
        ("torchrun", 1, "raise", "searches", "ZeroDivisionError: injected"),
    ],
)
def test_where_one_process_fails_the_others_end(pulse, make_inputs, linear, tmp_path, started_by, rank, how, the_other, told):
    """None has its end of the pipe any more, so that ``run`` returns; left alone, the other would take minutes."""
    make_inputs(tmp_path / "inputs", 4)
    settings = ["search.start.draws=1", "search.at_target=false", "search.slots=1", f"search.steps={STEPS}", "trainer.device=cpu"]
    command = ["upsample", str(tmp_path / "inputs"), *map(str, linear[:3]), *settings]
    launcher, share = (torchrun(), []) if started_by == "torchrun" else ([], ["trainer.devices=2"])
    fault = {"RANK_THAT_FAILS": str(rank), "HOW": how, "THE_OTHER": the_other}
    done = subprocess.run(
        [sys.executable, *launcher, PROGRAM, *command, "-o", str(tmp_path / "out"), *share, "--quiet"],
        capture_output=True,
        text=True,
        env={**os.environ, **fault, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=100,
        check=False,
    )
    assert done.returncode in ({143} if how == "SIGTERM" else {1, -signal.SIGKILL}), (
        done.stderr
    )  # Lightning kills the first where that does not end by itself
    assert told in done.stderr
    if how == "raise":
        assert f"in the process of rank {rank}, one of 2" in done.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert f"in0{rank}.png" in written
    assert f"in0{rank + 2}.png" not in written
    again = pulse(*command, "-o", tmp_path / "out")
    assert again.status == 0
    assert f"{len(written)} already done" in again.err
    assert pulse(*command, "-o", tmp_path / "whole").status == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
