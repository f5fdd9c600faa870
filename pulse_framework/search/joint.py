"""Blind searches: the unknown parameters of the operator as blocks beside those of the generator.

They are standard normal in flat space whatever the prior of the image, move in every phase, are drawn, lifted and saved like any
block, and no image depends on them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import UNKNOWN, LatentBlock, Latents
from pulse_framework.manifolds import Euclidean

__all__ = ["Joint", "StandardNormal", "join", "unknown_blocks", "unknown_names"]


class StandardNormal(LatentPrior):
    """The prior of an unknown parameter, whatever that of the image is."""

    manifold = Euclidean()

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Float[Tensor, "*event"]:
        """Independent standard normal entries."""
        return torch.randn(shape, generator=rng)

    def energy(self, latent: Float[Tensor, "N *event"]) -> Float[Tensor, " N"]:
        """Half the squared length of each item."""
        return latent.flatten(1).square().sum(1) / 2


class Joint(Generator):
    """A generator whose inputs include the unknown parameters of an operator.

    Args:
        generator: G.
        degradation: A, with ``blocks``.

    Raises:
        ValueError: A block of the operator has the name or the slot of another, or its name does not begin with ``UNKNOWN``.
    """

    def __init__(self, generator: Generator, degradation: Degradation) -> None:
        super().__init__()
        self.generator, self.degradation = generator, degradation
        taken = {name for block in generator.blocks for name in (block.name, block.slot)}
        for block in degradation.blocks:
            if not block.name.startswith(UNKNOWN):
                raise ValueError(f"degradation blocks: expected names that begin with {UNKNOWN!r}, got {block.name!r}; rename it")
            if block.name in taken or block.slot in taken:
                raise ValueError(f"degradation blocks: expected names of their own, got {block.name!r} twice; rename it")
            taken |= {block.name, block.slot}
        self.blocks = (*generator.blocks, *degradation.blocks)
        self.image_shape, self.ladder = generator.image_shape, generator.ladder

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """G of its own blocks."""
        return self.generator.synthesize(self._own(latents))

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """As G does; unknown parameters stay what they are."""
        return latents[name] if name in latents else self.generator.lift(self._own(latents), name)

    def truncated(self, levels: int) -> Generator:
        """As G is, with the same unknown parameters."""
        return Joint(self.generator.truncated(levels), self.degradation)

    def _own(self, latents: Latents) -> dict[str, Tensor]:
        unknown = {block.name for block in self.degradation.blocks}
        return {name: value for name, value in latents.items() if name not in unknown}


def join(generator: Generator, degradation: Degradation) -> Generator:
    """The generator, with the unknown parameters of the operator if it has any.

    Raises:
        ValueError: Names of blocks clash.
    """
    return Joint(generator, degradation) if degradation.blocks else generator


def unknown_blocks(generator: Generator) -> tuple[LatentBlock, ...]:
    """The blocks that are unknown parameters."""
    return generator.degradation.blocks if isinstance(generator, Joint) else ()


def unknown_names(generator: Generator) -> tuple[str, ...]:
    """The names of the unknown parameters."""
    if not isinstance(generator, Joint):
        return ()
    degradation = generator.degradation
    return tuple(degradation.unknowns({block.name: torch.zeros(1, *block.shape) for block in degradation.blocks}))
