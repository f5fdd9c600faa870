"""Rows read out as answers."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation
from pulse_framework.search.jobs import Job
from pulse_framework.search.phases import Phase
from pulse_framework.search.result import REASONS, SearchResult
from pulse_framework.search.rows import Rows, watched_names

__all__ = ["read_result", "split"]


def read_result(rows: Rows, row: int, job: Job, phase: Phase, degradation: Degradation) -> SearchResult:
    """The answer of one row; everything in it is of the same iterate.

    Args:
        rows: Searches of which this one is over.
        row: Which.
        job: Its job.
        phase: The phase that it is in.
        degradation: A.
    """
    steps = int(rows["steps"][row])
    traces = [*job.traces, rows["trace"][row, :steps].cpu()]
    names = watched_names(phase) if "watched" in rows else ()
    watched = [*job.watched, {name: rows["watched"][row, :steps, i].cpu() for i, name in enumerate(names)}]
    reason = REASONS[int(rows["reason"][row])]
    assert reason is not None
    prefix = "best/latent/"
    latents = {key.removeprefix(prefix): value[row].clone() for key, value in rows.items() if key.startswith(prefix)}
    found = degradation.unknowns({name: value[None] for name, value in latents.items()})
    return SearchResult(
        key=job.search.key,
        restart=job.search.restart,
        seed=job.search.seed,
        index=job.search.index,
        latents=latents,
        image=rows["best/image"][row].clone(),
        objective=float(rows["best/objective"][row]),
        mse=float(rows["best/mse"][row]),
        feasible=bool(rows["best/feasible"][row]),
        target_mse=None if job.threshold < 0 else job.threshold,
        step=int(rows["best/step"][row]),
        steps=job.steps + steps,
        reason=reason,
        seconds=job.seconds,
        trace=torch.cat(traces),
        parameters={name: value[0].tolist() for name, value in found.items()},
        watched=_joined(watched, [len(trace) for trace in traces]),
    )


def split(jobs: Iterable[Job], keep: Callable[[Job], bool]) -> tuple[list[Job], list[Job]]:
    """The jobs that are to be kept, and the others."""
    parts: tuple[list[Job], list[Job]] = ([], [])
    for job in jobs:
        parts[0 if keep(job) else 1].append(job)
    return parts


def _joined(phases: list[dict[str, Tensor]], lengths: list[int]) -> dict[str, Tensor]:
    """What was watched, phase after phase; NaN in those that lack it."""
    names = dict.fromkeys(name for phase in phases for name in phase)
    gaps = [torch.full((length,), torch.nan) for length in lengths]
    return {name: torch.cat([phase.get(name, gap) for phase, gap in zip(phases, gaps, strict=True)]) for name in names}
