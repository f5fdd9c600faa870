"""The engine: a queue of searches, run in slots.

A search that is over leaves its slot at once and the next one takes it. Searches never meet: see ``rows`` for the step they
take together. In float32 a search amplifies rounding, so the engine sees to it that the arithmetic of a row is the same bit
for bit however many rows there are: it only runs batch widths whose bits it has compared with those of the width ``lane``, and
fills up with idle rows where it must.
"""

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, partial

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.search.allotment import Everything, Judge
from pulse_framework.search.compiled import Compile, synthesis
from pulse_framework.search.flights import Flights, pause
from pulse_framework.search.jobs import Job, Starts
from pulse_framework.search.joint import join
from pulse_framework.search.parts import part
from pulse_framework.search.phases import Phase, Search, psnr_db
from pulse_framework.search.progress import Progress, Snapshot
from pulse_framework.search.reading import read_result, split
from pulse_framework.search.reduced import unreduced, without_lost
from pulse_framework.search.result import REASONS, SearchResult, StopReason
from pulse_framework.search.rows import NoRoomError, Rows, RowStepper, arrange
from pulse_framework.search.starting import NearestDraw, Start
from pulse_framework.search.widths import Widths, first_row

__all__ = ["Engine"]

_LOG = logging.getLogger(__name__)


