"""Searches on their way through the phases: where each phase begins, and what it has to reach."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import Latents, space
from pulse_framework.search.discrepancy import expected_residual
from pulse_framework.search.phases import Phase, Search, start_at
from pulse_framework.search.result import SearchResult
from pulse_framework.search.rows import Rows
from pulse_framework.search.starting import NearestDraw, Start
from pulse_framework.search.streams import draw, stream

__all__ = ["Job", "Starts"]

_PROBES = 4
_VARIES = 1.25  # rounding of a few hundred numbers varies by less
_END = 2.0
"""Standard deviations from the middle of what an unknown parameter may be to its ends: 95 % are between them."""


@dataclass
class Job:
    """A search under way: where its phase starts, and what it has cost so far.

    Attributes:
        search: What is searched for.
        latents: A full input of N = 1.
        rng: The search's random stream, behind its draws.
        residual: Mean square that the noise leaves, once it was needed.
        noise: Variance of the noise in a number that is observed, once a term asked for it.
        threshold: Target of the phase, as a mean square error.
        steps: Iterates evaluated in the phases before.
        seconds: Its share of the time.
        traces: Of the phases before.
        watched: What was watched in the phases before, name to one number a step.
        phase: Number of the phase that it is in.
        row: Where it goes on from, while it has no slot; None: at the beginning of the phase.
    """

    search: Search
    latents: Latents
    rng: torch.Generator
    residual: float | None = None
    threshold: float = -1.0
    noise: float | None = None
    steps: int = 0
    seconds: float = 0.0
    traces: list[Tensor] = field(default_factory=list)
    watched: list[dict[str, Tensor]] = field(default_factory=list)
    phase: int = 0
    row: Rows | None = None


class Starts:
    """Makes jobs of searches, and moves them from phase to phase.

    Args:
        generator: G.
        degradation: A.
        phases: As ``Phase.on`` gives them.
        start: Where a search begins that is given no latents.

    Attributes:
        priors: Of every block that moves, for each phase.
        spaces: The blocks of the input, for each phase.
        measurement_shape: What A makes of the generator's images.
    """

    def __init__(self, generator: Generator, degradation: Degradation, phases: Sequence[Phase], start: Start) -> None:
        self.generator, self.degradation, self.phases = generator, degradation, phases
        self.priors = [phase.priors(generator) for phase in phases]
        self.spaces = list(_spaces(generator, self.priors, [tuple(phase.held) for phase in phases]))
        self._begin = start.on(generator, degradation, self.priors[0])
        self._draw = NearestDraw().on(generator, degradation, self.priors[0])
        self.measurement_shape = tuple(degradation.measurement_shape(generator.image_shape))
        self._observed = degradation.mask(generator.image_shape)

    def first(self, search: Search) -> Job:
        """Check the measurement; draw the start, or take the one given.

        Raises:
            ValueError: The measurement has another shape than A gives, or the start does not fit.
        """
        shape = tuple(search.measurement.shape)
        if shape != self.measurement_shape:
            raise ValueError(
                f"measurement of {search.key!r}: expected shape {self.measurement_shape}, which the operator makes of the "
                f"generator's {self.generator.image_shape}, got {shape}; change the factor or the image"
            )
        rng = stream(search.seed, search.key, search.restart)
        search = replace(search, measurement=search.measurement.detach().clone())
        with torch.no_grad():
            if search.start is None:
                start = self._begin(search, rng)
            else:
                given = start_at(self.generator, self.spaces[0], search.start, self._draw(search, rng))
                start = self._enter(0, given)
        return self._aim(0, Job(search, start, rng))

    def next(self, index: int, job: Job, result: SearchResult) -> Job:
        """Start phase ``index`` at the best iterate of the one before."""
        latents = {name: value[None] for name, value in result.latents.items()}
        with torch.no_grad():
            job = replace(
                job,
                latents=self._enter(index, latents),
                steps=result.steps,
                traces=[result.trace],
                watched=[dict(result.watched)],
                phase=index,
                row=None,
            )
        if not result.feasible:  # what has met its target is held to that
            job = replace(job, residual=None)
        return self._aim(index, job, None if self.phases[index - 1].coarse else result.image)

    def aim_again(self, index: int, job: Job, image: Tensor) -> None:
        """Set the target anew, by the noise at an image that the search has come to."""
        aimed = self._aim(index, replace(job, residual=None), image)
        job.residual, job.threshold = aimed.residual, aimed.threshold

    def noise_varies(self, index: int, like: Tensor) -> bool:
        """Whether the target of a phase depends on the image: tried on random ones, the same for every search.

        Args:
            index: Of the phase.
            like: Gives device and dtype.
        """
        stop = self.phases[index].stop
        if stop.target_noise is None:
            return False
        targets = []
        for probe in range(_PROBES):
            rng = stream(0, "noise", probe)
            with torch.no_grad():
                latents = draw(self.generator, self.priors[index], rng, like, self.spaces[index])
            targets.append(self._aim(index, Job(Search("noise", like), latents, rng)).threshold)
        return max(targets) > _VARIES * min(targets)

    def _possible(self, latents: Latents) -> Iterator[Degradation]:
        """The operator of the start; where parameters are unknown, the noise may be too: also those at both ends."""
        own = {block.name: latents[block.name][0] for block in self.degradation.blocks}
        for u in (None, -_END, _END) if own else (None,):
            yield self.degradation.given({name: value if u is None else torch.full_like(value, u) for name, value in own.items()})

    def _enter(self, index: int, latents: Latents) -> Latents:
        """The input lifted to the blocks of phase ``index``, those that move put on their manifolds."""
        lifted = {name: self.generator.lift(latents, name) for name in self.spaces[index]}
        return lifted | {name: prior.manifold.project(lifted[name]) for name, prior in self.priors[index].items()}

    def _aim(self, index: int, job: Job, image: Tensor | None = None) -> Job:
        """Set the target of the phase: by the noise at the image where it starts, if the target or a term asks for that."""
        stop, asked = self.phases[index].stop, self.phases[index].objective.needs_noise
        if stop.target_noise is None and not asked:
            return replace(job, threshold=stop.threshold)
        residual, noise = job.residual, None if job.residual is None else job.noise
        if image is None and (residual is None or (asked and noise is None)):
            with torch.no_grad():
                image = self.generator(job.latents)[0].to(job.search.measurement.dtype)
        if residual is None:
            assert image is not None
            residual = min(expected_residual(operator, image, job.rng) for operator in self._possible(job.latents))
        if asked and noise is None:
            assert image is not None
            noise = min(expected_residual(one, image, job.rng, self._observed) for one in self._possible(job.latents))
        return replace(job, residual=residual, threshold=stop.threshold_at(residual), noise=noise)


def _spaces(generator: Generator, priors: list[dict[str, LatentPrior]], held: list[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """The blocks of the input in every phase: those that move, those held, and for every other slot what was there before."""
    slots = {block.name: block.slot for block in generator.blocks}
    before: tuple[str, ...] = ()
    for moved, kept in zip(priors, held, strict=True):
        own = [*moved, *kept]
        taken = {slots[name] for name in own}
        before = tuple(space(generator.blocks, [*own, *(name for name in before if slots[name] not in taken)]))
        yield before
