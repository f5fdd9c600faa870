"""From images to answers: samples and restarts of every image, and the best of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.search.allotment import Allotment, rungs
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
        ValueError: A number is below 1, ``until_success`` has no target to meet, the last phase is not at full size, or
            ``halving`` has nothing to halve.
    """

    phases: Sequence[Phase]
    seed: int = 0
    samples: int = 1
    restarts: int = 1
    until_success: bool = False
    halving: bool = False
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
        if self.halving:
            self._check_halving()

    def _check_halving(self) -> None:
        stop = self.phases[-1].stop
        if self.restarts < 2 or self.until_success:
            raise ValueError(
                f"search halving: expected at least 2 restarts, and until_success=false, got {self.restarts} and"
                f" {str(self.until_success).lower()}; set restarts, or leave one of the two out"
            )
        if stop.keep != "best" or (stop.has_target and not stop.at_target):
            raise ValueError(
                "search halving: expected searches that end at their best, with keep=best and at_target=true, got"
                f" keep={stop.keep} and at_target={str(stop.at_target).lower()}; leave halving out"
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
        steps = engine.phases[-1].stop.steps
        halved = rungs(self.restarts, steps) if self.halving else ()
        allotment = Allotment(self.samples, self.restarts, halved, ends=self.until_success or self.halving)
        searches = (
            Search(key, y, restart, self.seed, index)
            for index, (key, y) in enumerate(measurements)
            for restart in range(self.samples * self.restarts)
        )
        for result in engine.run(searches, allotment):
            samples = allotment.add(result)
            if samples is not None:
                engine.flights.forget(result.index)
                yield Answer(result.key, result.index, samples)