class Engine:
    """Runs searches through an ordered list of phases.

    Args:
        generator: G; its weights are not altered.
        degradation: A; its unknown parameters are searched for with the image.
        phases: At least one, each standing for what ``Phase.on`` makes of it. A phase begins at the best iterate of the one
            before, lifted to its blocks.
        start: Where a search begins; None: at one random draw.
        slots: Searches that run at once, at most; rounded down to a power of two.
        lane: The batch width whose bits are the reference, one of the settings that determine a result. None: 1 on a CPU, else 8.
        poll_every: Steps between two looks at who has stopped; None: 1 on a CPU, 10 elsewhere (a look waits for the device).
        compile: Whether the generator is compiled, see ``compiled.synthesis``.
        observe: Called at every look with a ``Progress``.
        watch: Whether results also have ``watched``: norms and terms at every step.

    Raises:
        ValueError: A phase names blocks that the generator lacks, the operator cannot take its images, or a number is too small.
    """

    def __init__(
        self,
        generator: Generator,
        degradation: Degradation,
        phases: Iterable[Phase],
        *,
        start: Start | None = None,
        slots: int = 16,
        lane: int | None = None,
        poll_every: int | None = None,
        compile: Compile = False,  # noqa: A002 - the setting's name
        observe: Callable[[Progress], None] | None = None,
        watch: bool = False,
    ) -> None:
        for name, value in (("slots", slots), ("lane", lane), ("poll_every", poll_every)):
            if value is not None and value < 1:
                raise ValueError(f"engine {name}: expected at least 1, got {value}")
        generator = join(generator, degradation)
        self.generator, self.degradation = generator, degradation
        self.phases = tuple(rung for phase in phases for rung in phase.on(generator))
        if not self.phases:
            raise ValueError("engine phases: expected at least one phase, got none")
        self.slots, self.lane, self.poll_every, self.observe = 2 ** (slots.bit_length() - 1), lane, poll_every, observe
        self.starts = Starts(generator, degradation, self.phases, start or NearestDraw())
        for phase, priors in zip(self.phases, self.starts.priors, strict=True):
            moved = sum(math.prod(block.shape) for block in generator.blocks if block.name in priors)
            phase.optimiser.check(phase.objective, moved, math.prod(self.starts.measurement_shape))
            for term in phase.objective.terms.values():
                term.check(self.starts.measurement_shape)
        self._widths = Widths(self.starts, self.slots, lane)
        self.watch = watch
        self.compile = compile
        self._network = cache(lambda searched, device: synthesis(searched, compile, device))
        self._searched = [generator.truncated(phase.coarse) if phase.coarse else generator for phase in self.phases]
        self.flights = Flights(len(self.phases))
        self._finished = self._evaluations = self._rounds = 0
        self._judge: Judge = Everything()

    def run(self, searches: Iterable[Search], judge: Judge | None = None) -> Iterator[SearchResult]:
        """Search for every measurement, yielding each answer as it is found; device and dtype are the measurements'.

        What ends not finite under autocast is searched for once more at the end, without it.

        Args:
            searches: The queue; it is read only as slots become free.
            judge: Asked before a search begins and at every look. One whose answer is not wanted any more leaves its slot without
                one; one that waits leaves its slot until it may go on, or ends as halved. All come out the same, bit for bit.

        Raises:
            ValueError: A measurement has another shape than A gives.
            RuntimeError: Called in inference mode, where no gradient exists.
        """
        if torch.is_inference_mode_enabled():
            raise RuntimeError("search: expected a context where gradients exist, got inference mode; use inference_mode=False")
        self._finished = self._evaluations = 0
        self._judge = judge or Everything()
        self.flights.clear()
        lost: list[Search] = []
        yield from self._run(searches, lost)
        if lost:
            _LOG.warning("%d searches were not finite in reduced precision; once more in that of their latents", len(lost))
            again = unreduced(self._run(lost, []), lost[0].measurement.device.type)
            with self.flights.unseen():
                yield from (replace(result, retried=True) for result in again)

    def _run(self, searches: Iterable[Search], lost: list[Search]) -> Iterator[SearchResult]:
        """All phases, one after the other; what reduced precision has lost is appended to ``lost``."""
        jobs: Iterator[Job] = (self._begin(search) for search in searches if not self._skips(search))
        for index in range(1, len(self.phases)):
            jobs = itertools.starmap(
                partial(self._next, index), without_lost(self._run_phase(index - 1, jobs), lost, self._judge.lost)
            )
        for _, result in without_lost(self._run_phase(len(self.phases) - 1, jobs), lost, self._judge.lost):
            self._finished += 1
            yield result

    def _skips(self, search: Search) -> bool:
        idle = not self._judge.wanted(search)
        self._finished += idle
        if idle:
            self.flights.drop(search)
        return idle

    def _begin(self, search: Search) -> Job:
        with part("start"):
            return self.flights.add(self.flights.take(search, watched=self.watch) or self.starts.first(search))

    def _next(self, index: int, job: Job, result: SearchResult) -> Job:
        return self.flights.add(self.starts.next(index, job, result))

    def _run_phase(self, index: int, jobs: Iterator[Job]) -> Iterator[tuple[Job, SearchResult]]:
        """The slot loop: fill, step, look, release. Row i is that of ``held[i]``; rows past those are idle."""
        jobs = self.flights.due(index, jobs)
        first = next(jobs, None)
        if first is None:
            return
        stepper = self._stepper(index, first.search.measurement)
        moving = self.starts.noise_varies(index, first.search.measurement)
        poll = 1 if moving else self.poll_every or (1 if first.search.measurement.device.type == "cpu" else 10)
        jobs, room = itertools.chain([first], jobs), self.slots
        held: list[Job] = []
        resting: list[Job] = []
        rows: Rows = {}
        kept: list[int] | None = None
        while True:
            fresh = list(itertools.islice(jobs, max(0, room - len(held))))
            if fresh or kept is not None:
                with part("widths compared"):
                    width = self._widths.choose(stepper, index, len(held) + len(fresh)) if held or fresh else 0
                if not width:
                    assert not resting, "searches wait for others that never come"
                    return
                kept = list(range(len(held))) if kept is None else kept
                if rest := [*held, *fresh][width:]:
                    room, jobs = width, itertools.chain(rest, jobs)
                    pause(rows, zip(held[width:], kept[width:], strict=True))
                    kept, held, fresh = kept[:width], held[:width], fresh[: max(0, width - len(held))]
                rows = arrange(rows, kept, [first_row(stepper, job) for job in fresh], width)
                held += fresh
            begun = time.perf_counter()
            if not self._advance(stepper, rows, poll):
                room, kept = self._widths.slots, list(range(len(held)))
                continue
            over = rows["reason"].tolist()
            share = (time.perf_counter() - begun) / len(held)
            for job in held:
                job.seconds += share
            if moving:
                self._aim_again(index, rows, held)
            self._rounds += poll
            self.flights.see(index, held, rows)
            self._report(rows, held)
            done = [(job, row) for row, job in enumerate(held) if over[row]]
            gone = {row for row, job in enumerate(held) if not over[row] and self._skips(job.search)}
            self._evaluations += sum(int(rows["steps"][row]) for row in gone)
            waiting = self._come(index, rows, held, gone)
            pause(rows, ((held[row], row) for row in waiting))
            resting += [held[row] for row in waiting]
            left = [row for row in range(len(held)) if not over[row] and row not in gone and row not in waiting]
            kept = left if len(left) < len(held) else None
            held = [held[row] for row in left]
            self.flights.keep(rows, done)
            for job, row in done:
                yield job, self._result(rows, row, job)
            resting, ready, halved = self._woken(resting)
            jobs = itertools.chain(ready, jobs)
            yield from halved

    def _come(self, index: int, rows: Rows, held: list[Job], gone: set[int]) -> list[int]:
        """Tell how far every search of the last phase has gone on from; rows of those that wait for others, or end here."""
        if not self._judge.compares or index < len(self.phases) - 1:
            return []
        steps, over = rows["steps"].tolist(), rows["reason"].tolist()
        asked = [row for row in range(len(held)) if row not in gone]
        for row in asked:
            self._judge.come(held[row].search, steps[row] - bool(over[row]), rows["trace"][row])
        on = [self._judge.wanted(job.search) and not self._judge.waits(job.search) for job in held]
        return [row for row in asked if not over[row] and not on[row]]

    def _woken(self, resting: list[Job]) -> tuple[list[Job], list[Job], list[tuple[Job, SearchResult]]]:
        """Of searches that waited: those that still do, those that go on, and those that end here, with their results."""
        resting, ready = split(resting, lambda job: self._judge.waits(job.search))
        ready, halved = split(ready, lambda job: self._judge.wanted(job.search))
        results = []
        for job in halved:
            assert job.row is not None
            job.row["reason"] = torch.full_like(job.row["reason"], REASONS.index(StopReason.HALVED))
            results.append((job, self._result(job.row, 0, job)))
        return resting, ready, results

    def _advance(self, stepper: RowStepper, rows: Rows, steps: int) -> bool:
        """Take some steps; or, where memory does not suffice for one, allow half as many rows from now on and say so."""
        width = len(rows["steps"])
        try:
            for _ in range(steps):
                stepper.step(rows)
        except NoRoomError as error:
            if width <= self._widths.lane_of(stepper):
                raise RuntimeError(
                    f"search: expected memory for {width} searches at once, got too little; use a smaller generator, "
                    "trainer.precision=bf16-mixed, or a smaller search.lane (which changes the bits of results)"
                ) from error
            self._widths.narrow(width // 2)
            return False
        return True

    def _stepper(self, index: int, like: Tensor) -> RowStepper:
        phase = self.phases[index]
        rates = [phase.optimiser.rate * phase.schedule(step / phase.stop.steps) for step in range(phase.stop.steps)]
        table = phase.optimiser.table(torch.tensor(rates, dtype=torch.float64)).to(like.dtype).to(like.device)
        searched = self._searched[index]
        network, whole = self._network(searched, like.device), None if searched is self.generator else self.generator
        mask = self.degradation.mask(self.generator.image_shape)
        mask = None if mask is None else mask.to(like)
        return RowStepper(searched, self.degradation, phase, self.starts.priors[index], table, network, self.watch, whole, mask)

    def _aim_again(self, index: int, rows: Rows, held: list[Job]) -> None:
        """Where the noise depends on the image, the target of a search follows its best iterate."""
        for row, (job, reason) in enumerate(zip(held, rows["reason"].tolist(), strict=False)):
            if not reason:
                self.starts.aim_again(index, job, rows["best/image"][row])
                rows["threshold"][row] = job.threshold
                rows["best/feasible"][row] = rows["best/mse"][row] <= job.threshold

    def _report(self, rows: Rows, held: list[Job]) -> None:
        if self.observe is None:
            return
        best = [psnr_db(mse) for mse in rows["best/mse"][: len(held)].tolist() if mse < float("inf")]
        steps = rows["steps"][: len(held)].tolist()
        snapshots = (
            Snapshot(job.search.key, job.search.index, job.search.restart, job.steps + steps[row], rows["best/image"][row])
            for row, job in enumerate(held)
        )
        mean = sum(best) / len(best) if best else float("nan")
        self.observe(Progress(len(held), self._finished, self._evaluations + sum(steps), mean, self._rounds, snapshots))

    def _result(self, rows: Rows, row: int, job: Job) -> SearchResult:
        """Read one answer out; everything in it is of the same iterate."""
        self._evaluations += int(rows["steps"][row])
        return read_result(rows, row, job, self.phases[job.phase], self.degradation)
