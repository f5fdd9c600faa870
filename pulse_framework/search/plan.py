"""From images to answers: samples and restarts of every image, and the best of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.search.engine import Engine, Progress
from pulse_framework.search.phases import Phase, Search
from pulse_framework.search.result import SearchResult

__all__ = ["Answer", "Plan"]


@dataclass(frozen=True)
class Answer:
    """What was found for one image: its key, its index in the queue, and its samples, best first."""

    key: str
    index: int
    samples: tuple[SearchResult, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a search: everything about it but generator, operator and images.

    Attributes:
        phases: Legs of the search, in order.
        seed: Seed of the run; 0 is a seed.
        samples: Different answers wanted for each image. Sample k does not depend on how many there are.
        restarts: Random starts for each sample, of which the best is the answer.
        slots: Searches that run at once, at most.
        lane: See ``Engine``.
        poll_every: See ``Engine``.

    Raises:
        ValueError: A number is below 1.
    """

    phases: tuple[Phase, ...]
    seed: int = 0
    samples: int = 1
    restarts: int = 1
    slots: int = 16
    lane: int = 8
    poll_every: int | None = None

    def __post_init__(self) -> None:
        for name in ("samples", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"search {name}: expected at least 1, got {getattr(self, name)}")

    def engine(self, generator: Generator, degradation: Degradation, observe: Callable[[Progress], None] | None = None) -> Engine:
        """The engine that this plan asks for."""
        return Engine(
            generator,
            degradation,
            self.phases,
            slots=self.slots,
            lane=self.lane,
            poll_every=self.poll_every,
            observe=observe,
        )

    def run(self, engine: Engine, measurements: Iterable[tuple[str, Tensor]]) -> Iterator[Answer]:
        """Answer every image, each as soon as its last search is over.

        Args:
            engine: Made by ``engine``.
            measurements: Key and y, of shape (c, h, w), of each image.
        """
        each = self.samples * self.restarts
        queue = enumerate(measurements)
        searches = (Search(key, y, restart, self.seed, index) for index, (key, y) in queue for restart in range(each))
        waiting: dict[int, list[SearchResult]] = {}
        for result in engine.run(searches):
            found = waiting.setdefault(result.index, [])
            found.append(result)
            if len(found) == each:
                yield Answer(result.key, result.index, self._choose(waiting.pop(result.index)))

    def _choose(self, found: list[SearchResult]) -> tuple[SearchResult, ...]:
        """The best restart of every sample, best sample first."""
        samples: dict[int, list[SearchResult]] = {}
        for result in found:
            samples.setdefault(result.restart // self.restarts, []).append(result)
        return tuple(sorted((min(group, key=_rank) for group in samples.values()), key=_rank))


def _rank(result: SearchResult) -> tuple[bool, bool, float, int]:
    return result.rank
