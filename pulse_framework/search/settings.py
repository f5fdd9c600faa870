"""Plans from flat settings, as a configuration gives them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Any, Literal, Required, TypedDict, Unpack

from pulse_framework.interfaces import LatentPrior
from pulse_framework.search.compiled import Compile
from pulse_framework.search.encoder_start import EncoderStart
from pulse_framework.search.objective import Objective
from pulse_framework.search.optimisers import Optimiser
from pulse_framework.search.phases import Phase, StopRule, mse_from_db, psnr_db
from pulse_framework.search.plan import Plan
from pulse_framework.search.schedules import Constant, Schedule
from pulse_framework.search.starting import Start

__all__ = ["Settings", "by_target", "multi_phase", "single_phase"]


class StopSettings(TypedDict, total=False):
    """See ``StopRule``."""

    target_db: float | None
    target_mse: float | None
    target_noise: float | None
    at_target: bool
    patience: int | None
    tolerance: float
    keep: Literal["best", "last"]


class Settings(StopSettings, total=False):
    """See ``Plan``, and ``StopRule`` for the target of all phases."""

    seed: int
    samples: int
    restarts: int
    until_success: bool
    halving: bool
    start: Start
    slots: int
    lane: int | None
    poll_every: int | None
    compile: Compile


class SingleSettings(Settings, total=False):
    """What ``single_phase`` takes besides an optimiser and its schedule."""

    prior: Required[LatentPrior | Mapping[str, LatentPrior]]
    objective: Required[Objective]
    steps: Required[int]
    blocks: Sequence[str] | None
    beside: Mapping[str, LatentPrior] | None


def single_phase(
    *,
    prior: LatentPrior | Mapping[str, LatentPrior],
    objective: Objective,
    optimiser: Optimiser,
    steps: int,
    schedule: Schedule | None = None,
    blocks: Sequence[str] | None = None,
    beside: Mapping[str, LatentPrior] | None = None,
    **settings: Unpack[Settings],
) -> Plan:
    """A plan of one phase; see ``Phase``, ``StopRule`` and ``Plan``.

    Raises:
        ValueError: A number is out of range.
    """
    phase = Phase(
        prior=prior,
        objective=objective,
        optimiser=optimiser,
        schedule=schedule or Constant(),
        stop=StopRule(steps=steps),
        blocks=tuple(blocks) if blocks else None,
        beside=beside,
    )
    return _plan([phase], settings)


def by_target(
    *,
    optimiser: Optimiser,
    schedule: Schedule,
    precise: Optimiser,
    precise_schedule: Schedule,
    precise_from_db: float,
    **settings: Unpack[SingleSettings],
) -> Plan:
    """A plan of one phase, with one of two optimisers: target and start decide, so neither the images nor how many there are.

    What was chosen is the plan's ``told``.

    Args:
        optimiser: For targets below ``precise_from_db``, and for none.
        schedule: Of ``optimiser``.
        precise: For other targets, and for any where the start is an ``EncoderStart``, which is near an answer.
        precise_schedule: Of ``precise``.
        precise_from_db: Least consistency, in dB, that asks for ``precise``.
        settings: See ``single_phase``; those of the search with either optimiser.

    Raises:
        ValueError: A number is out of range.
    """
    plan = single_phase(optimiser=optimiser, schedule=schedule, **settings)
    target, near = plan.phases[0].stop.threshold, isinstance(plan.start, EncoderStart)
    if near or 0 <= target <= mse_from_db(precise_from_db):
        plan = replace(plan, phases=(replace(plan.phases[0], optimiser=precise, schedule=precise_schedule),))
    wanted = "no target" if target < 0 else f"a target of {psnr_db(target):.3g} dB"
    wanted += " from an encoder's guess" if near else ""
    rule = f"{type(precise).__name__} is for {precise_from_db:g} dB and more, and for an encoder's guess"
    return replace(plan, told=f"the search runs {type(plan.phases[0].optimiser).__name__} for {wanted} ({rule})")


def multi_phase(*, phases: Sequence[Phase], steps: int | None = None, **settings: Unpack[Settings]) -> Plan:
    """A plan of several phases with one target; see ``StopRule`` and ``Plan``.

    A phase that meets the target hands its answer to the next, which has met it, too, and ends at once if ``at_target``.

    Args:
        phases: In order. Of what their ``stop`` says, the steps count, and what is not among the settings.
        steps: Budget of them all, shared out in proportion to their own steps, at least one for each; None leaves them theirs.
        settings: Of the plan and of every stop.

    Raises:
        ValueError: A number is out of range.
    """
    if steps is not None:
        if steps < 1:
            raise ValueError(f"search steps: expected at least 1, got {steps}")
        ends = [0, *accumulate(phase.stop.steps for phase in phases)]
        shares = [round(steps * end / ends[-1]) - round(steps * begin / ends[-1]) for begin, end in pairwise(ends)]
        phases = [
            replace(phase, stop=replace(phase.stop, steps=max(1, share))) for phase, share in zip(phases, shares, strict=True)
        ]
    return _plan(phases, settings)


def _plan(phases: Sequence[Phase], settings: Settings) -> Plan:
    """The plan, the settings of the stop being those of every phase."""
    stop: dict[str, Any] = {name: value for name, value in settings.items() if name in StopSettings.__annotations__}
    rest: dict[str, Any] = {name: value for name, value in settings.items() if name not in stop}
    return Plan(phases=tuple(replace(phase, stop=replace(phase.stop, **stop)) for phase in phases), **rest)
