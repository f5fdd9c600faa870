"""The answer to one search."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from torch import Tensor

from pulse_framework.search.phases import psnr_db

__all__ = ["REASONS", "SearchResult", "Status", "StopReason"]


class Status(Enum):
    """What an answer is worth."""

    CONVERGED = "converged"
    BEST_EFFORT = "best_effort"
    FAILED = "failed"


class StopReason(Enum):
    """Why a search ended."""

    TARGET = "The consistency target was reached."
    BUDGET = "The budget of steps was spent."
    STALLED = "The objective stopped improving."
    NON_FINITE = "A value or gradient that is not finite was met."
    ENOUGH = "Terms of the objective came down to what is enough."
    HALVED = "Other starts of its image had come closer."


REASONS = (None, *StopReason)
"""A reason as a small number, for tensors: 0 is a search under way."""


@dataclass(frozen=True)
class SearchResult:
    """The best iterate of one search: latents, image and every number are of the same iterate.

    Attributes:
        key: Name of the image searched for.
        restart: Which start this was.
        seed: Seed of the run.
        index: Index of the image in its queue.
        latents: Input of the generator and unknown parameters of the operator, block name to tensor without N.
        image: G(latents), shape (C, H, W), not clamped.
        objective: Objective of this iterate, under the last phase.
        mse: Mean square of A(image) - y, in [0, 1] units.
        feasible: Whether ``mse`` meets the target.
        target_mse: The target that was set, of the last phase; None if there was none.
        step: Number of this iterate within its phase, from 0; -1 if no iterate was finite.
        steps: Iterates evaluated in all.
        reason: Why the search ended.
        seconds: Its share of the time that its slots took; for the sample of an ``Answer``, of all its restarts.
        trace: Objective and mse of every iterate evaluated, shape (steps, 2).
        parameters: Unknown parameters of the operator as they were found, by name, in natural units: numbers, or nested lists.
        watched: What was watched beside the trace, a number a step by name, NaN in phases without it; see ``watched_names``.
        retried: Whether a first try, in reduced precision, was not finite. It counts neither in ``steps`` nor in ``seconds``.
    """

    key: str
    restart: int
    seed: int
    index: int
    latents: dict[str, Tensor]
    image: Tensor
    objective: float
    mse: float
    feasible: bool
    target_mse: float | None
    step: int
    steps: int
    reason: StopReason
    seconds: float
    trace: Tensor
    parameters: Mapping[str, Any] = field(default_factory=dict)
    watched: Mapping[str, Tensor] = field(default_factory=dict)
    retried: bool = False

    @property
    def status(self) -> Status:
        """Converged, best effort, or failed: never finite."""
        if self.step < 0:
            return Status.FAILED
        return Status.CONVERGED if self.feasible else Status.BEST_EFFORT

    @property
    def psnr_db(self) -> float:
        """Consistency of A(image) with y, in dB."""
        return psnr_db(self.mse)

    @property
    def rank(self) -> tuple[bool, bool, float, int]:
        """Sorts answers to one measurement, best first: finite, feasible, low objective, early restart."""
        return (self.step < 0, not self.feasible, self.objective, self.restart)
