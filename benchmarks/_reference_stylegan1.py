"""StyleGAN1's synthesis, written down as the paper states it: the yardstick of ``stylegan.py``.

Weights keep the names of PULSE's ``synthesis.pt`` and their unit variance, and are scaled at every call; pixels are repeated
before the convolution that follows a doubling, or from 128 pixels a side the kernel is summed to four taps, also at every call.
Nothing is folded or computed ahead. It agrees with ``generators.stylegan1`` (``tests/generators``).
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["random_tensors", "synthesis"]


def synthesis(tensors: Mapping[str, Tensor], w_plus: Tensor, noise: list[Tensor]) -> Tensor:
    """Images in the native range, for w+ of shape (N, L, D) and a map (N or 1, 1, r, r) for every layer."""
    x = (tensors["blocks.4x4.const"] + tensors["blocks.4x4.bias"][:, None, None]).expand(len(w_plus), -1, -1, -1)
    for index in range(w_plus.shape[1] // 2):
        block = f"blocks.{4 << index}x{4 << index}"
        if index > 0:
            x = _doubled(tensors, f"{block}.conv0_up", x)
        x = _epilogue(tensors, f"{block}.epi1", x, w_plus[:, 2 * index], noise[2 * index])
        name = f"{block}.conv1" if index > 0 else f"{block}.conv"
        x = functional.conv2d(x, _scaled(tensors, name, math.sqrt(2)), tensors[f"{name}.bias"], padding=1)
        x = _epilogue(tensors, f"{block}.epi2", x, w_plus[:, 2 * index + 1], noise[2 * index + 1])
    return functional.conv2d(x, _scaled(tensors, "torgb"), tensors["torgb.bias"])


def random_tensors(side: int, channel_base: int = 16384, channel_max: int = 512, w_dim: int = 512) -> dict[str, Tensor]:
    """An untrained network of NVIDIA's widths, with noise and biases that are not zero."""
    rng = torch.Generator().manual_seed(0)

    def normal(*shape: int, std: float = 1.0) -> Tensor:
        return std * torch.randn(shape, generator=rng)

    sides = [4 << index for index in range(side.bit_length() - 2)]
    widths = [min(channel_base // r, channel_max) for r in sides]
    out = {"torgb.weight": normal(3, widths[-1], 1, 1), "torgb.bias": normal(3, std=0.1)}
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    for r, before, width in zip(sides, (0, *widths), widths, strict=False):
        block, names = f"blocks.{r}x{r}", ("conv",) if r == 4 else ("conv0_up", "conv1")
        if r == 4:
            out |= {f"{block}.const": normal(1, width, 4, 4), f"{block}.bias": normal(width, std=0.1)}
        else:
            out[f"{block}.conv0_up.intermediate.kernel"] = torch.outer(taps, taps)[None, None]
        for name in names:
            out[f"{block}.{name}.weight"] = normal(width, before if name == "conv0_up" else width, 3, 3)
            out[f"{block}.{name}.bias"] = normal(width, std=0.1)
        for name in ("epi1", "epi2"):
            out[f"{block}.{name}.noise.weight"] = normal(width, std=0.1)
            out[f"{block}.{name}.style_mod.lin.weight"] = normal(2 * width, w_dim)
            out[f"{block}.{name}.style_mod.lin.bias"] = normal(2 * width, std=0.1)
    return out


def _scaled(tensors: Mapping[str, Tensor], name: str, gain: float = 1.0) -> Tensor:
    weight = tensors[f"{name}.weight"]
    return weight * (gain / math.sqrt(weight[0].numel()))


def _epilogue(tensors: Mapping[str, Tensor], name: str, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
    """Noise, leaky ReLU, instance normalisation, style."""
    x = functional.leaky_relu(x + tensors[f"{name}.noise.weight"][:, None, None] * noise, 0.2)
    x = functional.instance_norm(x, eps=1e-5)
    style = functional.linear(w, _scaled(tensors, f"{name}.style_mod.lin"), tensors[f"{name}.style_mod.lin.bias"])
    gain, shift = style.reshape(len(w), 2, -1, 1, 1).unbind(1)
    return x * (gain + 1) + shift


def _doubled(tensors: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Twice the size: nearest neighbours and a convolution, or both in one; then the blur, then the bias."""
    rows, channels, height, width = x.shape
    weight = _scaled(tensors, name, math.sqrt(2))
    if 2 * height >= 128:
        weight = functional.pad(weight.transpose(0, 1), (1, 1, 1, 1))
        weight = weight[:, :, 1:, 1:] + weight[:, :, :-1, 1:] + weight[:, :, 1:, :-1] + weight[:, :, :-1, :-1]
        x = functional.conv_transpose2d(x, weight, stride=2, padding=1)
    else:
        x = x.reshape(rows, channels, height, 1, width, 1).expand(-1, -1, -1, 2, -1, 2)
        x = functional.conv2d(x.reshape(rows, channels, 2 * height, 2 * width), weight, padding=1)
    blur = tensors[f"{name}.intermediate.kernel"].expand(x.shape[1], 1, -1, -1)
    return functional.conv2d(x, blur, padding=1, groups=x.shape[1]) + tensors[f"{name}.bias"][:, None, None]
