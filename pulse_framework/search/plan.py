"""From images to answers: samples and restarts of every image, and the best of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.search.compiled import Compile, compiler_fault
from pulse_framework.search.engine import Engine, Progress
from pulse_framework.search.joint import join
from pulse_framework.search.objective import Objective
from pulse_framework.search.optimisers import Optimiser
from pulse_framework.search.phases import Phase, Search, StopRule
from pulse_framework.search.result import SearchResult
from pulse_framework.search.schedules import Constant, Schedule
from pulse_framework.search.starting import NearestDraw, Start

__all__ = ["Answer", "Plan", "single_phase"]


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
        start: Where a search begins; see ``Engine``.
        slots: Searches that run at once, at most.
        lane: See ``Engine``.
        poll_every: See ``Engine``.
        compile: See ``Engine``.

    Raises:
        ValueError: A number is below 1.
    """

    phases: Sequence[Phase]
    seed: int = 0
    samples: int = 1
    restarts: int = 1
    start: Start = field(default_factory=NearestDraw)
    slots: int = 16
    lane: int | None = None
    poll_every: int | None = None
    compile: Compile = False

    def __post_init__(self) -> None:
        for name in ("samples", "restarts"):
            if getattr(self, name) < 1:
                raise ValueError(f"search {name}: expected at least 1, got {getattr(self, name)}")

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

    def engine(self, generator: Generator, degradation: Degradation, observe: Callable[[Progress], None] | None = None) -> Engine:
        """The engine that this plan asks for."""
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
        best = [replace(min(group, key=_rank), seconds=sum(result.seconds for result in group)) for group in samples.values()]
        return tuple(sorted(best, key=_rank))


def single_phase(
    *,
    prior: LatentPrior | Mapping[str, LatentPrior],
    objective: Objective,
    optimiser: Optimiser,
    steps: int,
    schedule: Schedule | None = None,
    blocks: Sequence[str] | None = None,
    beside: Mapping[str, LatentPrior] | None = None,
    target_db: float | None = None,
    target_mse: float | None = None,
    target_noise: float | None = None,
    at_target: bool = True,
    patience: int | None = None,
    tolerance: float = 1e-3,
    seed: int = 0,
    samples: int = 1,
    restarts: int = 1,
    start: Start | None = None,
    slots: int = 16,
    lane: int | None = None,
    poll_every: int | None = None,
    compile: Compile = False,  # noqa: A002 - the setting's name
) -> Plan:
    """A plan of one phase from flat settings, as a configuration gives them; see ``Phase``, ``StopRule`` and ``Plan``.

    Raises:
        ValueError: A number is out of range.
    """
    stop = StopRule(
        steps=steps,
        target_db=target_db,
        target_mse=target_mse,
        target_noise=target_noise,
        at_target=at_target,
        patience=patience,
        tolerance=tolerance,
    )
    phase = Phase(
        prior=prior,
        objective=objective,
        optimiser=optimiser,
        schedule=schedule or Constant(),
        stop=stop,
        blocks=tuple(blocks) if blocks else None,
        beside=beside,
    )
    return Plan(
        phases=(phase,),
        seed=seed,
        samples=samples,
        restarts=restarts,
        start=start or NearestDraw(),
        slots=slots,
        lane=lane,
        poll_every=poll_every,
        compile=compile,
    )


def _rank(result: SearchResult) -> tuple[bool, bool, float, int]:
    return result.rank
