"""Named latent blocks: what a generator takes in, and the distributions it was trained on.

A generator declares its inputs as blocks. Blocks that fill the same *slot* are alternatives (StyleGAN's ``z``, ``w`` and
``w_plus`` all fill ``style``): an input gives exactly one block for every slot, and may add optional blocks (the features
at a layer, where synthesis then starts). A search names the blocks it moves; the others are drawn once and kept.

Shapes exclude the leading axis N, the number of items.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = [
    "UNKNOWN",
    "Distribution",
    "LatentBlock",
    "Latents",
    "Normal",
    "OneHot",
    "PushForward",
    "TruncatedNormal",
    "Uniform",
    "check_latents",
    "space",
]

UNKNOWN = "degradation."
"""What the names of blocks begin with that are unknown parameters of a degradation; no image depends on them."""

Latents = Mapping[str, Tensor]
"""Block name to tensor of shape (N, *block.shape)."""


@runtime_checkable
class Distribution(Protocol):
    """The native distribution of a block: what the generator was trained on."""

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Draw one item of the given shape, float32, on the CPU."""
        ...


@dataclass(frozen=True)
class Normal:
    """Independent normal entries."""

    mean: float = 0.0
    std: float = 1.0

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Draw one item of the given shape, float32, on the CPU."""
        return self.mean + self.std * torch.randn(shape, generator=rng)


@dataclass(frozen=True)
class TruncatedNormal:
    """``std`` times independent standard normal entries kept within ``bound`` (BigGAN's truncation trick, appendix E)."""

    std: float = 1.0
    bound: float = 2.0

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Draw one item of the given shape, float32, on the CPU: by the inverse of the distribution function."""
        inside = math.erf(self.bound / math.sqrt(2))
        u = torch.rand(shape, generator=rng, dtype=torch.float64) * 2 - 1
        return (self.std * math.sqrt(2) * torch.erfinv(inside * u)).float()


@dataclass(frozen=True)
class Uniform:
    """Independent uniform entries in [low, high)."""

    low: float = -1.0
    high: float = 1.0

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Draw one item of the given shape, float32, on the CPU."""
        return self.low + (self.high - self.low) * torch.rand(shape, generator=rng)


@dataclass(frozen=True)
class OneHot:
    """A class label: one of the unit vectors of the last axis, all equally likely."""

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        """Draw one item of the given shape, float32, on the CPU."""
        classes = torch.randint(shape[-1], shape[:-1], generator=rng)
        return torch.nn.functional.one_hot(classes, shape[-1]).float()


@dataclass(frozen=True)
class PushForward:
    """The image of another block's distribution under the generator's own ``lift`` (``w`` from ``z``)."""

    source: str


@dataclass(frozen=True)
class LatentBlock:
    """One input of a generator.

    Attributes:
        name: Key in ``Latents``.
        shape: Shape of one item, without N.
        native: What the generator was trained on.
        slot: Blocks of the same slot are alternatives; empty means the block's own name.
        optional: An optional block may be left out; it is never drawn on its own.
        searchable: Whether a gradient reaches it (a class label may say no).
        auxiliary: Of optional blocks: whether images do not depend on it; a term of the objective does.
    """

    name: str
    shape: tuple[int, ...]
    native: Distribution | PushForward = Normal()
    slot: str = ""
    optional: bool = False
    searchable: bool = True
    auxiliary: bool = False

    def __post_init__(self) -> None:
        if not self.slot:
            object.__setattr__(self, "slot", self.name)

    @property
    def size(self) -> int:
        """Number of entries of one item."""
        return math.prod(self.shape)


def space(blocks: Iterable[LatentBlock], chosen: Iterable[str] = ()) -> dict[str, LatentBlock]:
    """The blocks that make up one full input: those chosen, and the first one of every slot left open.

    Args:
        blocks: The generator's declaration.
        chosen: Names that must be part of the input; at most one of each slot.

    Raises:
        ValueError: A name is unknown, or two of them fill one slot.
    """
    blocks = tuple(blocks)
    known = {block.name: block for block in blocks}
    filled: dict[str, str] = {}
    for name in chosen:
        if name not in known:
            raise ValueError(f"latent blocks: expected names among {sorted(known)}, got {name!r}")
        slot = known[name].slot
        if slot in filled:
            raise ValueError(f"latent blocks: {filled[slot]!r} and {name!r} both fill the slot {slot!r}; choose one of them")
        filled[slot] = name
    for block in blocks:
        if not block.optional:
            filled.setdefault(block.slot, block.name)
    return {block.name: block for block in blocks if filled.get(block.slot) == block.name}


def check_latents(blocks: Iterable[LatentBlock], latents: Latents) -> None:
    """Refuse an input that does not give exactly one block for every slot, all of the same N.

    Raises:
        ValueError: A block is unknown, missing, doubled or of the wrong shape.
    """
    expected = space(blocks, latents)
    missing = sorted(set(expected) - set(latents))
    if missing:
        raise ValueError(f"latents: expected blocks {sorted(expected)}, got {sorted(latents)}; add {missing}")
    count = len(next(iter(latents.values()))) if latents else 0
    for name, value in latents.items():
        wanted = (count, *expected[name].shape)
        if tuple(value.shape) != wanted:
            raise ValueError(f"latent block {name!r}: expected shape {wanted}, got {tuple(value.shape)}")
