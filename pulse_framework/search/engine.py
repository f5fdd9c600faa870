"""The engine: a queue of searches, run in slots.

A search that is over leaves its slot at once and the next one takes it. Searches never meet: see ``rows`` for the step they
take together. In float32 a search amplifies rounding, so the engine sees to it that the arithmetic of a row is the same bit
for bit however many rows there are: it only runs batch widths whose bits it has compared with those of the width ``lane``, and
fills up with idle rows where it must.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import Latents, space
from pulse_framework.search.compiled import Compile, synthesis
from pulse_framework.search.phases import Phase, Search, psnr_db, start_at
from pulse_framework.search.result import REASONS, SearchResult
from pulse_framework.search.rows import Rows, RowStepper
from pulse_framework.search.streams import draw, nearest_draw, stream

__all__ = ["Engine", "Progress"]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        active: Searches under way.
        finished: Searches that are over.
        evaluations: Iterates evaluated so far, over all searches.
        psnr_db: Mean consistency of the best iterates under way, in dB; NaN while none is finite.
    """

    active: int
    finished: int
    evaluations: int
    psnr_db: float


@dataclass
class _Job:
    """A search on its way through the phases: where the next one starts, and what it has cost so far."""

    search: Search
    latents: Latents
    steps: int = 0
    seconds: float = 0.0
    traces: list[Tensor] = field(default_factory=list)


