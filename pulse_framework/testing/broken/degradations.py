"""Degradations that break one law each."""

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation
from pulse_framework.latents import LatentBlock, Latents
from pulse_framework.testing.toys import GainToy, PoolToy

__all__ = [
    "BatchMeasurement",
    "BrightPool",
    "CountingPool",
    "CoupledAdjoint",
    "DeadGain",
    "HalfAdjoint",
    "LooseGain",
    "MeanGain",
    "NamelessGain",
    "NoGradientPool",
    "NoisyPool",
    "QuantisedPool",
    "SinglePool",
    "SquaredPool",
    "StrayDice",
    "StrayPool",
    "WrongMeasurementShape",
]


class WrongMeasurementShape(PoolToy):
    """Declares more than it gives."""

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """One row too many."""
        channels, height, width = super().measurement_shape(image_shape)
        return channels, height + 1, width


class BatchMeasurement(PoolToy):
    """Sets the exposure by the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        """Means, less their mean over the batch."""
        y = super().forward(x)
        return y - y.mean(0) / 2


class NoisyPool(PoolToy):
    """Draws noise where it may not: in A, from the global stream."""

    def forward(self, x: Tensor) -> Tensor:
        """Noisy means."""
        y = super().forward(x)
        return y + 0.01 * torch.randn_like(y)


class StrayDice(PoolToy):
    """Ignores the stream given to ``measure``."""

    gap = 1.0

    def measure(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Noisy means, from the global stream."""
        y = self(x)
        return y + 0.01 * torch.randn_like(y)


class CountingPool(PoolToy):
    """Counts its calls."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Means."""
        self.calls += 1
        return super().forward(x)


class NoGradientPool(PoolToy):
    """Rounds in a way whose gradient is not that of A."""

    def forward(self, x: Tensor) -> Tensor:
        """Means, whose gradient is three times too large."""
        y = super().forward(x)
        return 3 * y - 2 * y.detach()


class QuantisedPool(PoolToy):
    """Rounds to 4 levels in ``measure`` and declares no gap."""

    def measure(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """Rounded means."""
        return (self(x) * 4).round() / 4


class BrightPool(PoolToy):
    """Its taps do not sum to one."""

    def forward(self, x: Tensor) -> Tensor:
        """Means, a hundredth too bright."""
        return 1.01 * super().forward(x)


class SinglePool(PoolToy):
    """Falls back to float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Means in single precision."""
        return super().forward(x).float()


class StrayPool(PoolToy):
    """Makes a tensor on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Means."""
        y = super().forward(x)
        return y + torch.zeros(y.shape, dtype=y.dtype)


class SquaredPool(PoolToy):
    """Is not linear."""

    def forward(self, x: Tensor) -> Tensor:
        """Means of squares."""
        return super().forward(x.square())


class HalfAdjoint(PoolToy):
    """Its adjoint forgets one of the two halvings."""

    def adjoint(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        """Twice too large."""
        return 2 * super().adjoint(y, image_shape)


class CoupledAdjoint(PoolToy):
    """Its adjoint mixes the rows, which a single row does not show."""

    def adjoint(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        """The sum over rows."""
        return super().adjoint(y.sum(0, keepdim=True).expand_as(y), image_shape)


class NamelessGain(GainToy):
    """Calls its unknown parameter what a generator may call a block of its own."""

    blocks = (LatentBlock("gain", (1,)),)

    def given(self, latents: Latents) -> Degradation:
        """With the gain of one item."""
        return super().given({"degradation.gain": latents["gain"]})

    def unknowns(self, latents: Latents) -> dict[str, Tensor]:
        """The gain of every item."""
        return super().unknowns({"degradation.gain": latents["gain"]})


class MeanGain(GainToy):
    """Has one gain for the whole batch."""

    def at(self, x: Tensor, latents: Latents) -> Tensor:
        """Means times the mean gain."""
        y: Tensor = self.pool(x)
        return y * self.unknowns(latents)["gain"].mean()


class DeadGain(GainToy):
    """Loses the derivative of its gain."""

    def natural(self, u: Tensor) -> Tensor:
        """A plain number."""
        return super().natural(u.detach())


class LooseGain(GainToy):
    """Has a gain of any size."""

    def natural(self, u: Tensor) -> Tensor:
        """Log-normal."""
        return u[0].exp()
