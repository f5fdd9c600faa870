r"""The two halves of a blur, and their transposes.

E continues an image beyond its edges: ``reflect`` (at the outermost pixels, which are not doubled), ``circular``, ``replicate``
(the outermost pixel) or ``zero``. K convolves every channel with a PSF k and keeps what needs no continuation.
"""

from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["BOUNDARIES", "convolve", "extend", "fold", "spread"]

BOUNDARIES = ("reflect", "circular", "replicate", "zero")

_FOURIER = 25
"""Number of entries from which a PSF goes through the Fourier transform, which is then faster on a CPU."""


def convolve(x: Tensor, psf: Tensor) -> Tensor:
    """K: (1, C, H + h - 1, W + w - 1) to (1, C, H, W), for a PSF (h, w) of the same dtype."""
    if psf.numel() < _FOURIER:
        return functional.conv2d(x.movedim(1, 0), psf.flip(0, 1)[None, None]).movedim(0, 1)
    (h, w), (height, width) = psf.shape, x.shape[-2:]
    size = (_fast(height), _fast(width))
    product = torch.fft.rfft2(x, s=size) * torch.fft.rfft2(psf, s=size)
    return torch.fft.irfft2(product, s=size)[..., h - 1 : height, w - 1 : width]


def spread(y: Tensor, psf: Tensor) -> Tensor:
    """Transpose of K: (1, C, H, W) to (1, C, H + h - 1, W + w - 1)."""
    if psf.numel() < _FOURIER:
        return functional.conv_transpose2d(y.movedim(1, 0), psf.flip(0, 1)[None, None]).movedim(0, 1)
    y = functional.pad(y, (psf.shape[1] - 1, 0, psf.shape[0] - 1, 0))
    height, width = y.shape[-2:]
    size = (_fast(height), _fast(width))
    product = torch.fft.rfft2(y, s=size) * torch.fft.rfft2(psf, s=size).conj()
    return torch.fft.irfft2(product, s=size)[..., :height, :width]


def extend(x: Tensor, before: int, after: int, boundary: str) -> Tensor:
    """E along the last axis; slices and sums alone, whose gradients are deterministic on every device."""
    side = x.shape[-1]
    if boundary == "zero":
        return functional.pad(x, (before, after))
    if boundary == "replicate":
        return torch.cat([x[..., :1].expand(*x.shape[:-1], before), x, x[..., -1:].expand(*x.shape[:-1], after)], -1)
    period, lead, count = _periods(side, before, after, boundary)
    unit = torch.cat([x, x[..., 1:-1].flip(-1)], -1) if boundary == "reflect" else x
    return unit.repeat(*[1] * (x.ndim - 1), count)[..., lead * period - before : lead * period + side + after]


def fold(y: Tensor, before: int, after: int, boundary: str) -> Tensor:
    """Transpose of E along the last axis."""
    side = y.shape[-1] - before - after
    core = y[..., before : before + side]
    if boundary == "zero":
        return core
    if boundary == "replicate":
        first, last = y[..., :before].sum(-1, keepdim=True), y[..., before + side :].sum(-1, keepdim=True)
        return core + functional.pad(first, (0, side - 1)) + functional.pad(last, (side - 1, 0))
    period, lead, count = _periods(side, before, after, boundary)
    whole = functional.pad(y, (lead * period - before, (count - lead) * period - side - after))
    unit = whole.reshape(*y.shape[:-1], count, period).sum(-2)
    if period == side:
        return unit
    return unit[..., :side] + functional.pad(unit[..., side:].flip(-1), (1, 1))


def _periods(side: int, before: int, after: int, boundary: str) -> tuple[int, int, int]:
    """Of the periodic continuation of a side: its period, whole periods that hold ``before``, and periods in all."""
    period = side + (max(side - 2, 0) if boundary == "reflect" else 0)
    lead = -(-before // period)
    return period, lead, lead - (-(side + after) // period)


@lru_cache(maxsize=256)
def _fast(side: int) -> int:
    """The smallest number from ``side`` on without prime factors above 5, for which Fourier transforms are fast."""
    while True:
        rest = side
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return side
        side += 1
