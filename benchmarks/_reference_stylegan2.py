"""StyleGAN2's synthesis (architecture "skip"), written down as the papers state it: the yardstick of ``stylegan.py``.

Weights keep the names of SG2-ADA and their unit variance, and are scaled at every call; every row has convolution weights of
its own, modulated and demodulated, which one grouped convolution applies; the filter of the doubling acts on zeros put
between the pixels. Nothing is folded or computed ahead. It agrees with ``generators.stylegan2`` (``tests/generators``).
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["synthesis"]


def synthesis(tensors: Mapping[str, Tensor], w_plus: Tensor, noise: list[Tensor]) -> Tensor:
    """Images in the native range, for w+ of shape (N, L, D) and a map (N or 1, 1, r, r) for every layer."""
    taps = tensors["synthesis.b4.resample_filter"]
    x, y = tensors["synthesis.b4.const"].expand(len(w_plus), -1, -1, -1), None
    for index in range(w_plus.shape[1] // 2):
        block = f"synthesis.b{4 << index}"
        for name, row in (("conv0", 2 * index - 1), ("conv1", 2 * index)):
            if f"{block}.{name}.weight" in tensors:
                x = _layer(tensors, f"{block}.{name}", x, w_plus[:, row], noise[row], taps if name == "conv0" else None)
        style = _affine(tensors, f"{block}.torgb", w_plus[:, 2 * index + 1])
        weight = tensors[f"{block}.torgb.weight"]
        part = _modulated(x, weight, style / weight.shape[1] ** 0.5, demodulate=False)
        part = part + tensors[f"{block}.torgb.bias"][:, None, None]
        y = part if y is None else part + _filtered(_spread(y), 4 * taps, (2, 1, 2, 1))
    assert y is not None
    return y


def _layer(tensors: Mapping[str, Tensor], name: str, x: Tensor, w: Tensor, noise: Tensor, taps: Tensor | None) -> Tensor:
    style = _affine(tensors, name, w)
    if taps is None:
        x = _modulated(x, tensors[f"{name}.weight"], style)
    else:
        x = _filtered(_modulated(x, tensors[f"{name}.weight"], style, up=True), 4 * taps, (1, 1, 1, 1))
    x = x + noise * tensors[f"{name}.noise_strength"] + tensors[f"{name}.bias"][:, None, None]
    return functional.leaky_relu(x, 0.2) * 2**0.5


def _affine(tensors: Mapping[str, Tensor], name: str, w: Tensor) -> Tensor:
    weight = tensors[f"{name}.affine.weight"]
    return functional.linear(w, weight / weight.shape[1] ** 0.5, tensors[f"{name}.affine.bias"])


def _modulated(x: Tensor, weight: Tensor, style: Tensor, *, demodulate: bool = True, up: bool = False) -> Tensor:
    """A convolution with weights of its own for every row, as one convolution of N groups."""
    rows, channels, height, width = x.shape
    own = weight * style[:, None, :, None, None]
    if demodulate:
        own = own * (own.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, rows * channels, height, width)
    if up:
        y = functional.conv_transpose2d(x, own.transpose(1, 2).flatten(0, 1), stride=2, groups=rows)
    else:
        y = functional.conv2d(x, own.flatten(0, 1), padding=weight.shape[-1] // 2, groups=rows)
    return y.reshape(rows, -1, *y.shape[2:])


def _spread(x: Tensor) -> Tensor:
    """A zero after every pixel, along both axes."""
    spread = torch.stack([x, torch.zeros_like(x)], -1).flatten(-2)
    return torch.stack([spread, torch.zeros_like(spread)], -2).flatten(-3, -2)


def _filtered(x: Tensor, taps: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Every channel convolved with the taps."""
    channels = x.shape[1]
    return functional.conv2d(functional.pad(x, padding), taps.flip(0, 1).expand(channels, 1, -1, -1), groups=channels)
