r"""Antialiased bicubic downscaling, as in PULSE (Menon et al., CVPR 2020, arXiv 2003.03808).

The operator is separable, :math:`A(x) = R\,x\,C^\top`. Row i of R (and of C) samples Keys' cubic kernel with
:math:`a = -1/2`, stretched by the factor f,

.. math:: R_{ip} \propto k\big((p - c_i) / f\big), \qquad c_i = (i + 1/2) f - 1/2, \qquad \sum_p R_{ip} = 1,

over the taps p with :math:`|p - c_i| < 2 f`; taps outside of the image are folded back by reflection. An even integer f gives
the 4 f taps, the padding of 3 f and the stride f of the published operator. For an odd one the published operator splits its
padding unevenly, which puts :math:`c_i` half a pixel further, at :math:`(i + 1/2) f`; so does this one. Factor 1 is the identity.

Reference for the kernel: Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6), 1981.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import LinearDegradation

__all__ = ["Downscale"]


class Downscale(LinearDegradation):
    """Bicubic downscaling by any rational factor of at least 1: (C, H, W) to (C, floor(H / factor), floor(W / factor)).

    Constants are preserved. The kernel has negative lobes, so A of an image in [0, 1] can leave [0, 1] a little near edges.

    Args:
        factor: Pixels of the image per pixel of the measurement, along each axis: an integer, a fraction, text such as
            ``"32/5"`` or ``"6.4"``, or a float, which stands for the nearest fraction with a denominator of at most 1000.

    Attributes:
        factor: The factor, exactly.
        gap: Half of an 8-bit level, in image units.

    Raises:
        TypeError: The factor is none of these.
        ValueError: The factor is not a number, not finite or below 1.
    """

    gap = 0.5 / 255

    def __init__(self, factor: int | float | str | Fraction) -> None:
        super().__init__()
        self.factor = _rational(factor)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, floor(H / factor), floor(W / factor)).

        Raises:
            ValueError: The image is smaller than the factor along an axis.
        """
        channels, height, width = image_shape
        h, w = math.floor(height / self.factor), math.floor(width / self.factor)
        if min(h, w) < 1:
            raise ValueError(
                f"Downscale: expected images of at least {math.ceil(self.factor)} pixels a side for the factor {self.factor},"
                f" got {height} x {width} (height x width); use a smaller factor or larger images"
            )
        return channels, h, w

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        """A(x), in the dtype and on the device of x.

        Raises:
            ValueError: The images are smaller than the factor.
        """
        rows, columns = self._matrices((x.shape[-3], x.shape[-2], x.shape[-1]), x)
        return _sandwich(rows, x, columns.mT)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C h w"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits, as it is when saved; nothing is drawn from ``rng``."""
        del rng
        return (self(x).clamp(0, 1) * 255).round() / 255

    def adjoint(self, y: Float[Tensor, "N C h w"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        r"""Transpose of A, :math:`R^\top y\, C`.

        Raises:
            ValueError: ``y`` is not of the measurement shape of such images.
        """
        expected = self.measurement_shape(image_shape)
        if tuple(y.shape[1:]) != expected:
            raise ValueError(f"Downscale adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape")
        rows, columns = self._matrices(image_shape, y)
        return _sandwich(rows.mT, y, columns)

    def extra_repr(self) -> str:
        """The factor."""
        return f"factor={self.factor}"

    def _matrices(self, image_shape: tuple[int, int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """R and C for images of this shape, in the dtype and on the device of ``like``."""
        self.measurement_shape(image_shape)
        if not like.is_floating_point():
            raise TypeError(f"Downscale: expected a tensor of floats, got {like.dtype}; convert it to floats in [0, 1]")
        _, height, width = image_shape
        return tuple(_matrix(side, self.factor, like.dtype, like.device) for side in (height, width))  # type: ignore[return-value]


def _sandwich(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """Multiply every image by a matrix on each side.

    One image at a time, because matrix products of a whole batch round differently for different batch sizes, and an
    image's result must not depend on the others by a single bit.
    """
    if len(x) == 0:
        return x.new_empty(0, x.shape[1], left.shape[0], right.shape[1])
    return torch.stack([left @ image @ right for image in x.contiguous()])


@lru_cache(maxsize=16)
def _matrix(side: int, factor: Fraction, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix of one axis, (floor(side / factor), side), computed in float64 and then rounded."""
    count, f = math.floor(side / factor), float(factor)
    offset = Fraction(0) if factor.denominator == 1 and factor % 2 == 1 and factor > 1 else Fraction(-1, 2)
    centres = np.array([float((i + Fraction(1, 2)) * factor + offset) for i in range(count)])
    reach = math.ceil(2 * f)
    taps = np.floor(centres).astype(np.int64)[:, None] + np.arange(-reach, reach + 2)
    values = _keys((taps - centres[:, None]) / f)
    matrix = np.zeros((count, side))
    np.add.at(matrix, (np.arange(count)[:, None], _reflect(taps, side)), values / values.sum(1, keepdims=True))
    with torch.inference_mode(False):  # the cached tensor must serve autograd, whoever asks first
        return torch.from_numpy(matrix).to(device=device, dtype=dtype)


def _keys(t: np.ndarray) -> np.ndarray:
    """Keys' cubic kernel with a = -1/2; zero from 2 on."""
    t = np.abs(t)
    near = 1.5 * t**3 - 2.5 * t**2 + 1
    far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))


def _reflect(index: np.ndarray, side: int) -> np.ndarray:
    """Fold indices into [0, side) by reflection at the outermost pixels, as often as needed."""
    period = max(2 * (side - 1), 1)
    index = index % period
    return np.minimum(index, period - index) if side > 1 else index


def _rational(factor: int | float | str | Fraction) -> Fraction:
    """The factor as an exact fraction of at least 1."""
    advice = 'give an integer, a float or text such as "32/5"'
    if isinstance(factor, bool) or not isinstance(factor, int | float | str | Fraction):
        raise TypeError(f"Downscale factor: expected a number of at least 1, got {type(factor).__name__}; {advice}")
    try:
        value = Fraction(factor)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"Downscale factor: expected a finite number of at least 1, got {factor!r}; {advice}") from error
    if value < 1:
        raise ValueError(f"Downscale factor: expected at least 1 (1 keeps the size), got {factor!r}; to enlarge is not its work")
    return value.limit_denominator(1000) if isinstance(factor, float) else value
