"""Step-length schedules: the fraction of a phase's budget that is spent, to a multiplier of the rate."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Constant", "Linear1Cycle", "Linear1CycleDrop", "Schedule"]


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