class Engine:
    """Runs searches through an ordered list of phases.

    Args:
        generator: G; its weights are not altered.
        degradation: A.
        phases: At least one, each standing for what ``Phase.on`` makes of it. A phase begins at the best iterate of the one
            before, lifted to its blocks.
        draws: Random draws for each search, of which it starts at the one whose degraded image is nearest.
        slots: Searches that run at once, at most; rounded down to a power of two.
        lane: The batch width whose bits are the reference, one of the settings that determine a result. None: 1 on a CPU, else 8.
        poll_every: Steps between two looks at who has stopped; None: 1 on a CPU, 10 elsewhere (a look waits for the device).
        compile: Whether the generator is compiled, see ``compiled.synthesis``.
        observe: Called at every look with a ``Progress``.

    Raises:
        ValueError: A phase names blocks that the generator lacks, the operator cannot take its images, or a number is too small.
    """

    def __init__(
        self,
        generator: Generator,
        degradation: Degradation,
        phases: Iterable[Phase],
        *,
        draws: int = 1,
        slots: int = 16,
        lane: int | None = None,
        poll_every: int | None = None,
        compile: Compile = False,  # noqa: A002 - the setting's name
        observe: Callable[[Progress], None] | None = None,
    ) -> None:
        for name, value in (("draws", draws), ("slots", slots), ("lane", lane), ("poll_every", poll_every)):
            if value is not None and value < 1:
                raise ValueError(f"engine {name}: expected at least 1, got {value}")
        self.generator, self.degradation = generator, degradation
        self.phases = tuple(rung for phase in phases for rung in phase.on(generator))
        if not self.phases:
            raise ValueError("engine phases: expected at least one phase, got none")
        self.draws = draws
        self.slots, self.lane, self.poll_every, self.observe = 2 ** (slots.bit_length() - 1), lane, poll_every, observe
        self.priors = [phase.priors(generator) for phase in self.phases]
        self.spaces = _spaces(generator, self.priors)
        self.measurement_shape = tuple(degradation.measurement_shape(generator.image_shape))
        self._probes: dict[tuple[object, ...], Rows] = {}
        self.compile, self._network = compile, cache(partial(synthesis, generator, compile))
        self._finished = self._evaluations = 0

    def run(self, searches: Iterable[Search]) -> Iterator[SearchResult]:
        """Search for every measurement, yielding each answer as it is found; device and dtype are the measurements'.

        Args:
            searches: The queue; it is read only as slots become free.

        Raises:
            ValueError: A measurement has another shape than A gives.
            RuntimeError: Called in inference mode, where no gradient exists.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError("search: expected a context where gradients exist, got inference mode; use inference_mode=False")
        self._finished = self._evaluations = 0
        jobs: Iterator[_Job] = (self._begin(search) for search in searches)
        for index in range(1, len(self.phases)):
            jobs = itertools.starmap(partial(self._lift, index), self._run_phase(index - 1, jobs))
        for _, result in self._run_phase(len(self.phases) - 1, jobs):
            self._finished += 1
            yield result

    def _begin(self, search: Search) -> _Job:
        """Check the measurement; draw the start, or take the one given."""
        shape = tuple(search.measurement.shape)
        if shape != self.measurement_shape:
            raise ValueError(
                f"measurement of {search.key!r}: expected shape {self.measurement_shape}, which the operator makes of the "
                f"generator's {self.generator.image_shape}, got {shape}; change the factor or the image"
            )
        rng = stream(search.seed, search.key, search.restart)
        search = replace(search, measurement=search.measurement.detach().clone())
        draws = self.draws if search.start is None else 1
        with torch.no_grad():
            start: Latents = nearest_draw(self.generator, self.degradation, self.priors[0], rng, search.measurement, draws)
            if search.start is not None:
                start = self._enter(0, start_at(self.generator, self.spaces[0], search.start, start))
        return _Job(search, start)

    def _lift(self, index: int, job: _Job, result: SearchResult) -> _Job:
        """Start phase ``index`` at the best iterate of the one before."""
        latents = {name: value[None] for name, value in result.latents.items()}
        with torch.no_grad():
            return replace(job, latents=self._enter(index, latents))

    def _enter(self, index: int, latents: Latents) -> Latents:
        """The input lifted to the blocks of phase ``index``, those that move put on their manifolds."""
        lifted = {name: self.generator.lift(latents, name) for name in self.spaces[index]}
        return lifted | {name: prior.manifold.project(lifted[name]) for name, prior in self.priors[index].items()}

    def _run_phase(self, index: int, jobs: Iterator[_Job]) -> Iterator[tuple[_Job, SearchResult]]:
        """The slot loop: fill, step, look, release. Row i is that of ``held[i]``; rows past those are idle."""
        first = next(jobs, None)
        if first is None:
            return
        stepper = self._stepper(index, first.search.measurement)
        poll = self.poll_every or (1 if first.search.measurement.device.type == "cpu" else 10)
        jobs, room = itertools.chain([first], jobs), self.slots
        held: list[_Job] = []
        rows: Rows = {}
        kept: list[int] | None = None
        while True:
            fresh = list(itertools.islice(jobs, room - len(held)))
            if fresh or kept is not None:
                width = self._width(stepper, index, len(held) + len(fresh)) if held or fresh else 0
                if not width:
                    return
                spare = len(held) + len(fresh) - width
                if spare > 0:
                    room, jobs = width, itertools.chain(fresh[-spare:], jobs)
                    fresh = fresh[:-spare]
                rows = _arrange(rows, kept or [], [_start(stepper, job) for job in fresh], width)
                held += fresh
            begun = time.perf_counter()
            for _ in range(poll):
                stepper.step(rows)
            over = rows["reason"].tolist()
            share = (time.perf_counter() - begun) / len(held)
            for job in held:
                job.seconds += share
            self._report(rows, len(held))
            ended = [row for row in range(len(held)) if over[row]]
            kept = [row for row in range(len(held)) if not over[row]] if ended else None
            done = [(held[row], row) for row in ended]
            held = [job for row, job in enumerate(held) if not over[row]]
            for job, row in done:
                yield job, self._result(rows, row, job)

    def _stepper(self, index: int, like: Tensor) -> RowStepper:
        phase = self.phases[index]
        rates = [phase.optimiser.rate * phase.schedule(step / phase.stop.steps) for step in range(phase.stop.steps)]
        table = phase.optimiser.table(torch.tensor(rates, dtype=torch.float64)).to(like.dtype).to(like.device)
        return RowStepper(self.generator, self.degradation, phase, self.priors[index], table, self._network(like.device))

    def _width(self, stepper: RowStepper, index: int, count: int) -> int:
        """The batch width for ``count`` searches: one that gives the bits of ``lane``, as narrow as can be.

        Less than ``count`` only where no width so large keeps the bits.
        """
        wide = [2**power for power in range((count - 1).bit_length(), self.slots.bit_length())]
        lane = self._lane(stepper)
        narrow = [2**power for power in reversed(range(count.bit_length())) if 2**power > lane]
        for width in wide + ([] if count <= lane else narrow):
            if width == lane or self._keeps_bits(stepper, index, width):
                return width
        return lane

    def _lane(self, stepper: RowStepper) -> int:
        return self.lane or (1 if stepper.table.device.type == "cpu" else 8)

    def _keeps_bits(self, stepper: RowStepper, index: int, width: int) -> bool:
        """Whether a row comes out the same, bit for bit, at this width and at the width ``lane``."""
        lane = self._lane(stepper)
        got, reference = (self._probe(stepper, index, count) for count in (width, lane))
        order = torch.arange(width) % lane
        return all(torch.equal(value, reference[key][order]) for key, value in got.items())

    def _probe(self, stepper: RowStepper, index: int, width: int) -> Rows:
        """Two steps of made-up searches at one width; the same rows over and over, ``lane`` of them."""
        like, lane = stepper.table, self._lane(stepper)
        autocast = torch.is_autocast_enabled(like.device.type) and torch.get_autocast_dtype(like.device.type)
        key = (index, width, like.device, like.dtype, autocast)
        if key not in self._probes:
            made = []
            for row in range(min(width, lane)):
                rng = stream(0, "probe", row)
                measurement = torch.rand(self.measurement_shape, generator=rng).to(like)
                latents = draw(self.generator, self.priors[index], rng, measurement, self.spaces[index])
                made.append(_start(stepper, _Job(Search("probe", measurement, row), latents)))
            rows = _arrange({}, [], [made[row % lane] for row in range(width)], width)
            for _ in range(2):
                stepper.step(rows)
            checked = [name for name in rows if name.startswith(("latent/", "state/"))] + ["trace"]
            self._probes[key] = {name: rows[name][:, :2].cpu() if name == "trace" else rows[name].cpu() for name in checked}
        return self._probes[key]

    def _report(self, rows: Rows, active: int) -> None:
        if self.observe is None:
            return
        best = [psnr_db(mse) for mse in rows["best/mse"][:active].tolist() if mse < float("inf")]
        under_way = self._evaluations + int(rows["steps"][:active].sum())
        self.observe(Progress(active, self._finished, under_way, sum(best) / len(best) if best else float("nan")))

    def _result(self, rows: Rows, row: int, job: _Job) -> SearchResult:
        """Read one answer out; everything in it is of the same iterate."""
        steps = int(rows["steps"][row])
        self._evaluations += steps
        job.steps += steps
        job.traces.append(rows["trace"][row, :steps].cpu())
        reason = REASONS[int(rows["reason"][row])]
        assert reason is not None
        prefix = "best/latent/"
        return SearchResult(
            key=job.search.key,
            restart=job.search.restart,
            seed=job.search.seed,
            index=job.search.index,
            latents={key.removeprefix(prefix): value[row].clone() for key, value in rows.items() if key.startswith(prefix)},
            image=rows["best/image"][row].clone(),
            objective=float(rows["best/objective"][row]),
            mse=float(rows["best/mse"][row]),
            feasible=bool(rows["best/feasible"][row]),
            step=int(rows["best/step"][row]),
            steps=job.steps,
            reason=reason,
            seconds=job.seconds,
            trace=torch.cat(job.traces),
        )


def _spaces(generator: Generator, priors: list[dict[str, LatentPrior]]) -> list[tuple[str, ...]]:
    """The blocks of the input in every phase: those that move, and for every other slot what the phase before had there."""
    slots = {block.name: block.slot for block in generator.blocks}
    spaces: list[tuple[str, ...]] = []
    for moved in priors:
        taken = {slots[name] for name in moved}
        kept = [name for name in (spaces[-1] if spaces else ()) if slots[name] not in taken]
        spaces.append(tuple(space(generator.blocks, [*moved, *kept])))
    return spaces


def _start(stepper: RowStepper, job: _Job) -> Rows:
    """The one row of a search that begins."""
    return stepper.start(job.latents, job.search.measurement[None])


def _arrange(rows: Rows, kept: list[int], fresh: list[Rows], width: int) -> Rows:
    """Rows kept, then fresh ones, then copies of the first to fill the width."""
    if rows:
        index = torch.tensor(kept, dtype=torch.int64, device=rows["steps"].device)
        fresh = [{key: value[index] for key, value in rows.items()}, *fresh]
    joined = {key: torch.cat([part[key] for part in fresh]) for key in fresh[0]}
    count = len(joined["steps"])
    if count == width:
        return joined
    index = torch.arange(width, device=joined["steps"].device)
    index[count:] = 0
    return {key: value[index] for key, value in joined.items()}
