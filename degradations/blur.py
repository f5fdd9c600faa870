r"""Blur by any point spread function (PSF) k, the same for every channel and everywhere in the image.

.. math:: A(x)_p = \sum_q k_q \, \bar x_{p - (q - c)}, \qquad \sum_q k_q = 1, \qquad c = \lfloor \text{shape of } k / 2 \rfloor,

where :math:`\bar x` continues the image beyond its edges: ``reflect`` (at the outermost pixels, which are not doubled),
``circular``, ``replicate`` (the outermost pixel) or ``zero``. With E the matrix of the continuation and K that of the sum,
:math:`A = K E` and :math:`A^\top = E^\top K^\top`. All but the smallest PSFs go through the fast Fourier transform.

A parameter that is a number may also be a tensor of shape (), and a PSF may carry a graph: A(x) is then differentiable in them.
Such an operator serves one backward pass; make a new one for the next.

The sinc kernel is the ideal circular low-pass, :math:`k(r) = \omega J_1(\omega r) / (2 \pi r)` (Wang et al., "Real-ESRGAN", ICCVW
2021, arXiv:2107.10833, eq. 3).
"""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from degradations import _psf
from degradations._convolution import BOUNDARIES, convolve, extend, fold, spread
from degradations._psf import Scalar, integer, scalar
from degradations._rows import one_by_one
from pulse_framework.images import read_image
from pulse_framework.interfaces import LinearDegradation

__all__ = ["Blur", "box_blur", "defocus", "gaussian_blur", "load", "motion_blur", "sinc_blur", "trajectory_blur"]


