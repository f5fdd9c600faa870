"""From images to answers: samples and restarts of every image, and the best of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.search.compiled import Compile, compiler_fault
from pulse_framework.search.engine import Engine
from pulse_framework.search.joint import join
from pulse_framework.search.phases import Phase, Search
from pulse_framework.search.progress import Progress
from pulse_framework.search.result import SearchResult
from pulse_framework.search.starting import NearestDraw, Start

__all__ = ["Answer", "Plan"]


@dataclass(frozen=True)
class Answer:
    """What was found for one image: its key, its index in the queue, and its samples, best first."""

    key: str
    index: int
    samples: tuple[SearchResult, ...]


@dataclass
class _Sample:
    """The restarts of one sample that are over: those up to ``last`` count."""

    last: int
    found: dict[int, SearchResult] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, restart: int, result: SearchResult, *, ends: bool) -> None:
        """Take an answer; one that ends the restarts leaves later ones out."""
        self.seconds += result.seconds
        self.last = min(self.last, restart) if ends else self.last
        self.found = {number: other for number, other in (self.found | {restart: result}).items() if number <= self.last}

    @property
    def complete(self) -> bool:
        """Whether no restart that counts is open."""
        return len(self.found) == self.last + 1

    def best(self) -> SearchResult:
        """The answer, with the seconds of all restarts that came to an end."""
        return replace(min(self.found.values(), key=_rank), seconds=self.seconds)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The settings of a search: everything about it but generator, operator and images.

    Attributes:
        phases: Legs of the search, in order.
        seed: Seed of the run; 0 is a seed.
        samples: Different answers wanted for each image. Sample k does not depend on how many there are.
        restarts: Searches for each sample, of which the best is the answer.
        until_success: Whether the restarts of a sample end with the first, by number, that meets the target: that one is the
            answer, whatever later ones may reach. A later one that is under way leaves its slot as soon as an earlier one has
            met the target, and one that has not begun never does. Which one answers depends on no timing, so neither on slots
            nor on other images; where none meets the target, the best of all is the answer.
        start: Where a search begins; see ``Engine``.
        slots: Searches that run at once, at most.
        lane: See ``Engine``.
        poll_every: See ``Engine``.
        compile: See ``Engine``.
        told: What the user should know of how the plan was made, one line; nothing depends on it.

    Raises:
        ValueError: A number is below 1, or ``until_success`` has no target to meet.
    """

    phases: Sequence[Phase]
    seed: int = 0
    samples: int = 1
    restarts: int = 1
    until_success: bool = False
    start: Start = field(default_factory=NearestDraw)
    slots: int = 16
    lane: int | None = None
    poll_every: int | None = None
    compile: Compile = False
    told: str = ""

    def __post_init__(self) -> None:
        for name in ("samples", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"search {name}: expected at least 1, got {getattr(self, name)}")
        if self.phases and self.phases[-1].coarse:
            raise ValueError("search phases: expected the last one at full size, got coarse; set its coarse to 0")
        if self.until_success and self.phases and not self.phases[-1].stop.has_target:
            raise ValueError(
                "search until_success: expected a target to meet, got none; set target_db, target_mse or target_noise"
            )

    def check(self, generator: Generator, degradations: Iterable[Degradation] = ()) -> None:
        """Refuse a generator without the blocks that the phases move, beside the unknown parameters of the degradations.

        Raises:
            ValueError: A block is unknown, cannot be searched, or has no prior; or there is no compiler for ``compile: true``.
        """
        for joint in [join(generator, degradation) for degradation in degradations] or [generator]:
            for phase in self.phases:
                phase.on(joint)
        if self.compile is True and (fault := compiler_fault()):
            raise ValueError(f"search compile: expected a compiler, got none ({fault}); install g++ or set search.compile=auto")

    def engine(
        self,
        generator: Generator,
        degradation: Degradation,
        observe: Callable[[Progress], None] | None = None,
        *,
        watch: bool = False,
    ) -> Engine:
        """The engine that this plan asks for; see there."""
        return Engine(
            generator,
            degradation,
            self.phases,
            start=self.start,
            slots=self.slots,
            lane=self.lane,
            poll_every=self.poll_every,
            compile=self.compile,
            observe=observe,
            watch=watch,
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
        waiting: dict[int, list[_Sample]] = {}
        answered: set[int] = set()

        def idle(search: Search) -> bool:
            number, restart = divmod(search.restart, self.restarts)
            samples = waiting.get(search.index)
            return search.index in answered or (samples is not None and restart > samples[number].last)

        for result in engine.run(searches, idle if self.until_success else None):
            samples = waiting.setdefault(result.index, [_Sample(self.restarts - 1) for _ in range(self.samples)])
            number, restart = divmod(result.restart, self.restarts)
            samples[number].add(restart, result, ends=self.until_success and result.feasible)
            if all(sample.complete for sample in samples):
                answered.add(result.index)
                engine.flights.forget(result.index)
                best = [sample.best() for sample in waiting.pop(result.index)]
                yield Answer(result.key, result.index, tuple(sorted(best, key=_rank)))


def _rank(result: SearchResult) -> tuple[bool, bool, float, int]:
    return result.rank
