"""Posterior sampling as a plan: Langevin dynamics at falling temperatures, then at that of the posterior."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Unpack

from pulse_framework.interfaces import LatentPrior
from pulse_framework.search.langevin import Langevin
from pulse_framework.search.objective import Objective, PriorEnergy
from pulse_framework.search.phases import Phase, StopRule
from pulse_framework.search.plan import Plan
from pulse_framework.search.schedules import Constant, Schedule
from pulse_framework.search.settings import Settings, multi_phase

__all__ = ["annealed"]


def annealed(
    *,
    prior: LatentPrior | Mapping[str, LatentPrior],
    objective: Objective,
    optimiser: Langevin,
    steps: int,
    hottest: float = 100.0,
    levels: int = 5,
    cooling: float = 0.5,
    schedule: Schedule | None = None,
    blocks: Sequence[str] | None = None,
    beside: Mapping[str, LatentPrior] | None = None,
    **settings: Unpack[Settings],
) -> Plan:
    r"""A plan whose answers are samples of :math:`p(y \mid z)^{1/T} p(z)` at the temperature T = 1, reached from above.

    White noise of the level sigma is, at the temperature T, noise of the level :math:`\sqrt T \sigma`, so hot phases are those
    of a less exact measurement (as in Jalal, Karmalkar, Dimakis and Price, "Instance-optimal compressed sensing via posterior
    sampling", ICML 2021). The prior is at every temperature what it is.

    Args:
        prior: As of a ``Phase``; if no block is named, the first that a gradient reaches moves, such as z.
        objective: In nats: the prior's energy and likelihoods, all terms but ``PriorEnergy``.
        optimiser: At the temperature 1; at T its rate is :math:`\sqrt T` times as long, up to its longest.
        steps: Of all phases together.
        hottest: The first temperature.
        levels: How many temperatures before 1, evenly spaced in their logarithms.
        cooling: Share of the steps that they have, in equal parts.
        schedule: Of the rate in each phase.
        blocks: As of a ``Phase``.
        beside: As of a ``Phase``.
        settings: Of the plan and of every stop. A search spends its budget whatever target it meets, and the last iterate is
            kept, unless they say otherwise. The best of several ``restarts`` is no sample of the posterior.

    Raises:
        ValueError: A number is out of range.
    """
    if not 1 <= hottest < math.inf:
        raise ValueError(f"search hottest: expected a temperature of at least 1, got {hottest}")
    if levels < 0:
        raise ValueError(f"search levels: expected at least 0, got {levels}")
    if not 0 <= cooling < 1:
        raise ValueError(f"search cooling: expected a share in [0, 1), got {cooling}")
    phase = Phase(
        prior=prior,
        objective=objective,
        optimiser=optimiser,
        schedule=schedule or Constant(),
        stop=StopRule(steps=steps),
        blocks=tuple(blocks) if blocks else None,
        beside=beside,
        climb=False,
    )
    each = int(steps * cooling / levels) if levels else 0
    hot = [hottest ** (1 - level / levels) for level in range(levels)] if each else []
    phases = [*(_at(phase, temperature, each) for temperature in hot), _at(phase, 1.0, steps - each * len(hot))]
    own: Settings = {"at_target": False, "keep": "last"}
    return multi_phase(phases=phases, **(own | settings))


def _at(phase: Phase, temperature: float, steps: int) -> Phase:
    """The phase at one temperature."""
    terms = {
        name: term if isinstance(term, PriorEnergy) else replace(term, weight=term.weight / temperature)
        for name, term in phase.objective.terms.items()
    }
    optimiser = phase.optimiser
    assert isinstance(optimiser, Langevin)
    optimiser = replace(optimiser, rate=min(optimiser.rate * math.sqrt(temperature), optimiser.longest))
    return replace(phase, objective=Objective(terms), optimiser=optimiser, stop=replace(phase.stop, steps=steps))
