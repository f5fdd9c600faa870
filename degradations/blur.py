r"""Blur by any point spread function (PSF) k, the same for every channel and everywhere in the image.

.. math:: A(x)_p = \sum_q k_q \, \bar x_{p - (q - c)}, \qquad \sum_q k_q = 1, \qquad c = \lfloor \text{shape of } k / 2 \rfloor,

where :math:`\bar x` continues the image beyond its edges: ``reflect`` (at the outermost pixels, which are not doubled),
``circular``, ``replicate`` (the outermost pixel) or ``zero``. With E the matrix of the continuation and K that of the sum,
:math:`A = K E` and :math:`A^\top = E^\top K^\top`. Large PSFs go through the fast Fourier transform.

The sinc kernel is the ideal circular low-pass, :math:`k(r) = \omega J_1(\omega r) / (2 \pi r)` (Wang et al., "Real-ESRGAN", ICCVW 2021,
arXiv:2107.10833, eq. 3).
"""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from pulse_framework.images import read_image
from pulse_framework.interfaces import LinearDegradation

__all__ = ["Blur", "box_blur", "defocus", "gaussian_blur", "load", "motion_blur", "sinc_blur", "trajectory_blur"]

_BOUNDARIES = ("reflect", "circular", "replicate", "zero")
_FOURIER = 400
"""Number of entries from which a PSF goes through the Fourier transform."""
_FINE = 16
"""Samples per pixel, along each axis, of what has edges finer than a pixel."""


class Blur(LinearDegradation):
    """Blur of images (C, H, W) of any size, which it keeps.

    A PSF with negative entries (sinc) can take A of an image in [0, 1] a little out of [0, 1].

    Args:
        psf: k, divided by its sum. It is what a single white pixel becomes, up to that factor.
        boundary: ``reflect``, ``circular``, ``replicate`` or ``zero``.

    Attributes:
        psf: k in float64, of sum 1.
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: The PSF is not a matrix of finite numbers with a positive sum, or there is no such boundary.
    """

    gap = 0.5 / 255

    def __init__(self, psf: Float[Tensor, "h w"], boundary: str = "reflect") -> None:
        super().__init__()
        psf = psf.detach().to("cpu", torch.float64, copy=True)
        if psf.ndim != 2 or psf.numel() == 0 or not bool(psf.isfinite().all()) or not psf.sum() > 0:
            raise ValueError(
                f"Blur psf: expected a matrix of finite numbers with a positive sum, got shape {tuple(psf.shape)} and sum"
                f" {float(psf.sum()):.4g}; give the point spread function of one channel"
            )
        if boundary not in _BOUNDARIES:
            raise ValueError(f"Blur boundary: expected one of {', '.join(_BOUNDARIES)}, got {boundary!r}")
        self.psf, self.boundary = psf / psf.sum(), boundary
        (height, width), (down, right) = psf.shape, (psf.shape[0] // 2, psf.shape[1] // 2)
        self._margins = ((height - 1 - down, down), (width - 1 - right, right))

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x), in the dtype and on the device of x.

        Raises:
            TypeError: x is not of floats.
        """
        psf = self._psf_like(x)
        rows, columns = self._margins

        def one(image: Tensor) -> Tensor:
            image = _extend(_extend(image, *columns, self.boundary).mT, *rows, self.boundary).mT
            return _convolve(image.to(psf.dtype), psf).to(x.dtype)

        return _each(one, x)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits, as it is when saved; nothing is drawn from ``rng``."""
        del rng
        return (self(x).clamp(0, 1) * 255).round() / 255

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        r"""Transpose of A, :math:`E^\top K^\top y`.

        Raises:
            TypeError: y is not of floats.
            ValueError: y is not of this image shape.
        """
        if tuple(y.shape[1:]) != tuple(image_shape):
            raise ValueError(f"Blur adjoint: expected y of shape (N, *{image_shape}), got {tuple(y.shape)}; check image_shape")
        psf = self._psf_like(y)
        rows, columns = self._margins

        def one(image: Tensor) -> Tensor:
            image = _spread(image.to(psf.dtype), psf).to(y.dtype)
            return _fold(_fold(image.mT, *rows, self.boundary).mT, *columns, self.boundary)

        return _each(one, y)

    def extra_repr(self) -> str:
        """Size of the PSF, and the boundary."""
        return f"psf={self.psf.shape[0]}x{self.psf.shape[1]}, boundary={self.boundary}"

    def _psf_like(self, x: Tensor) -> Tensor:
        """k on the device of x, in its dtype, or in float32 if the Fourier transform lacks that dtype."""
        if not x.is_floating_point():
            raise TypeError(f"Blur: expected a tensor of floats, got {x.dtype}; convert it to floats in [0, 1]")
        half = self.psf.numel() >= _FOURIER and x.dtype in (torch.float16, torch.bfloat16)
        return self.psf.to(torch.float32 if half else x.dtype).to(x.device)


