"""The numbers that make a StyleGAN2, and what they say of its tensors: names (those of StyleGAN2-ADA) and shapes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["Architecture", "architecture_of", "expected_tensors", "random_tensors"]

_KINDS: tuple[Literal["skip", "resnet", "orig"], ...] = ("skip", "resnet", "orig")


@dataclass(frozen=True)
class Architecture:
    """The numbers that make a StyleGAN2.

    Attributes:
        channels: Of the features of blocks 4, 8, ..., one number for each block.
        z_dim: Entries of z.
        w_dim: Entries of w.
        c_dim: Classes; 0 for none.
        image_channels: Usually 3.
        kind: How images are made; see above.
        mapping_layers: Dense layers from z to w.
        mapping_lr_multiplier: Factor on their weights and biases.
        conv_clamp: Where features are clamped, in units of the gain; None for nowhere.
    """

    channels: tuple[int, ...]
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    image_channels: int = 3
    kind: Literal["skip", "resnet", "orig"] = "skip"
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    conv_clamp: float | None = None

    @property
    def sides(self) -> tuple[int, ...]:
        """Pixels a side of the images of each block."""
        return tuple(4 << index for index in range(len(self.channels)))

    @property
    def rows(self) -> int:
        """L, the rows of w+."""
        return 2 * len(self.channels)

    @property
    def noise_sides(self) -> tuple[int, ...]:
        """Pixels a side of each noise map: one for block 4, two for each other block."""
        return tuple(4 << (index + 1) // 2 for index in range(self.rows - 1))


def expected_tensors(architecture: Architecture) -> dict[str, Tensor]:
    """Every tensor of the state dict, by its SG2-ADA name, without memory (on the meta device)."""
    a, shapes = architecture, dict[str, tuple[int, ...]]()

    def layer(name: str, before: int, after: int, side: int) -> None:
        kernel = 3 if side else 1
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (after, before, kernel, kernel), (after,)
        shapes[f"{name}.affine.weight"], shapes[f"{name}.affine.bias"] = (before, a.w_dim), (before,)
        if side:
            shapes[f"{name}.noise_strength"], shapes[f"{name}.noise_const"] = (), (side, side)
            shapes[f"{name}.resample_filter"] = (4, 4)

    for before, after, side in zip((0, *a.channels), a.channels, a.sides, strict=False):
        block = f"synthesis.b{side}"
        shapes[f"{block}.resample_filter"] = (4, 4)
        if side == 4:
            shapes[f"{block}.const"] = (after, 4, 4)
        else:
            layer(f"{block}.conv0", before, after, side)
        layer(f"{block}.conv1", after, after, side)
        if a.kind == "skip" or side == a.sides[-1]:
            layer(f"{block}.torgb", after, a.image_channels, 0)
            shapes[f"{block}.torgb.weight"] = (a.image_channels, after, 1, 1)
        if a.kind == "resnet" and side > 4:
            shapes[f"{block}.skip.weight"], shapes[f"{block}.skip.resample_filter"] = (after, before, 1, 1), (4, 4)
    if a.c_dim:
        shapes["mapping.embed.weight"], shapes["mapping.embed.bias"] = (a.w_dim, a.c_dim), (a.w_dim,)
    for index in range(a.mapping_layers):
        size = a.w_dim if index else a.z_dim + (a.w_dim if a.c_dim else 0)
        shapes[f"mapping.fc{index}.weight"], shapes[f"mapping.fc{index}.bias"] = (a.w_dim, size), (a.w_dim,)
    shapes["mapping.w_avg"] = (a.w_dim,)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def random_tensors(architecture: Architecture, seed: int = 0) -> dict[str, Tensor]:
    """Untrained weights, normal as at the start of a training, but with biases, mean and noise strengths that are not zero."""
    rng, tensors = torch.Generator().manual_seed(seed), {}
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    for name, like in expected_tensors(architecture).items():
        value = torch.randn(like.shape, generator=rng)
        if name.endswith("resample_filter"):
            value = torch.outer(taps, taps)
        elif name.endswith("affine.bias"):
            value = 1 + value / 10
        elif name.startswith("mapping.fc"):
            value = value / architecture.mapping_lr_multiplier * (0.1 if name.endswith("bias") else 1)
        elif name.endswith(("bias", "noise_strength", "w_avg")):
            value = value / 10
        tensors[name] = value
    return tensors


def architecture_of(values: Mapping[str, Any]) -> Architecture:
    """The architecture from the plain values in a file, under the names that NVIDIA's networks give them.

    Raises:
        ValueError: A value is missing, or is one of a network that is not built here.
    """

    def number(name: str, default: float | None = None) -> Any:  # noqa: ANN401 - whatever the file says
        value = values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"StyleGAN2: expected a number for {name!r}, got {value!r}; the file must tell its architecture")
        return value

    size, kind = number("img_resolution"), values.get("architecture", "skip")
    if not isinstance(size, int) or size < 8 or size & (size - 1):
        raise ValueError(f"StyleGAN2: expected img_resolution to be a power of two from 8 on, got {size}; use another generator")
    if kind not in _KINDS:
        raise ValueError(f"StyleGAN2: expected one of the architectures {', '.join(_KINDS)}, got {kind!r}; use another generator")
    if values.get("activation", "lrelu") != "lrelu":
        raise ValueError(f"StyleGAN2: expected the activation lrelu, got {values['activation']!r}; use another generator")
    sides = [4 << index for index in range(size.bit_length() - 2)]
    if "channel_base" in values:
        base, most = int(number("channel_base")), int(number("channel_max", 512))
        channels = [min(base // side, most) for side in sides]
    else:
        found = {int(side): count for side, count in (values.get("channels") or {}).items()}
        channels = [found.get(side, 0) for side in sides]
    return Architecture(
        tuple(channels),
        z_dim=number("z_dim"),
        w_dim=number("w_dim"),
        c_dim=number("c_dim", 0),
        image_channels=number("img_channels", 3),
        kind=kind,
        mapping_layers=number("mapping_layers", 8),
        mapping_lr_multiplier=number("mapping_lr_multiplier", 0.01),
        conv_clamp=None if values.get("conv_clamp") is None else number("conv_clamp"),
    )
