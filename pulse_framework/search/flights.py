"""Searches under way, written down so that another process can go on with them, bit for bit.

A row depends on no other row, so what is written down of a search is its own: which phase it is in, its row (latents, moments,
best so far, trace), its random stream, and what the phases before have left. Which slots there were, and who was beside it, is no
part of that. A search is known again by its key, restart, seed and measurement: with the settings all that its result depends on.
"""

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pulse_framework.search.jobs import Job
from pulse_framework.search.phases import Search
from pulse_framework.search.rows import Rows

__all__ = ["Flights", "pause"]


class Flights:
    """Keeps the jobs of one run of an engine in view.

    Attributes:
        records: Whether they are to be written down; keeping them in view costs memory.
        saved: What was written down, as ``state`` gives it, of searches that have not begun again.
    """

    def __init__(self, phases: int) -> None:
        self.records = False
        self.saved: list[dict[str, Any]] = []
        self._open: dict[tuple[int, int], Job] = {}
        self._seen: dict[int, tuple[list[Job], Rows]] = {}
        self._ahead: list[list[Job]] = [[] for _ in range(phases)]

    def clear(self) -> None:
        """A run begins."""
        self._open, self._seen = {}, {}

    def take(self, search: Search, *, watched: bool) -> Job | None:
        """The job of a search that was written down, with its row; None if it was not."""
        for place, known in enumerate(self.saved):
            same = (known["key"], known["restart"], known["seed"]) == (search.key, search.restart, search.seed)
            if same and _equal(known["measurement"], search.measurement):
                row = known["row"]
                if row is not None and ("watched" in row) != watched:
                    return None  # it was told less, or more, of every step
                del self.saved[place]
                return _job(known, search)
        return None

    def add(self, job: Job) -> Job:
        """Keep a job in view, in place of what it was."""
        if self.records:
            self._open[job.search.index, job.search.restart] = job
        return job

    def drop(self, search: Search) -> None:
        """Nobody wants this search any more."""
        self._open.pop((search.index, search.restart), None)

    def forget(self, index: int) -> None:
        """The image with this index has its answer."""
        for known in [known for known in self._open if known[0] == index]:
            del self._open[known]

    def see(self, phase: int, held: list[Job], rows: Rows) -> None:
        """What a phase has in its slots: row i is that of ``held[i]``."""
        if self.records:
            self._seen[phase] = (held, rows)

    def keep(self, rows: Rows, over: Iterable[tuple[Job, int]]) -> None:
        """Searches that are over leave their rows; the answer to their image may still be open."""
        if self.records:
            pause(rows, over)

    def due(self, phase: int, jobs: Iterable[Job]) -> Iterator[Job]:
        """The jobs of a phase; those that are in a later one wait for it."""
        ahead, jobs = self._ahead, iter(jobs)
        while True:
            while ahead[phase]:
                yield ahead[phase].pop(0)
            job = next(jobs, None)
            if job is not None and job.phase == phase:
                yield job
            elif job is not None:
                ahead[job.phase].append(job)
            elif not ahead[phase]:
                return

    @contextlib.contextmanager
    def unseen(self) -> Iterator[None]:
        """What is done within is not written down: another process does it again."""
        records, self.records = self.records, False
        try:
            yield
        finally:
            self.records = records

    def state(self) -> list[dict[str, Any]]:
        """Every search in view, and what is left of ``saved``: tensors on the CPU, numbers and text."""
        places = {id(job): (rows, place) for held, rows in self._seen.values() for place, job in enumerate(held)}
        return [*(_written(job, places.get(id(job))) for job in self._open.values()), *self.saved]


def pause(rows: Rows, jobs: Iterable[tuple[Job, int]]) -> None:
    """Take jobs out of their places, each with its row."""
    for job, place in jobs:
        job.row = {key: value[place : place + 1].clone() for key, value in rows.items()}


def _written(job: Job, place: tuple[Rows, int] | None) -> dict[str, Any]:
    row = job.row
    if row is None and place is not None:
        row = {key: value[place[1] : place[1] + 1] for key, value in place[0].items()}
    return {
        "key": job.search.key,
        "restart": job.search.restart,
        "seed": job.search.seed,
        "measurement": _kept(job.search.measurement),
        "phase": job.phase,
        "row": None if row is None else {key: _kept(value) for key, value in row.items()},
        "latents": {name: _kept(value) for name, value in job.latents.items()},
        "rng": job.rng.get_state(),
        "residual": job.residual,
        "noise": job.noise,
        "threshold": job.threshold,
        "steps": job.steps,
        "seconds": job.seconds,
        "traces": [_kept(trace) for trace in job.traces],
        "watched": [{name: _kept(value) for name, value in phase.items()} for phase in job.watched],
    }


def _job(known: dict[str, Any], search: Search) -> Job:
    y = search.measurement
    rng = torch.Generator()
    rng.set_state(known["rng"])
    row = known["row"]
    return Job(
        search=replace(search, measurement=y.detach().clone()),
        latents={name: value.to(y.device) for name, value in known["latents"].items()},
        rng=rng,
        row=None if row is None else {key: value.to(y.device) for key, value in row.items()},
        **{key: known[key] for key in ("phase", "residual", "noise", "threshold", "steps", "seconds", "traces", "watched")},
    )


def _kept(value: Tensor) -> Tensor:
    """A copy of its own on the CPU: a view would be written with all that it is a view of."""
    return value.detach().cpu().clone()


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other.cpu())
