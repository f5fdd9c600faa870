r"""Downscaling: PULSE's antialiased bicubic (Menon et al., CVPR 2020, arXiv:2003.03808), and that of other libraries.

The operator is separable, :math:`A(x) = R\,x\,C^\top`, with explicit matrices whose rows sample a kernel; see ``_resampling`` for
the kernels and for what the libraries do differently. Each row sums to 1, so constants are preserved. Factor 1 is the identity.
"""

import math
from fractions import Fraction
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from degradations._resampling import LIBRARIES, matrix, rational, samples
from pulse_framework.interfaces import LinearDegradation

__all__ = ["Downscale"]


class Downscale(LinearDegradation):
    """Downscaling by any rational factor of at least 1: (C, H, W) to (C, H / factor, W / factor), rounded down (MATLAB: up).

    Kernels with negative lobes (bicubic, Lanczos) can take A of an image in [0, 1] a little out of [0, 1] near edges.

    Args:
        factor: Pixels of the image per pixel of the measurement, along each axis: an integer, a fraction, text such as
            ``"32/5"`` or ``"6.4"``, or a float, which stands for the nearest fraction with a denominator of at most 1000.
        kernel: ``nearest``, ``box``, ``bilinear``, ``bicubic``, ``lanczos2``, ``lanczos3`` or ``gaussian``.
        library: Whose conventions: ``pulse``, ``pil``, ``torch``, ``torch_antialias`` or ``matlab``.
        a: Parameter of the bicubic kernel; None is the library's.
        sigma: Standard deviation of the Gaussian kernel, in pixels of the measurement.

    Attributes:
        factor: The factor, exactly.
        gap: Half of an 8-bit level, in image units.

    Raises:
        TypeError: The factor is none of these.
        ValueError: The factor is not a number, not finite or below 1; sigma is not positive; there is no such library, or it has
            no such kernel.
    """

    gap = 0.5 / 255

    def __init__(
        self,
        factor: int | float | str | Fraction,
        kernel: str = "bicubic",
        library: str = "pulse",
        a: float | None = None,
        sigma: float = 0.5,
    ) -> None:
        super().__init__()
        self.factor = rational("Downscale", factor)
        if library not in LIBRARIES:
            raise ValueError(f"Downscale library: expected one of {', '.join(LIBRARIES)}, got {library!r}")
        known = LIBRARIES[library].kernels
        if kernel not in known:
            raise ValueError(
                f"Downscale kernel: expected one that the library {library} has ({', '.join(known)}), got {kernel!r}"
            )
        self.kernel, self.library = kernel, library
        if not sigma > 0:
            raise ValueError(f"Downscale sigma: expected a positive standard deviation in measurement pixels, got {sigma}")
        self.a, self.sigma = a, sigma

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H / factor, W / factor), rounded down, or up by MATLAB.

        Raises:
            ValueError: The image is smaller than the factor along an axis.
        """
        channels, height, width = image_shape
        h, w = (samples(side, self.factor, self.library) for side in (height, width))
        if min(height, width) < self.factor:
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
        """Factor, kernel and library."""
        return f"factor={self.factor}, kernel={self.kernel}, library={self.library}"

    def _matrices(self, image_shape: tuple[int, int, int], like: Tensor) -> tuple[Tensor, Tensor]:
        """R and C for images of this shape, in the dtype and on the device of ``like``."""
        self.measurement_shape(image_shape)
        if not like.is_floating_point():
            raise TypeError(f"Downscale: expected a tensor of floats, got {like.dtype}; convert it to floats in [0, 1]")
        _, height, width = image_shape
        how = (self.factor, self.kernel, self.library, self.a, self.sigma)
        return tuple(_matrix(side, how, like.dtype, like.device) for side in (height, width))  # type: ignore[return-value]


def _sandwich(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """Multiply every image by a matrix on each side.

    One image at a time, because matrix products of a whole batch round differently for different batch sizes, and an
    image's result must not depend on the others by a single bit.
    """
    if len(x) == 0:
        return x.new_empty(0, x.shape[1], left.shape[0], right.shape[1])
    return torch.stack([left @ image @ right for image in x.contiguous()])


@lru_cache(maxsize=16)
def _matrix(side: int, how: tuple[Fraction, str, str, float | None, float], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The matrix of one axis, computed in float64 and then rounded."""
    factor, kernel, library, a, sigma = how
    made = matrix(side, factor, kernel, library, a, sigma)
    with torch.inference_mode(False):  # the cached tensor must serve autograd, whoever asks first
        return torch.from_numpy(made).to(device=device, dtype=dtype)
