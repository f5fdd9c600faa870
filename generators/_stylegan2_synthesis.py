r"""Synthesis of StyleGAN2 for frozen weights: one block, and the stack of them.

Block r, for images of r = 4, 8, ... pixels a side, takes the features x and the image y of block r/2 to

.. math:: x_r = L_{2} \circ L_{1}(x_{r/2}), \qquad y_r = D(y_{r/2}) + T_r(x_r),

with the layers L of ``_stylegan_ops``, the first of which doubles the size (block 4 has a constant and one layer), T a modulated
1 x 1 convolution to RGB without demodulation, and D the doubling of ``_stylegan_ops``: the architecture "skip". "orig" has T in
the last block alone; so has "resnet", where :math:`x_r = (L_2 \circ L_1(x_{r/2}) + D(S x_{r/2})) / \sqrt 2` from block 8 on. A
block's layers and T take consecutive rows of w+, T the row of the next block's first layer.

A row's style may be a vector for each of its filters instead (W++; RUSIR, arXiv:2302.06733, section 3), see
``_stylegan2_filters``: T, which shares its row with the next block's first layer, then takes the first ones.

An input may stand in for what the network computes at one block, :math:`x_r` or :math:`y_r` or both; what is then not needed is
not computed.

Reference: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958; tensors have the
names of StyleGAN2-ADA (Karras et al., NeurIPS 2020, arXiv:2006.06676).
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from generators._stylegan2_architecture import Architecture
from generators._stylegan2_filters import filtered_image, filtered_layer
from generators._stylegan_ops import Linear, double, linear, modulated_layer, to_image

__all__ = ["Synthesis"]

_EPS = 1e-8
At = tuple[int, Tensor]


class Synthesis(nn.Module):
    """The frozen network from w+ to images in the network's native range.

    Args:
        tensors: Named ``b4.const`` and so on, as they are in the file; noise maps are left alone.
        architecture: Theirs.
        checkpoint: Whether a backward pass computes the inside of each block anew instead of keeping it.

    Attributes:
        image_sides: Of the blocks that make a part of the image.
        filters: For each row of w+ the filters that take it.
    """

    const: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], architecture: Architecture, *, checkpoint: bool = False) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.register_buffer("const", tensors["b4.const"][None].clone())
        self.blocks = nn.ModuleList(_Block(_within(tensors, f"b{side}."), architecture, side) for side in architecture.sides)
        self.image_sides = architecture.sides if architecture.kind == "skip" else architecture.sides[-1:]
        layers = [channels for channels in architecture.channels for _ in range(2)][1:]
        shown = {2 * i + 1: architecture.image_channels for i, side in enumerate(architecture.sides) if side in self.image_sides}
        self.filters = tuple(max(count, shown.get(row, 0)) for row, count in enumerate([*layers, 0]))

    def forward(
        self,
        styles: Sequence[Tensor],
        noise: Sequence[Tensor | None],
        features: At | None = None,
        image: At | None = None,
    ) -> Float[Tensor, "N C H W"]:
        """Images; for the arguments see ``states``."""
        *_, (_, _, y) = self.states(styles, noise, features, image)
        assert y is not None
        return y

    def states(
        self, styles: Sequence[Tensor], noise: Sequence[Tensor | None], features: At | None = None, image: At | None = None
    ) -> Iterator[tuple[int, Tensor, Tensor | None]]:
        """The side r, features and image of every block, from the smallest on, valid where they are computed or given.

        Args:
            styles: For each row w, (N, D), or one for each of its filters, (N, F, D).
            noise: For each layer a map (N or 1, 1, r, r), or None for zeros.
            features: A side r and what stands in for :math:`x_r`.
            image: A side r and what stands in for :math:`y_r`; of the architecture "skip" alone.
        """
        rows, x, y = styles, self.const, None
        start, shown = (0 if at is None else at[0] for at in (features, image))
        early = any(shown < side < start for side in self.image_sides)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            first = max(2 * index - 1, 0)
            inputs = rows[first : 2 * index + 2], noise[first : 2 * index + 1], block.side > shown
            if features is not None and block.side == start:
                x = features[1]
                y = block.image(x, y, rows[2 * index + 1]) if block.side > shown else y
            elif (block.side > start or early) and self.checkpoint and torch.is_grad_enabled():
                x, y = checkpoint(block, x, y, *inputs, use_reentrant=False, preserve_rng_state=False)
            elif block.side > start or early:
                x, y = block(x, y, *inputs)
            if image is not None and block.side == shown:
                y = image[1]
            yield block.side, x, y

    def enlarged(self, image: Tensor, side: int) -> Tensor:
        """An image of one side as the blocks after it enlarge it, without their own parts of it."""
        for block in self.blocks:
            assert isinstance(block, _Block)
            image = double(image, block.taps.to(image.dtype)) if block.side > side else image
        return image


class _Block(nn.Module):
    """One resolution."""

    taps: Tensor
    skip_weight: Tensor | None

    def __init__(self, tensors: Mapping[str, Tensor], architecture: Architecture, side: int) -> None:
        super().__init__()
        self.side = side
        resnet = "skip.weight" in tensors
        limit, gain = architecture.conv_clamp, math.sqrt(0.5) if resnet else 1.0
        layers = [_Layer(_within(tensors, "conv0."), limit, up=True)] if "conv0.weight" in tensors else []
        self.layers = nn.ModuleList([*layers, _Layer(_within(tensors, "conv1."), limit, gain)])
        self.torgb = _ToRGB(_within(tensors, "torgb."), limit) if "torgb.weight" in tensors else None
        self.register_buffer("taps", _taps(tensors))
        skip = tensors["skip.weight"] * (gain / math.sqrt(tensors["skip.weight"].shape[1])) if resnet else None
        self.register_buffer("skip_weight", skip)

    def forward(
        self, x: Tensor, y: Tensor | None, w: Sequence[Tensor], noise: Sequence[Tensor | None], shown: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Features and image; the image as it was if it is not ``shown``."""
        beside = None if self.skip_weight is None else double(functional.conv2d(x, self.skip_weight), self.taps)
        for layer, row, map_ in zip(self.layers, w, noise, strict=False):
            x = layer(x, row, map_)
        x = x if beside is None else x + beside
        return x, self.image(x, y, w[-1]) if shown else y

    def image(self, x: Tensor, y: Tensor | None, w: Tensor) -> Tensor | None:
        """The image so far and this block's part of it."""
        if self.torgb is None:
            return y
        part: Tensor = self.torgb(x, w)
        return part if y is None else part + double(y, self.taps.to(y.dtype))


