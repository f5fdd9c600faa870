"""Which restarts of an image go on, and which of them answers it.

The restarts of a sample either all run to their end, or up to the first success, or they are halved: at steps that are set
beforehand, the rungs, those that have come so far wait for the others, and the better half goes on (successive halving, Jamieson
and Talwalkar, AISTATS 2016, algorithm 1). Nothing here depends on when a search is told of, only on what it has found, so
neither do answers.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from pulse_framework.search.phases import Search
from pulse_framework.search.result import SearchResult

__all__ = ["Allotment", "Everything", "Judge", "rungs"]


@runtime_checkable
class Judge(Protocol):
    """What an engine asks about the searches that it runs.

    Attributes:
        compares: Whether any search ever waits for another.
    """

    compares: bool

    def wanted(self, search: Search) -> bool:
        """Whether its answer is still of use."""

    def come(self, search: Search, steps: int, trace: Tensor) -> None:
        """It goes on after so many steps of the last phase; ``trace``: objective and mse of its iterates, shape (budget, 2)."""

    def waits(self, search: Search) -> bool:
        """Whether it has to wait for others before it goes on."""

    def lost(self, search: Search) -> None:
        """It was not finite in reduced precision, and is searched for once more at the end, if it is wanted then."""


class Everything:
    """Every search runs to its end."""

    compares = False

    def wanted(self, search: Search) -> bool:
        """Always."""
        del search
        return True

    def come(self, search: Search, steps: int, trace: Tensor) -> None:
        """Of no interest."""

    def waits(self, search: Search) -> bool:
        """Never."""
        del search
        return False

    def lost(self, search: Search) -> None:
        """Of no interest."""


def rungs(restarts: int, steps: int) -> tuple[int, ...]:
    """Steps at which restarts are halved: the last half of the budget is for one, the quarter before it for two, and so on.

    Args:
        restarts: How many there are.
        steps: Budget of each, if it goes on to the end.
    """
    halvings = math.ceil(math.log2(restarts))
    return tuple(max(1, steps >> (halvings - k)) for k in range(halvings))


@dataclass
class _Sample:
    """The restarts of one sample.

    Attributes:
        alive: Those that are in, by number; the answer is one of them.
        rungs: Steps at which the better half of them goes on.
        ends: Whether success ends the restarts.
        level: Number of the next rung.
        at: The best objective of each at every rung that it has come to.
        missing: Those that reduced precision has lost.
        found: Those that are over.
        seconds: Of all that are over.
    """

    alive: list[int]
    rungs: tuple[int, ...]
    ends: bool
    level: int = 0
    at: dict[int, list[float]] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    found: dict[int, SearchResult] = field(default_factory=dict)
    seconds: float = 0.0

    def come(self, restart: int, steps: int, trace: Tensor) -> None:
        passed = [rung for rung in self.rungs if rung <= steps]
        if len(passed) > len(self.at.get(restart, ())):
            self.at[restart] = [float(trace[:rung, 0].nan_to_num(math.inf).min()) for rung in passed]
            self._decide()

    def lose(self, restart: int) -> None:
        self.missing.add(restart)
        self._decide()

    def add(self, restart: int, result: SearchResult) -> None:
        self.seconds += result.seconds
        if restart in self.alive:
            self.found[restart] = result
            self._decide()

    def waits(self, restart: int) -> bool:
        return restart in self.alive and self._passed(restart)

    @property
    def complete(self) -> bool:
        """Whether no restart that is in is open."""
        return all(number in self.found for number in self.alive)

    def best(self) -> SearchResult:
        """The answer, with the seconds of all restarts that came to an end."""
        return replace(min((self.found[number] for number in self.alive), key=_rank), seconds=self.seconds)

    def _passed(self, number: int) -> bool:
        """Whether it has come to the next rung."""
        return len(self.at.get(number, ())) > self.level

    def _decide(self) -> None:
        """Leave out those after a success; halve those that are in, once all of them have come to the rung, or to their end."""
        while True:
            over = {number for number in self.alive if number in self.found and not self._passed(number)}
            met = [number for number in self.alive if self.ends and number in over and self.found[number].feasible][:1]
            self.alive = [number for number in self.alive if number <= met[0]] if met else self.alive
            open_ = [number for number in self.alive if not self._passed(number) and number not in over | self.missing]
            if self.level == len(self.rungs) or open_:
                return
            if self.missing.issuperset(self.alive):  # all of them come again
                self.at, self.missing = {}, set()
                return
            ranked = sorted((self._value(number), number) for number in self.alive if number not in self.missing)
            better = [number for _, number in ranked[: -(-len(self.alive) // 2)]]
            self.alive, self.level = (met, len(self.rungs)) if met else (sorted(better), self.level + 1)

    def _value(self, number: int) -> float:
        """The best objective at the next rung, or of a search that ended before it."""
        return self.at[number][self.level] if self._passed(number) else self.found[number].objective


class Allotment:
    """The samples of every image of a run, and their restarts: restart r of sample k is start ``k * restarts + r``.

    Args:
        samples: For each image.
        restarts: For each sample.
        rungs: Steps of the last phase at which the restarts of a sample are halved.
        ends: Whether success ends the restarts of a sample: the lowest-numbered that meets the target before the next rung
            answers.
    """

    def __init__(self, samples: int, restarts: int, rungs: tuple[int, ...] = (), *, ends: bool = False) -> None:
        self.compares = bool(rungs)
        self.each = samples * restarts
        self._restarts, self._new = restarts, lambda: [_Sample(list(range(restarts)), rungs, ends) for _ in range(samples)]
        self._open: dict[int, list[_Sample]] = {}
        self._answered: set[int] = set()

    def wanted(self, search: Search) -> bool:
        """See ``Judge``."""
        if search.index in self._answered:
            return False
        sample, restart = self._of(search)
        return restart in sample.alive

    def come(self, search: Search, steps: int, trace: Tensor) -> None:
        """See ``Judge``."""
        if search.index not in self._answered:
            sample, restart = self._of(search)
            sample.come(restart, steps, trace)

    def waits(self, search: Search) -> bool:
        """See ``Judge``."""
        if search.index in self._answered:
            return False
        sample, restart = self._of(search)
        return sample.waits(restart)

    def lost(self, search: Search) -> None:
        """See ``Judge``."""
        if search.index not in self._answered:
            sample, restart = self._of(search)
            sample.lose(restart)

    def add(self, result: SearchResult) -> tuple[SearchResult, ...] | None:
        """Take what a search has found; the samples of its image, best first, once all of them are known."""
        if result.index in self._answered:
            return None
        sample, restart = self._of(result)
        sample.add(restart, result)
        samples = self._open[result.index]
        if not all(sample.complete for sample in samples):
            return None
        self._answered.add(result.index)
        del self._open[result.index]
        return tuple(sorted((sample.best() for sample in samples), key=_rank))

    def _of(self, search: Search | SearchResult) -> tuple[_Sample, int]:
        if search.index not in self._open:
            self._open[search.index] = self._new()
        number, restart = divmod(search.restart, self._restarts)
        return self._open[search.index][number], restart


def _rank(result: SearchResult) -> tuple[bool, bool, float, int]:
    return result.rank
