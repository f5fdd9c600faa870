"""Runs a command in children that are killed again and again; a program of ``test_reliability``, not a test.

Usage: killed.py SEED KILLS FOLDER ARGUMENT... The children are forked from a process that has imported everything. Each is killed
a random moment after it has written one or two more lines of FOLDER/results.jsonl; the last one is left alone. Prints how many
died before they were done.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytorch_lightning  # noqa: F401 - imported once for all children

from pulse_framework.cli.app import app
from pulse_framework.cli.compose import load


def child(arguments: list[str]) -> int:
    """Process number of a run."""
    number = os.fork()
    if number == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            app(arguments, standalone_mode=False)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return number


def lines(results: Path) -> int:
    """How many lines there are."""
    return results.read_bytes().count(b"\n") if results.exists() else 0


def main() -> None:
    """Kill, continue, and report."""
    chance, kills = random.Random(int(sys.argv[1])), int(sys.argv[2])
    folder, arguments = Path(sys.argv[3]), sys.argv[4:]
    load()
    died = 0
    for _ in range(kills):
        number, goal = child(arguments), lines(folder / "results.jsonl") + chance.randint(1, 2)
        ended, delay = 0, chance.random() * 0.03
        while not ended and lines(folder / "results.jsonl") < goal:
            time.sleep(0.001)
            ended, _ = os.waitpid(number, os.WNOHANG)
        if not ended:
            time.sleep(delay)
            os.kill(number, signal.SIGKILL)
            _, status = os.waitpid(number, 0)
            died += os.WIFSIGNALED(status)
    _, status = os.waitpid(child(arguments), 0)
    sys.stdout.write(f"{died} {os.waitstatus_to_exitcode(status)}\n")


if __name__ == "__main__":
    main()