class _Layer(nn.Module):
    """A modulated convolution with noise, bias and activation, folded."""

    weight: Tensor
    bias: Tensor
    strength: Tensor
    taps: Tensor | None

    def __init__(self, tensors: Mapping[str, Tensor], limit: float | None, gain: float = 1.0, *, up: bool = False) -> None:
        super().__init__()
        self.limit = None if limit is None else limit * gain
        self.gain = gain * math.sqrt(2)
        weight = tensors["weight"]
        self.style = _affine(tensors)
        weight = weight.transpose(0, 1) if up else weight
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", tensors["bias"] * self.gain)
        self.register_buffer("strength", tensors["noise_strength"] * self.gain)
        self.register_buffer("taps", _taps(tensors) if up else None)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        noise = None if noise is None else noise * self.strength
        if w.ndim == 3:
            return filtered_layer(
                x, w, self.style, self.energy(), noise, self.weight, self.bias, self.taps, self.gain, self.limit
            )
        s = self.style(w)
        d = self.gain * (linear(s.square(), self.energy()) + _EPS).rsqrt()
        return modulated_layer(x, s, d, noise, self.weight, self.bias, self.taps, self.limit)

    def energy(self) -> Tensor:
        """Sums of the squared weights over the kernel, (O, I); of the weights as they are, which may be tuned."""
        energy = self.weight.square().sum((2, 3))
        return energy if self.taps is None else energy.T.contiguous()


class _ToRGB(nn.Module):
    """The part of the image that one block's features make."""

    weight: Tensor
    bias: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], limit: float | None) -> None:
        super().__init__()
        self.limit = limit
        self.style = _affine(tensors)
        self.register_buffer("weight", tensors["weight"].flatten(1) / math.sqrt(tensors["weight"].shape[1]))
        self.register_buffer("bias", tensors["bias"].clone())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        if w.ndim == 3:
            y = filtered_image(x, w, self.style, self.weight, self.bias)
        else:
            y = to_image(x, self.style(w), self.weight, self.bias)
        return y if self.limit is None else y.clamp(-self.limit, self.limit)


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _affine(tensors: Mapping[str, Tensor]) -> Linear:
    """From w to a style, with the equalised learning rate's gain folded in."""
    weight = tensors["affine.weight"]
    return Linear(weight / math.sqrt(weight.shape[1]), tensors["affine.bias"])


def _taps(tensors: Mapping[str, Tensor]) -> Tensor:
    """The filter that follows zeros put between the pixels: its sum is 4, as a convolution it is flipped."""
    return 4 * tensors["resample_filter"][None, None]
