r"""Resizing to smaller and larger sizes, as ``torch.nn.functional.interpolate`` does it without antialiasing.

The operator is :math:`A(x) = R\,x\,C^\top` with the matrices of ``_resampling`` for the library ``torch``: ``box`` is the mode
``area``, ``bilinear`` and ``bicubic`` (a = -3/4) are those modes. Real-ESRGAN (arXiv:2107.10833) and BSRGAN (arXiv:2103.14006)
enlarge and reduce images at random on the way, and in the end bring them to the size that is wanted: ``Resize`` is the former,
``Fit`` the latter.
"""

import math
from fractions import Fraction
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from degradations._resampling import matrix
from degradations.downscale import _sandwich
from pulse_framework.interfaces import LinearDegradation

__all__ = ["Fit", "Resize"]

KERNELS = ("box", "bilinear", "bicubic")


class Resize(LinearDegradation):
    """Resizing: (C, H, W) to (C, scale H, scale W), rounded down, at least one pixel each.

    Enlarging with the bicubic kernel can take A of an image in [0, 1] a little out of [0, 1].

    Args:
        scale: Pixels of the measurement per pixel of the image; 2 doubles the sides. A float stands for the nearest fraction with
            a denominator of at most 1000. Give this or the factor.
        factor: Its inverse: 2 halves the sides.
        kernel: ``box``, ``bilinear`` or ``bicubic``.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: Neither or both of scale and factor are given, or it is not positive and finite; there is no such kernel.
    """

    gap = 0.5 / 255

    def __init__(self, scale: float | str | None = None, factor: float | str | None = None, kernel: str = "bicubic") -> None:
        super().__init__()
        if (scale is None) == (factor is None):
            raise ValueError(f"{type(self).__name__}: expected either scale or factor, got {scale} and {factor}; give one")
        if kernel not in KERNELS:
            raise ValueError(f"{type(self).__name__} kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}")
        self.scale = _positive("scale", scale) if scale is not None else 1 / _positive("factor", factor or 0)
        self.kernel = kernel

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, scale H, scale W), rounded down."""
        channels, height, width = image_shape
        return channels, *self._size(height, width)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        """A(x), in the dtype and on the device of x.

        Raises:
            TypeError: x is not of floats.
        """
        rows, columns = self._matrices(x.shape[-2], x.shape[-1], x)
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
            name = type(self).__name__
            raise ValueError(f"{name} adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape")
        rows, columns = self._matrices(image_shape[1], image_shape[2], y)
        return _sandwich(rows.mT, y, columns)

    def extra_repr(self) -> str:
        """Scale and kernel."""
        return f"scale={self.scale}, kernel={self.kernel}"

    def _size(self, height: int, width: int) -> tuple[int, int]:
        return max(1, math.floor(height * self.scale)), max(1, math.floor(width * self.scale))

    def _matrices(self, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        if not like.is_floating_point():
            raise TypeError(
                f"{type(self).__name__}: expected a tensor of floats, got {like.dtype}; convert it to floats in [0, 1]"
            )
        sides = zip((height, width), self._size(height, width), strict=True)
        rows, columns = (_matrix(side, made, self.kernel, like.dtype, like.device) for side, made in sides)
        return rows, columns


class Fit(Resize):
    """In a chain: resizing to the size of the chain's image times the scale, whatever the parts before made of it.

    By itself it is ``Resize``.

    Args:
        scale: Pixels of the measurement per pixel of the chain's image. Give this or the factor.
        factor: Its inverse.
        kernel: ``box``, ``bilinear`` or ``bicubic``.
        times: The size is that many times larger than scale or factor say.

    Raises:
        ValueError: As ``Resize``, or ``times`` is not positive and finite.
    """

    def __init__(
        self,
        scale: float | str | None = None,
        factor: float | str | None = None,
        kernel: str = "bicubic",
        times: float | str = 1,
    ) -> None:
        super().__init__(scale, factor, kernel)
        self.scale *= _positive("times", times)

    def of(self, image_shape: tuple[int, int, int]) -> Resize:
        """What it is in a chain whose image has this shape."""
        return _To(self._size(*image_shape[1:]), self.kernel)


class _To(Resize):
    """Resizing to a given size."""

    def __init__(self, size: tuple[int, int], kernel: str) -> None:
        super().__init__(1, kernel=kernel)
        self._made = size

    def _size(self, height: int, width: int) -> tuple[int, int]:
        return self._made


@lru_cache(maxsize=64)
def _matrix(side: int, made: int, kernel: str, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix of one axis, computed in float64 and then rounded."""
    entries = matrix(side, Fraction(side, made), kernel, "torch")
    with torch.inference_mode(False):  # the cached tensor must serve autograd, whoever asks first
        return torch.from_numpy(entries).to(device=device, dtype=dtype)


def _positive(name: str, value: float | str) -> Fraction:
    try:
        number = Fraction(value)
    except (ValueError, OverflowError, ZeroDivisionError) as error:
        raise ValueError(f"Resize {name}: expected a finite number above 0, got {value!r}") from error
    if number <= 0:
        raise ValueError(f"Resize {name}: expected a finite number above 0, got {value!r}")
    return number.limit_denominator(1000) if isinstance(value, float) else number