class Blur(LinearDegradation):
    """Blur of images (C, H, W) of any size, which it keeps.

    A PSF with negative entries (sinc) can take A of an image in [0, 1] a little out of [0, 1].

    Args:
        psf: k, to be divided by its sum. It is what a single white pixel becomes, up to that factor.
        boundary: ``reflect``, ``circular``, ``replicate`` or ``zero``.

    Attributes:
        psf: k in float64 on the CPU, of sum 1, with the graph of what it was made from.
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: The PSF is not a matrix of finite numbers with a positive sum, or there is no such boundary.
    """

    gap = 0.5 / 255

    def __init__(self, psf: Float[Tensor, "h w"], boundary: str = "reflect") -> None:
        super().__init__()
        psf = psf.to("cpu", torch.float64)
        total = psf.detach().sum().item()
        if psf.ndim != 2 or not 0 < total < math.inf:
            raise ValueError(
                f"Blur psf: expected a matrix of finite numbers with a positive sum, got shape {tuple(psf.shape)} and sum"
                f" {total:.4g}; give the point spread function of one channel"
            )
        if boundary not in BOUNDARIES:
            raise ValueError(f"Blur boundary: expected one of {', '.join(BOUNDARIES)}, got {boundary!r}")
        self.psf, self.boundary = psf / psf.sum(), boundary
        (h, w), (down, right) = psf.shape, (psf.shape[0] // 2, psf.shape[1] // 2)
        self._margins = ((h - 1 - down, down), (w - 1 - right, right))

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x), in the dtype and on the device of x.

        Raises:
            TypeError: x is not of floats.
        """
        psf, (rows, columns) = self._psf_for(x), self._margins

        def blurred(image: Tensor) -> Tensor:
            wide = extend(image.to(psf.dtype), *columns, self.boundary)
            return convolve(extend(wide.mT, *rows, self.boundary).mT, psf).to(x.dtype)

        return one_by_one(blurred, x)

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
        psf, (rows, columns) = self._psf_for(y), self._margins

        def folded(image: Tensor) -> Tensor:
            wide = fold(spread(image.to(psf.dtype), psf).mT, *rows, self.boundary).mT
            return fold(wide, *columns, self.boundary).to(y.dtype)

        return one_by_one(folded, y)

    def extra_repr(self) -> str:
        """Size of the PSF, and the boundary."""
        return f"psf={self.psf.shape[0]}x{self.psf.shape[1]}, boundary={self.boundary}"

    def _psf_for(self, x: Tensor) -> Tensor:
        """The PSF on the device of x, in its dtype, but at least in float32: many small entries have to sum to 1."""
        if not x.is_floating_point():
            raise TypeError(f"Blur: expected a tensor of floats, got {x.dtype}; convert it to floats in [0, 1]")
        return self.psf.to(torch.promote_types(x.dtype, torch.float32)).to(x.device)


def gaussian_blur(sigma: Scalar, ratio: Scalar = 1.0, angle: Scalar = 0.0, boundary: str = "reflect") -> Blur:
    """Gaussian of standard deviation sigma along ``angle`` and ratio * sigma across, at the pixels' centres.

    It is cut off at four of the larger standard deviation, so that the PSF grows in steps of at most exp(-8) of its peak.

    Args:
        sigma: In pixels.
        ratio: 1 is isotropic.
        angle: Of the axis of sigma, in radians, anticlockwise from the horizontal.
        boundary: As for ``Blur``.

    Raises:
        TypeError: A parameter is no number and no tensor of shape ().
        ValueError: ``sigma`` or ``ratio`` is not positive, or the angle is not finite.
    """
    where = "gaussian_blur"
    widths = scalar(where, "sigma", sigma, above=0), scalar(where, "ratio", ratio, above=0)
    return Blur(_psf.gaussian(*widths, scalar(where, "angle", angle)), boundary)


def motion_blur(length: Scalar, angle: Scalar = 0.0, boundary: str = "reflect") -> Blur:
    """Steady motion along a straight line.

    The PSF is the mean of 1024 points of the line, each shared among the four nearest pixels bilinearly. As a function of the
    angle it has a kink where the line is along an axis.

    Args:
        length: Of the line, in pixels.
        angle: In radians, anticlockwise from the horizontal.
        boundary: As for ``Blur``.

    Raises:
        TypeError: A parameter is no number and no tensor of shape ().
        ValueError: ``length`` is not positive, or the angle is not finite.
    """
    where = "motion_blur"
    return Blur(_psf.line(scalar(where, "length", length, above=0), scalar(where, "angle", angle)), boundary)


def trajectory_blur(length: Scalar, seed: int = 0, bend: Scalar = 2.0, boundary: str = "reflect") -> Blur:
    """Motion at a steady speed along a random curve, whose heading is a Brownian motion; its mean point stays in place.

    Args:
        length: Of the curve, in pixels.
        seed: The same seed gives the same curve, at every length.
        bend: Standard deviation of the heading's change from one end to the other, in radians; 0 is a straight line.
        boundary: As for ``Blur``.

    Raises:
        TypeError: A parameter is no number and no tensor of shape (), or the seed is no integer.
        ValueError: ``length`` is not positive, ``bend`` is not finite, or the seed is negative.
    """
    where = "trajectory_blur"
    path = scalar(where, "length", length, above=0), scalar(where, "bend", bend)
    return Blur(_psf.trajectory(*path, integer(where, "seed", seed, least=0)), boundary)


def defocus(radius: Scalar, boundary: str = "reflect") -> Blur:
    """A disk, whose edge falls off linearly over one pixel: radius + 1/2 - r, clamped to [0, 1], r from the middle.

    That is the part of a pixel that the disk covers where its edge runs along an axis, and nearly so elsewhere. A radius of at
    most half a pixel blurs nothing.

    Args:
        radius: In pixels.
        boundary: As for ``Blur``.

    Raises:
        TypeError: The radius is no number and no tensor of shape ().
        ValueError: It is not positive.
    """
    return Blur(_psf.disk(scalar("defocus", "radius", radius, above=0)), boundary)


def box_blur(size: int, boundary: str = "reflect") -> Blur:
    """Mean of ``size`` x ``size`` pixels; an even size reaches one pixel further up and to the left in the PSF.

    Raises:
        TypeError: ``size`` is no integer.
        ValueError: It is below 1.
    """
    return Blur(torch.ones(integer("box_blur", "size", size), size), boundary)


def sinc_blur(cutoff: Scalar, size: int = 21, boundary: str = "reflect") -> Blur:
    """The circular low-pass, which rings at edges.

    Args:
        cutoff: omega, in radians per pixel; pi is the highest frequency along an axis.
        size: Side of the PSF, odd.
        boundary: As for ``Blur``.

    Raises:
        TypeError: ``cutoff`` is no number and no tensor of shape (), or ``size`` is no integer.
        ValueError: ``cutoff`` is not in (0, pi], or ``size`` is not positive and odd.
    """
    omega = scalar("sinc_blur", "cutoff", cutoff, above=0)
    if omega.item() > math.pi or integer("sinc_blur", "size", size) % 2 == 0:
        raise ValueError(f"sinc_blur: expected cutoff in (0, pi] and an odd size, got {omega.item()} and {size}; change them")
    return Blur(_psf.sinc(omega, size), boundary)


def load(path: str | Path, boundary: str = "reflect") -> Blur:
    """The PSF of a file: ``.npy``, ``.safetensors`` with one tensor, or a picture, whose values, averaged over channels, are k.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, or holds no PSF; there is no such boundary.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a PSF (.npy, .safetensors or a picture), got no such file; check the path")
    try:
        if path.suffix == ".npy":
            psf = torch.from_numpy(np.load(path, allow_pickle=False).astype(np.float64, casting="same_kind"))
        elif path.suffix == ".safetensors":
            (psf,) = load_file(path).values()
        else:
            psf = read_image(path).double().mean(0)
    except Exception as error:  # damaged files make the readers fail in every way there is
        raise ValueError(f"{path}: expected one PSF as a matrix, got a file that gives none ({error}); make it anew") from error
    try:
        return Blur(psf, boundary)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
