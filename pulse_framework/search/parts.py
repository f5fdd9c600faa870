"""Names for the parts of a step, which a profiler that is running shows; without one they cost nothing."""

import contextlib
from collections.abc import Iterator

import torch
from torch.profiler import record_function

__all__ = ["PREFIX", "part"]

PREFIX = "pulse: "
"""What the names of parts begin with in a profile."""


_within: list[str] = []  # the part that is being done, if any


@contextlib.contextmanager
def part(name: str) -> Iterator[None]:
    """What is done within is shown as ``pulse: NAME``; parts of parts are not shown, so that the parts add up."""
    if _within or not torch.autograd._profiler_enabled():
        yield
        return
    _within.append(name)
    try:
        with record_function(PREFIX + name):
            yield
    finally:
        _within.clear()
