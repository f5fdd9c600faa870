r"""Alignment as of FFHQ: an oriented square of the photo, from the eyes and the mouth.

Karras, Laine and Aila, "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019, arXiv:1812.04948,
appendix A, and the program of the data set. With e the vector from eye to eye, m that from the middle of the eyes to the middle
of the mouth and R(a, b) = (-b, a), a turn by a right angle,

.. math:: u = e - R m, \quad x = \frac{u}{|u|} \max(2 |e|, 1.8 |m|), \quad y = R x, \quad c = \text{middle of the eyes} + 0.1\, m,

and the square is :math:`c \pm x \pm y`. Where it leaves the photo, the photo is continued by reflection, which is blurred and
fades to the median colour with the distance. FFHQ's program samples bilinearly at four times the size and then reduces it with a
Lanczos filter; here one resampling with a Lanczos kernel does both, to a fraction of a pixel. Its half pixel is kept: a landmark
in pixel i lies at i + 1/2. (Photos of faces larger than four times the crop it first shrinks by a whole n, and is (n - 1) / 2
pixels of the photo off then. This is not.)
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pulse_framework.affine import covered, invert, resample
from pulse_framework.faces.face import Face

__all__ = ["FFHQ", "Framing", "Square", "crop", "place"]

_KERNEL = "lanczos3"
_LARGEST = 8
"""Of a square's side, in longer sides of its photo."""
_BOX_SIDE, _BOX_DOWN = 1.85, -0.2
"""Of a square over a detector's box, in sides of the box, where there are no landmarks: for faces that look ahead."""


@dataclass(frozen=True)
class Square:
    """An oriented square of a photo.

    Attributes:
        centre: (x, y), in pixels of the photo.
        axis: From the centre to the middle of the right side, (x, y), so half a side long; (1, 0) where the face is upright.
    """

    centre: tuple[float, float]
    axis: tuple[float, float]

    @property
    def side(self) -> float:
        """In pixels of the photo."""
        return 2 * float(np.hypot(*self.axis))

    @property
    def degrees(self) -> float:
        """How far it is turned, clockwise in the picture."""
        return float(np.degrees(np.arctan2(self.axis[1], self.axis[0])))

    @property
    def corners(self) -> np.ndarray:
        """Top left, top right and bottom left, (3, 2), which the degradation ``warp`` takes."""
        centre, x = np.array(self.centre), np.array(self.axis)
        y = np.array([-x[1], x[0]])
        return np.stack([centre - x - y, centre + x - y, centre - x + y])

    def matrix(self, size: int) -> np.ndarray:
        """From points of a crop of size x size pixels to points of the photo, (2, 3)."""
        first, right, below = self.corners
        return np.column_stack([(right - first) / size, (below - first) / size, first])

    def window(self, height: int, width: int, margin: float = 0.0) -> tuple[int, int, int, int]:
        """Rows and columns of the photo that the square touches: top, left, bottom, right, the last two not included.

        Args:
            height: Of the photo, in pixels.
            width: Of the photo.
            margin: Pixels more on every side.

        Raises:
            ValueError: The square lies outside of the photo.
        """
        reach = abs(self.axis[0]) + abs(self.axis[1]) + margin
        (x, y), bounds = self.centre, (height, width)
        low = [max(0, int(np.floor(at - reach))) for at in (y, x)]
        high = [min(bound, int(np.ceil(at + reach))) for at, bound in zip((y, x), bounds, strict=True)]
        if low[0] >= high[0] or low[1] >= high[1]:
            raise ValueError(
                f"face: expected a square that touches the photo of {height} x {width} (height x width), got one with the centre"
                f" {self.centre} and the side {self.side:.1f}; check the box or the landmarks"
            )
        return low[0], low[1], high[0], high[1]

    def moved(self, x: float, y: float) -> "Square":
        """The same square where the photo's first pixel is at (-x, -y), as after cropping or padding the photo."""
        return replace(self, centre=(self.centre[0] + x, self.centre[1] + y))

    def scaled(self, factor: float) -> "Square":
        """The same square in the photo enlarged by a factor."""
        (cx, cy), (ax, ay) = self.centre, self.axis
        return Square((cx * factor, cy * factor), (ax * factor, ay * factor))


@dataclass(frozen=True)
class Framing:
    """How a generator's images lie about their subject.

    Attributes:
        by: ``ffhq``, by eyes and mouth; ``centre``, the largest square in the middle of the photo, for what has no landmarks.
        scale: Side of the square over that of FFHQ; above 1 the crop is looser.
        down: How much lower the centre lies, in sides of FFHQ's square.

    Raises:
        ValueError: There is no such way, or the scale is not positive.
    """

    by: Literal["ffhq", "centre"] = "ffhq"
    scale: float = 1.0
    down: float = 0.0

    def __post_init__(self) -> None:
        if self.by not in ("ffhq", "centre"):
            raise ValueError(f"framing by: expected ffhq or centre, got {self.by!r}; correct it")
        if not (0 < self.scale < np.inf and np.isfinite(self.down)):
            raise ValueError(f"framing: expected a positive scale and a finite number down, got {self.scale} and {self.down}")

    def square(self, face: Face) -> Square:
        """Where a face is to be cut out; by its box if there are no landmarks, upright then.

        Raises:
            ValueError: The landmarks lie in one point, or this framing has nothing to do with faces.
        """
        if self.by != "ffhq":
            raise ValueError("framing: expected one by ffhq for a face, got centre; use middle")
        base = _by_box(face) if face.five is None else _by_landmarks(face.five)
        x = np.array(base.axis)
        centre = np.array(base.centre) + 2 * self.down * np.array([-x[1], x[0]])
        return Square(_pair(centre), _pair(self.scale * x))

    @staticmethod
    def middle(height: int, width: int) -> Square:
        """The largest upright square in the middle of a photo."""
        return Square((width / 2, height / 2), (min(height, width) / 2, 0.0))


