"""Searches that reduced precision has lost: left out, and searched for once more in the precision of their latents.

Under autocast a value above 65504 is infinite in float16, and a difference of large numbers can be 0 / 0 in either half format.
What was lost to that is no answer. The second try has the same stream, so it is what a run without autocast gives, bit for bit.
"""

from collections.abc import Callable, Iterator

import torch

from pulse_framework.search.jobs import Job
from pulse_framework.search.phases import Search
from pulse_framework.search.result import SearchResult, StopReason

__all__ = ["unreduced", "without_lost"]


def without_lost(
    over: Iterator[tuple[Job, SearchResult]], lost: list[Search], tell: Callable[[Search], None]
) -> Iterator[tuple[Job, SearchResult]]:
    """What is over, but for searches that ended not finite under autocast: those are appended to ``lost`` and told."""
    for job, result in over:
        reduced = torch.is_autocast_enabled(job.search.measurement.device.type)
        if reduced and result.reason is StopReason.NON_FINITE:
            lost.append(job.search)
            tell(job.search)
        else:
            yield job, result


def unreduced(results: Iterator[SearchResult], device: str) -> Iterator[SearchResult]:
    """The same, found with autocast off; who asks for them has it as before."""
    while True:
        with torch.autocast(device, enabled=False):
            result = next(results, None)
        if result is None:
            return
        yield result
