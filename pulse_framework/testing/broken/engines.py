"""Engines, and an optimiser, that break one law each."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from pulse_framework.search import SGD, Engine, Search, SearchResult, Status
from pulse_framework.search.allotment import Judge
from pulse_framework.search.jobs import Job
from pulse_framework.search.rows import Rows

__all__ = [
    "BatchNorm",
    "CountedStart",
    "ForgottenRestart",
    "LastIterate",
    "LastNumbers",
    "SilentFailure",
    "ZeroIsNoSeed",
]


class LastIterate(Engine):
    """Returns the last iterate with the best one's numbers, as the original PULSE does."""

    def _result(self, rows: Rows, row: int, job: Job) -> SearchResult:
        last = {f"best/{name}": value for name, value in rows.items() if name.startswith("latent/")}
        return super()._result(rows | last, row, job)


class LastNumbers(Engine):
    """Returns the last iterate and its numbers."""

    def _result(self, rows: Rows, row: int, job: Job) -> SearchResult:
        result = super()._result(rows, row, job)
        objective, mse = result.trace[-1].tolist()
        return replace(result, objective=objective, mse=mse, step=result.steps - 1)


class ForgottenRestart(Engine):
    """Begins every restart at the same latent."""

    def _begin(self, search: Search) -> Job:
        return replace(super()._begin(replace(search, restart=0)), search=search)


class CountedStart(Engine):
    """Seeds a start by its position in the queue."""

    begun = 0

    def _begin(self, search: Search) -> Job:
        self.begun += 1
        return replace(super()._begin(replace(search, key=str(self.begun))), search=search)


class ZeroIsNoSeed(Engine):
    """Takes seed 0 for no seed."""

    unseeded = itertools.count(1000)

    def _begin(self, search: Search) -> Job:
        return replace(super()._begin(replace(search, seed=search.seed or next(self.unseeded))), search=search)


class SilentFailure(Engine):
    """Says nothing of a search that failed."""

    def run(self, searches: Iterable[Search], judge: Judge | None = None) -> Iterator[SearchResult]:
        """The others."""
        return (result for result in super().run(searches, judge) if result.status is not Status.FAILED)


@dataclass(frozen=True, kw_only=True)
class BatchNorm(SGD):
    """Divides by the length of the gradient of the whole batch."""

    def step(self, gradient: Tensor, state: dict[str, Tensor], coefficients: Tensor) -> Tensor:
        """A step that depends on the neighbours."""
        return super().step(gradient / (1 + gradient.norm()), state, coefficients)
