"""Generators that break one law each."""

import torch
from torch import Tensor

from pulse_framework.latents import LatentBlock, Latents, PushForward
from pulse_framework.testing.toys import LabelToy, LinearToy, StyleToy

__all__ = [
    "AliasedLift",
    "BatchMean",
    "BrokenLadder",
    "DeadNoise",
    "GlobalDice",
    "InPlaceLatent",
    "InfiniteSlope",
    "LaxInput",
    "NoLift",
    "SinglePrecision",
    "StaleWeight",
    "StrangeLift",
    "StrayTensor",
    "StuckLadder",
    "WrongShape",
]


class WrongShape(LinearToy):
    """Declares images twice as wide as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.true_shape = self.image_shape
        self.image_shape = (1, 4, 8)

    def synthesize(self, latents: Latents) -> Tensor:
        """Narrow images."""
        return (latents["z"] @ self.weight.flatten(0, 2).T).unflatten(1, self.true_shape)


class LaxInput(LinearToy):
    """Takes whatever it is given."""

    def forward(self, latents: Latents) -> Tensor:
        """An image of the first block, cut or padded."""
        return self.synthesize({"z": torch.nn.functional.pad(next(iter(latents.values()), torch.zeros(1, 3)), (0, 3))[:, :3]})


class BatchMean(LinearToy):
    """Normalises over the batch, as batch norm in training mode does."""

    def synthesize(self, latents: Latents) -> Tensor:
        """Images less the mean image."""
        images = super().synthesize(latents)
        return images - images.mean(0) / 2


class GlobalDice(LinearToy):
    """Adds noise that is no block."""

    def synthesize(self, latents: Latents) -> Tensor:
        """Grainy images."""
        images = super().synthesize(latents)
        return images + 0.01 * torch.randn_like(images)


class DeadNoise(StyleToy):
    """Declares noise as searchable but cuts its gradient."""

    def synthesize(self, latents: Latents) -> Tensor:
        """The same images."""
        return super().synthesize({**latents, "noise": latents["noise"].detach()})


class InfiniteSlope(LinearToy):
    """Has an infinite gradient."""

    def synthesize(self, latents: Latents) -> Tensor:
        """The same images."""
        return super().synthesize(latents) + (0 * latents["z"]).sum(1).abs().sqrt()[:, None, None, None]


class InPlaceLatent(LinearToy):
    """Normalises its input in place."""

    def synthesize(self, latents: Latents) -> Tensor:
        """The same images, from an input that is not the same any more."""
        images = super().synthesize({"z": latents["z"].clone()})
        latents["z"].detach().mul_(0.9)
        return images


class NoLift(LinearToy):
    """Declares ``w``, which is twice z, as a push-forward but knows no way to it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = (LatentBlock("z", (3,), slot="style"), LatentBlock("w", (3,), PushForward("z"), slot="style"))

    def synthesize(self, latents: Latents) -> Tensor:
        """Images of either."""
        return super().synthesize({"z": latents["w"] / 2 if "w" in latents else latents["z"]})


class StrangeLift(NoLift):
    """Forgets to double."""

    def lift(self, latents: Latents, name: str) -> Tensor:
        """Half of w."""
        return latents["z"] if name == "w" and "z" in latents else super().lift(latents, name)


class AliasedLift(StyleToy):
    """Gives the first block for a name it does not know."""

    def lift(self, latents: Latents, name: str) -> Tensor:
        """Anything for anyone."""
        return super().lift(latents, name) if name in {block.name for block in self.blocks} else next(iter(latents.values()))


class SinglePrecision(LinearToy):
    """Falls back to float32 in the middle."""

    def synthesize(self, latents: Latents) -> Tensor:
        """Images in single precision."""
        return super().synthesize(latents).float()


class StrayTensor(LinearToy):
    """Makes a tensor on the CPU."""

    def synthesize(self, latents: Latents) -> Tensor:
        """The same images."""
        images = super().synthesize(latents)
        return images + torch.zeros(self.image_shape, dtype=images.dtype)


class StaleWeight(LinearToy):
    """Keeps a copy of its weight from the first call on."""

    _kept: Tensor | None = None

    def synthesize(self, latents: Latents) -> Tensor:
        """W z + b, of the W there was."""
        if self._kept is None:
            self._kept = self.weight.detach().flatten(0, 2).T.clone()
        return (latents["z"] @ self._kept).unflatten(1, self.image_shape) + self.bias


class BrokenLadder(StyleToy):
    """There is no way from w_plus down to w."""

    ladder = ("w_plus", "w")


class StuckLadder(LabelToy):
    """No gradient reaches its only rung."""

    ladder = ("label",)