FFHQ = Framing()
"""The alignment of FFHQ, and of all generators trained on it."""


def crop(photo: Float[Tensor, "C H W"], square: Square, size: int) -> Float[Tensor, "C size size"]:
    """The square of a photo as an upright picture, not clamped.

    Args:
        photo: Floats.
        square: It may leave the photo.
        size: Pixels a side of the result.

    Raises:
        TypeError: The photo is not of floats.
        ValueError: The size is below 1, or the square lies outside of the photo or is more than 8 times as large.
    """
    if not photo.is_floating_point():
        raise TypeError(f"crop: expected a photo of floats, got {photo.dtype}; convert it to floats in [0, 1]")
    if size < 1:
        raise ValueError(f"crop size: expected at least 1 pixel, got {size}")
    height, width = photo.shape[-2:]
    if not square.side <= _LARGEST * max(height, width):
        raise ValueError(
            f"crop: expected a square of at most {_LARGEST} times the photo's {height} x {width} (height x width), got a side of"
            f" {square.side:.4g}; check the box or the landmarks"
        )
    border = max(round(square.side * 0.1), 3)
    top, left, bottom, right = square.window(height, width, border)
    part, square = photo[..., top:bottom, left:right], square.moved(-left, -top)
    part, (x, y) = _continued(part, square, border)
    square = square.moved(x, y)
    return resample(part, square.matrix(size), (size, size), _KERNEL)


def place(
    image: Float[Tensor, "C size size"], square: Square, height: int, width: int
) -> tuple[Float[Tensor, "C height width"], Float[Tensor, "1 height width"]]:
    """The inverse of ``crop``: an upright picture where it lies in a photo, and which of the photo's pixels it covers.

    Args:
        image: Floats.
        square: Where it lies.
        height: Of the photo, or of the part of it that is wanted, to which the square was ``moved``.
        width: Likewise.

    Returns:
        The picture, 0 where it does not reach, and a mask: 1 for pixels that lie wholly in it, else 0.
    """
    size = (image.shape[-2], image.shape[-1])
    matrix = invert(square.matrix(size[1]))
    mask = covered(matrix, size, (height, width))[None].to(image)
    return resample(image, matrix, (height, width), _KERNEL) * mask, mask


def _by_landmarks(five: np.ndarray) -> Square:
    left, right, _, mouth_left, mouth_right = five
    eyes, e = (left + right) / 2, right - left
    m = (mouth_left + mouth_right) / 2 - eyes
    u = e - np.array([-m[1], m[0]])
    length = float(np.hypot(*u))
    if length < 1e-6:
        raise ValueError(f"face landmarks: expected eyes and mouth apart, got all of them at {_pair(eyes)}; correct them")
    x = u / length * max(2.0 * np.hypot(*e), 1.8 * np.hypot(*m))
    return Square(_pair(eyes + 0.1 * m), _pair(x))


def _by_box(face: Face) -> Square:
    left, top, right, bottom = face.box
    side = (right - left + bottom - top) / 2
    return Square(((left + right) / 2, (top + bottom) / 2 + _BOX_DOWN * side), (_BOX_SIDE * side / 2, 0.0))


def _continued(part: Tensor, square: Square, border: int) -> tuple[Tensor, tuple[int, int]]:
    """The part of the photo with what it lacks of the square, and how far that moves the square."""
    (height, width), (x, y) = part.shape[-2:], square.centre
    reach = abs(square.axis[0]) + abs(square.axis[1])
    lack = (reach - x, reach - y, x + reach - width, y + reach - height)  # on the left, top, right, bottom
    if max(lack) <= 0:
        return part, (0, 0)
    left, top, right, bottom = (max(int(np.ceil(side)) + border, round(square.side * 0.3), 1) for side in lack)
    rows, columns = (_reflected(side, before, after) for side, before, after in ((height, top, bottom), (width, left, right)))
    padded = part[..., rows, :][..., columns]
    h, w = padded.shape[-2:]
    i, j = torch.arange(h, dtype=torch.float64)[:, None], torch.arange(w, dtype=torch.float64)[None]
    inwards = torch.minimum(torch.minimum(i / top, (h - 1 - i) / bottom), torch.minimum(j / left, (w - 1 - j) / right))
    outside = (1 - inwards).to(padded)
    blurred = padded + (_blurred(padded, square.side * 0.02) - padded) * (3 * outside + 1).clamp(0, 1)
    median = blurred.flatten(1).median(1).values[:, None, None]
    return blurred + (median - blurred) * outside.clamp(0, 1), (left, top)


def _reflected(side: int, before: int, after: int) -> Tensor:
    """Indices that continue an axis by reflection at its outermost pixels, as often as it takes."""
    period = max(2 * (side - 1), 1)
    at = torch.arange(-before, side + after).remainder(period)
    return torch.minimum(at, period - at) if side > 1 else at * 0


def _blurred(picture: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, cut at four standard deviations."""
    radius = max(1, int(4 * sigma + 0.5))
    t = torch.arange(-radius, radius + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (t / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(picture)
    for _ in range(2):
        wide = functional.pad(picture[:, None], (radius, radius, 0, 0), mode="replicate")
        picture = functional.conv2d(wide, kernel[None, None, None])[:, 0].mT
    return picture


def _pair(point: np.ndarray) -> tuple[float, float]:
    return float(point[0]), float(point[1])
