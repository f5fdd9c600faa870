r"""A photo's pixels of an aligned image: a similarity or affine transform, :math:`A(x)(p) = \sum_q k(F(q - L p - t))\, x(q)`.

A face in a photo is turned, moved and small. Alignment makes of it an upright image x, which a generator can make, and A goes
the other way: to the photo's own pixels, so that a face of 20 pixels is a measurement of 20 pixels and nothing that was
interpolated is compared. Where a pixel of the photo is larger than one of x the kernel k is as large as it and A averages; see
``pulse_framework.affine``. The mask says which of the photo's pixels x covers.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.affine import KERNELS, Taps, apply, taps, transpose
from pulse_framework.interfaces import LinearDegradation

__all__ = ["Warp"]


class Warp(LinearDegradation):
    """What part of a photo shows an image that lies in it: (C, H, W) to (C, height, width).

    Bicubic and Lanczos kernels can take A of an image in [0, 1] a little out of [0, 1] near edges. A and the mask are 0 wherever
    a pixel does not lie in the image as a whole, and so has to be the photo that is the measurement. Which pixels those are does
    not depend on the image's size.

    Args:
        corners: Where the image's top left, top right and bottom left corners lie in the measurement: three points (x, y) in
            pixels of the measurement, from its outer corner, so that the centre of its first pixel is (0.5, 0.5). They may lie
            outside.
        height: Of the measurement, in pixels.
        width: Of the measurement, in pixels.
        kernel: ``bicubic``, ``bilinear`` or ``lanczos3``.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: The corners are not three finite points that span an area; the measurement has no pixels; no such kernel.
    """

    gap = 0.5 / 255

    def __init__(self, corners: Sequence[Sequence[float]], height: int, width: int, kernel: str = "bicubic") -> None:
        super().__init__()
        points = np.array([[float(value) for value in point] for point in corners])
        if points.shape != (3, 2) or not np.isfinite(points).all() or abs(np.linalg.det(points[1:] - points[0])) < 1e-6:
            raise ValueError(
                "Warp corners: expected three points (x, y), top left, top right and bottom left, that span an area, got"
                f" {points.tolist()}; correct them"
            )
        if min(height, width) < 1:
            raise ValueError(f"Warp: expected a measurement of at least 1 x 1, got {height} x {width} (height x width)")
        if kernel not in KERNELS:
            raise ValueError(f"Warp kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}")
        self.corners: tuple[tuple[float, ...], ...] = tuple(map(tuple, points.tolist()))
        self.height, self.width, self.kernel = height, width, kernel

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, height, width).

        Raises:
            ValueError: The image covers no pixel of the measurement.
        """
        self._taps(image_shape, torch.empty(0))
        return image_shape[0], self.height, self.width

    def mask(self, image_shape: tuple[int, int, int]) -> Float[Tensor, "1 h w"]:
        """1 where a pixel of the measurement lies wholly in the image, float32 on the CPU.

        Raises:
            ValueError: The image covers no pixel of the measurement.
        """
        return self._taps(image_shape, torch.empty(0)).covered[None].float()

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C h w"]:
        """A(x), in the dtype and on the device of x.

        Raises:
            TypeError: x is not of floats.
        """
        matrix = self._taps((x.shape[1], x.shape[2], x.shape[3]), x)
        if len(x) == 0:
            return x.new_empty(0, x.shape[1], self.height, self.width)
        return torch.stack([apply(image, matrix) for image in x])

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C h w"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits, as it is when saved; nothing is drawn from ``rng``."""
        del rng
        return (self(x).clamp(0, 1) * 255).round() / 255

    def adjoint(self, y: Float[Tensor, "N C h w"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """Transpose of A.

        Raises:
            ValueError: ``y`` is not of the measurement shape of such images.
        """
        expected = self.measurement_shape(image_shape)
        if tuple(y.shape[1:]) != expected:
            raise ValueError(f"Warp adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape")
        matrix = self._taps(image_shape, y)
        return torch.stack([transpose(row, matrix) for row in y]) if len(y) else y.new_empty(0, *image_shape)

    def extra_repr(self) -> str:
        """Corners, size and kernel."""
        return f"corners={self.corners}, height={self.height}, width={self.width}, kernel={self.kernel}"

    def _taps(self, image_shape: tuple[int, int, int], like: Tensor) -> Taps:
        """The matrix for images of this shape, in the dtype and on the device of ``like``."""
        if not like.is_floating_point():
            raise TypeError(f"Warp: expected a tensor of floats, got {like.dtype}; convert it to floats in [0, 1]")
        where = (self.corners, self.height, self.width, self.kernel)
        return _matrix(where, (image_shape[1], image_shape[2]), like.dtype, like.device)


_Where = tuple[tuple[tuple[float, ...], ...], int, int, str]


@lru_cache(maxsize=64)
def _matrix(where: _Where, size: tuple[int, int], dtype: torch.dtype, device: torch.device) -> Taps:
    """The matrix of A, with nothing outside of the covered pixels, computed in float64 and then rounded."""
    (first, right, below), height, width, kernel = where
    to_photo = np.stack([np.subtract(right, first) / size[1], np.subtract(below, first) / size[0]], 1)
    to_image = np.linalg.inv(to_photo)
    with torch.inference_mode(False):  # the cached tensors must serve autograd, whoever asks first
        made = taps(np.column_stack([to_image, -to_image @ first]), size, (height, width), kernel)
        if not bool(made.covered.any()):
            raise ValueError(
                f"Warp: expected an image that covers a pixel of {height} x {width} (height x width), got one with the corners"
                f" {where[0]}; correct them"
            )
        weight = torch.where(made.covered.flatten()[:, None], made.weight, 0)
        return replace(made, index=made.index.to(device), weight=weight.to(device=device, dtype=dtype))