def _each(one, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """One image at a time, because convolutions of a batch may round differently for different batch sizes."""
    return torch.stack([one(image) for image in x.contiguous()]) if len(x) else x


def _convolve(x: Tensor, psf: Tensor) -> Tensor:
    """K: every channel of (C, H + h - 1, W + w - 1) convolved, to (C, H, W)."""
    if psf.numel() < _FOURIER:
        return functional.conv2d(x[:, None], psf.flip(0, 1)[None, None])[:, 0]
    (height, width), size = psf.shape, x.shape[-2:]
    product = torch.fft.rfft2(x) * torch.fft.rfft2(psf, s=size)
    return torch.fft.irfft2(product, s=size)[..., height - 1 :, width - 1 :]


def _spread(y: Tensor, psf: Tensor) -> Tensor:
    """Transpose of K: (C, H, W) to (C, H + h - 1, W + w - 1)."""
    if psf.numel() < _FOURIER:
        return functional.conv_transpose2d(y[:, None], psf.flip(0, 1)[None, None])[:, 0]
    y = functional.pad(y, (psf.shape[1] - 1, 0, psf.shape[0] - 1, 0))
    size = y.shape[-2:]
    return torch.fft.irfft2(torch.fft.rfft2(y) * torch.fft.rfft2(psf, s=size).conj(), s=size)


def _periods(side: int, before: int, after: int, boundary: str) -> tuple[int, int, int]:
    """Of the periodic continuation of a side: its period, whole periods that hold ``before``, and periods in all."""
    period = side + (max(side - 2, 0) if boundary == "reflect" else 0)
    lead = -(-before // period)
    return period, lead, lead - (-(side + after) // period)


def _extend(x: Tensor, before: int, after: int, boundary: str) -> Tensor:
    """E along the last axis; slices and sums alone, whose gradients are deterministic on every device."""
    side = x.shape[-1]
    if boundary == "zero":
        return functional.pad(x, (before, after))
    if boundary == "replicate":
        return torch.cat([x[..., :1].expand(*x.shape[:-1], before), x, x[..., -1:].expand(*x.shape[:-1], after)], -1)
    period, lead, count = _periods(side, before, after, boundary)
    unit = torch.cat([x, x[..., 1:-1].flip(-1)], -1) if boundary == "reflect" else x
    return unit.repeat(*[1] * (x.ndim - 1), count)[..., lead * period - before : lead * period + side + after]


def _fold(y: Tensor, before: int, after: int, boundary: str) -> Tensor:
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
    return unit[..., :side] + functional.pad(unit[..., side:].flip(-1), (1, 1)) if period > side else unit


def gaussian_blur(sigma: float, ratio: float = 1.0, angle: float = 0.0, boundary: str = "reflect") -> Blur:
    """Gaussian of standard deviation sigma pixels along ``angle`` and ratio * sigma across, cut off at four of the larger.

    Args:
        sigma: In pixels.
        ratio: 1 is isotropic.
        angle: Of the axis of sigma, in radians, anticlockwise from the horizontal.
        boundary: As for ``Blur``.

    Raises:
        ValueError: ``sigma`` or ``ratio`` is not positive.
    """
    _positive("gaussian_blur", sigma=sigma, ratio=ratio)
    up, right = _grid(math.ceil(4 * sigma * max(1.0, ratio)))
    along, across = math.cos(angle) * right + math.sin(angle) * up, math.cos(angle) * up - math.sin(angle) * right
    return Blur(torch.exp(-((along / sigma).square() + (across / (ratio * sigma)).square()) / 2), boundary)


def motion_blur(length: float, angle: float = 0.0, boundary: str = "reflect") -> Blur:
    """Steady motion along a straight line.

    Args:
        length: Of the line, in pixels.
        angle: In radians, anticlockwise from the horizontal.
        boundary: As for ``Blur``.

    Raises:
        ValueError: ``length`` is not positive.
    """
    _positive("motion_blur", length=length)
    count = math.ceil(_FINE * length)
    along = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * length
    return Blur(_path(math.sin(angle) * along, math.cos(angle) * along), boundary)


def trajectory_blur(length: float, seed: int = 0, bend: float = 2.0, boundary: str = "reflect") -> Blur:
    """Motion at a steady speed along a random curve, whose heading is a Brownian motion; its mean point stays in place.

    Args:
        length: Of the curve, in pixels.
        seed: The same seed gives the same curve.
        bend: Standard deviation of the heading's change from one end to the other, in radians; 0 is a straight line.
        boundary: As for ``Blur``.

    Raises:
        ValueError: ``length`` is not positive, or ``bend`` is negative.
    """
    _positive("trajectory_blur", length=length)
    if not bend >= 0:
        raise ValueError(f"trajectory_blur bend: expected a standard deviation in radians, not negative, got {bend}")
    rng, count = torch.Generator().manual_seed(seed), math.ceil(_FINE * length)
    heading = 2 * math.pi * torch.rand((), generator=rng, dtype=torch.float64)
    turns = torch.randn(count, generator=rng, dtype=torch.float64) * bend / math.sqrt(count)
    headings = heading + turns.cumsum(0)
    up, right = headings.sin().cumsum(0) * length / count, headings.cos().cumsum(0) * length / count
    return Blur(_path(up - up.mean(), right - right.mean()), boundary)


def defocus(radius: float, boundary: str = "reflect") -> Blur:
    """A disk, each pixel weighted by the part of it that the disk covers (on 16 x 16 points).

    Args:
        radius: In pixels.
        boundary: As for ``Blur``.

    Raises:
        ValueError: ``radius`` is not positive.
    """
    _positive("defocus", radius=radius)
    reach = math.ceil(radius + 0.5)
    side = 2 * reach + 1
    at = (torch.arange(side * _FINE, dtype=torch.float64) + 0.5) / _FINE - side / 2
    inside = (at[:, None].square() + at.square() <= max(radius, 1 / _FINE) ** 2).double()
    return Blur(inside.reshape(side, _FINE, side, _FINE).mean((1, 3)), boundary)


def box_blur(size: int, boundary: str = "reflect") -> Blur:
    """Mean of ``size`` x ``size`` pixels; an even size reaches one pixel further up and to the left in the PSF.

    Raises:
        ValueError: ``size`` is below 1.
    """
    _positive("box_blur", size=size)
    return Blur(torch.ones(size, size), boundary)


def sinc_blur(cutoff: float, size: int = 21, boundary: str = "reflect") -> Blur:
    """The circular low-pass, which rings at edges.

    Args:
        cutoff: omega, in radians per pixel; pi is the highest frequency along an axis.
        size: Side of the PSF, odd.
        boundary: As for ``Blur``.

    Raises:
        ValueError: ``cutoff`` is not in (0, pi], or ``size`` is not positive and odd.
    """
    if not 0 < cutoff <= math.pi or size < 1 or size % 2 == 0:
        raise ValueError(f"sinc_blur: expected cutoff in (0, pi] and an odd size, got {cutoff} and {size}; change them")
    up, right = _grid(size // 2)
    r = torch.hypot(up, right).clamp(min=1e-6)
    return Blur(cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r), boundary)


def load(path: str | Path, boundary: str = "reflect") -> Blur:
    """The PSF of a file: ``.npy``, ``.safetensors`` with one tensor, or a picture (channels are averaged).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or holds no PSF.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a PSF (.npy, .safetensors or a picture), got no such file; check the path")
    try:
        if path.suffix == ".npy":
            return Blur(torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float64)), boundary)
        if path.suffix == ".safetensors":
            (psf,) = load_file(path).values()
            return Blur(psf, boundary)
        return Blur(read_image(path).double().mean(0), boundary)
    except Exception as error:  # damaged files make the readers fail in every way there is
        raise ValueError(f"{path}: expected one PSF as a matrix, got a file that gives none ({error}); make it anew") from error


def _positive(where: str, **values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{where} {name}: expected a positive number, got {value}")


def _grid(radius: int) -> tuple[Tensor, Tensor]:
    """Upward and rightward distance from the middle pixel, float64."""
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    return -at[:, None].expand(-1, len(at)), at.expand(len(at), -1)


def _path(up: Tensor, right: Tensor) -> Tensor:
    """The PSF of equal weights at points, each shared among the four nearest pixels bilinearly."""
    radius = math.ceil(max(float(up.abs().max()), float(right.abs().max())))
    at = torch.arange(-radius, radius + 1, dtype=torch.float64)
    rows, columns = ((1 - (at[:, None] - points).abs()).clamp(min=0) for points in (-up, right))
    return rows @ columns.T
