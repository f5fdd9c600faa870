"""Runs a command in several processes, one of which fails; a program of ``test_failing_ranks``, not a test.

Usage: failing.py ARGUMENT..., with RANK_THAT_FAILS, HOW (``raise``, or the name of a signal) and THE_OTHER (``searches``,
``waits``) in the environment. It fails at the tenth step of its second image. The other takes a second for each step of its
second image, or is done before it. Lightning starts the other process by this very command.
"""

import os
import signal
import time

from pulse_framework.cli import main
from pulse_framework.search.engine import Engine

STEPS = 200
ADVANCE = Engine._advance


def fail() -> None:
    """Fail."""
    if os.environ["THE_OTHER"] == "waits":
        time.sleep(5)
    if os.environ["HOW"] == "raise":
        raise ZeroDivisionError("injected")
    os.kill(os.getpid(), signal.Signals[os.environ["HOW"]])


def advance(*arguments: object) -> object:
    """A step."""
    taken.append(0)
    failing = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")) == os.environ["RANK_THAT_FAILS"]
    if failing and len(taken) == STEPS + 10:
        fail()
    if not failing and len(taken) > STEPS and os.environ["THE_OTHER"] == "searches":
        time.sleep(1)
    return ADVANCE(*arguments)


taken: list[int] = []
Engine._advance = advance
main()
