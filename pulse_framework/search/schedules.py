"""Step-length schedules: the fraction of a phase's budget that is spent, to a multiplier of the rate."""

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Constant", "CosineRamps", "Linear1Cycle", "Linear1CycleDrop", "Schedule"]


@runtime_checkable
class Schedule(Protocol):
    """A function of the fraction of the budget that is spent, in [0, 1)."""

    def __call__(self, fraction: float) -> float:
        """Multiplier of the rate."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same rate throughout."""

    def __call__(self, fraction: float) -> float:
        """Multiplier of the rate."""
        return 1.0


@dataclass(frozen=True)
class Linear1Cycle:
    """From ``low`` up to 1 at half of the budget and down to ``low`` again (PULSE's ``linear1cycle``)."""

    low: float = 0.1

    def __call__(self, fraction: float) -> float:
        """Multiplier of the rate."""
        return 1 - (1 - self.low) * abs(2 * fraction - 1)


@dataclass(frozen=True)
class Linear1CycleDrop:
    """One linear cycle over 90 % of the budget, then a linear drop to ``low / 100`` (PULSE's ``linear1cycledrop``)."""

    low: float = 0.1

    def __call__(self, fraction: float) -> float:
        """Multiplier of the rate."""
        if fraction < 0.9:
            return Linear1Cycle(self.low)(fraction / 0.9)
        return self.low * (1 - 0.99 * (fraction - 0.9) / 0.1)


@dataclass(frozen=True)
class CosineRamps:
    r"""Up linearly, then down along a cosine, as StyleGAN2's projector does (Karras et al., CVPR 2020, appendix D).

    At the fraction t, with d ``down`` and u ``up``:
    :math:`(\tfrac12 - \tfrac12 \cos(\pi \min(1, (1 - t) / d))) \min(1, t / u)`.
    It begins at 0: the first step goes nowhere.

    Attributes:
        down: Fraction of the budget, at the end, over which the rate falls to 0; ILO's is 0.75.
        up: Fraction, at the beginning, over which it rises.

    Raises:
        ValueError: A fraction is not in (0, 1].
    """

    down: float = 0.25
    up: float = 0.05

    def __post_init__(self) -> None:
        for name, value in (("down", self.down), ("up", self.up)):
            if not 0 < value <= 1:
                raise ValueError(f"CosineRamps {name}: expected a fraction of the budget, above 0 and at most 1, got {value}")

    def __call__(self, fraction: float) -> float:
        """Multiplier of the rate."""
        return (0.5 - 0.5 * math.cos(math.pi * min(1, (1 - fraction) / self.down))) * min(1, fraction / self.up)
