r"""JPEG, with a rounding that has a gradient: Annex K's tables scaled as libjpeg does, 4:4:4 or 4:2:0, images of any size.

With levels :math:`255 x`, the BT.601 transform :math:`T` of JFIF, its averaging of chroma by 2x2 :math:`P` (4:4:4: the identity),
fancy upsampling :math:`U` (triangle filter: 3/4 of the nearer sample and 1/4 of the farther one, along each axis), the
orthonormal 8x8 transform :math:`D` and the steps :math:`Q` of a table,

.. math:: 255\,A(x) = T^{-1} U D^\top \Big( Q \odot \big\lfloor D (P T\, 255 x - 128) \oslash Q \big\rceil \Big) + 128.

The rounding :math:`\lfloor c \rceil` is a surrogate:

- ``straight_through``: truly rounded, with the derivative of the identity. All other roundings and clamps of libjpeg are made
  too, so A is the codec but for a few coefficients on ties; its derivative is that of the codec without any rounding (Bengio
  et al., arXiv:1308.3432).
- ``leaky_cubic``: the same, with the derivative :math:`0.2 + 2.4 (c - r)^2`, r being the nearest integer, for that of rounding a
  coefficient (Poirier-Ginter & Lalonde, CVPR 2023, arXiv:2302.06733).
- ``cubic``: :math:`r + (c - r)^3` (Shin & Song, NeurIPS workshop 2017); the derivative is its own, and nearly 0 for coefficients
  near an integer, such as the many small ones. Nothing else is rounded or clamped.

A quality that is searched for comes as a tensor. A is that of the nearest integer q; it has no useful derivative in the quality,
so the secant :math:`(A_{q+5} - A_{q-5}) / 10` stands in, wide enough for roundings to average out.

The tables are those of ITU-T T.81, Annex K.1; edges, chroma samples and ties are libjpeg's (jcprepct.c, jcsample.c, jdsample.c).
"""

import io
import math
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional

from degradations._surrogates import ROUNDINGS, straight_through
from pulse_framework.interfaces import Degradation

__all__ = ["JPEG", "quantisation"]

SUBSAMPLINGS = ("4:4:4", "4:2:0")
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = "17 18 24 47 18 21 26 66 24 26 56 99 47 66 99 99"  # the upper left 4x4; all others are 99
_TO_YCC = ((19595, 38470, 7471), (-11058, -21710, 32768), (32768, -27439, -5329))  # of 65536, libjpeg's integers
_TO_RGB = ((65536, 0, 91881), (65536, -22554, -46802), (65536, 116130, 0))
_TIE, _PASS_TIE = 1e-5, 1e-3  # ties of integers must stay ties in float32
_ROOT = math.sqrt(8)
_STEP = 5
"""Of the quality, half of a secant's."""


def quantisation(quality: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Steps of luma and of chroma, 64 each, rows first: Annex K's, scaled by libjpeg's rule and kept in 1..255.

    Raises:
        ValueError: The quality is not an integer from 1 to 100.
    """
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise ValueError(f"JPEG quality: expected an integer from 1 to 100, got {quality!r}; 75 is common, 10 is bad")
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    corner = [int(step) for step in _CHROMA.split()]
    chroma = [corner[4 * i + j] if max(i, j) < 4 else 99 for i in range(8) for j in range(8)]
    luma = [int(step) for step in _LUMA.split()]
    scaled = [tuple(min(max((step * scale + 50) // 100, 1), 255) for step in table) for table in (luma, chroma)]
    return scaled[0], scaled[1]


class JPEG(Degradation):
    r"""JPEG of RGB or grey images: (C, H, W) to (C, H, W), C of 3 or 1. ``measure`` is Pillow's codec.

    Args:
        quality: From 1 to 100; or a float tensor of shape ().
        subsampling: ``4:4:4`` or ``4:2:0``, of chroma.
        rounding: ``straight_through``, ``leaky_cubic`` or ``cubic``, see above.

    Attributes:
        gap: In image units, from s, the root mean square of the tables' steps as errors of RGB levels. Truly rounded: a
            level, and one coefficient in 1024 that falls to the other side of a tie, s / 32. ``cubic``: one and a half levels,
            and twice the expected error of residues c - r that are uniform, :math:`s / (8 \sqrt 7)`. Noisy and smooth images of
            16x16 and more stay below at qualities from 5 to 95; it is no bound for every conceivable image.

    Raises:
        ValueError: There is no such quality, subsampling or rounding.
    """

    def __init__(self, quality: int | Tensor = 50, subsampling: str = "4:2:0", rounding: str = "straight_through") -> None:
        super().__init__()
        self.searched = quality if isinstance(quality, Tensor) else None
        quality = quality if not isinstance(quality, Tensor) else _nearest(quality)
        self.tables = quantisation(quality)
        if subsampling not in SUBSAMPLINGS:
            raise ValueError(f"JPEG subsampling: expected one of {', '.join(SUBSAMPLINGS)}, got {subsampling!r}")
        if rounding not in ROUNDINGS:
            raise ValueError(f"JPEG rounding: expected one of {', '.join(ROUNDINGS)}, got {rounding!r}")
        self.quality, self.subsampling, self.rounding = quality, subsampling, rounding
        self.surrogate = self._exact or self.searched is not None
        step = _step(*self.tables)
        self.gap = (1 + step / 32 if self._exact else 1.5 + 2 * step / (8 * math.sqrt(7))) / 255

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape.

        Raises:
            ValueError: The images are neither RGB nor grey.
        """
        if image_shape[0] not in (1, 3):
            raise ValueError(f"JPEG: expected images of 3 channels or 1, got {image_shape[0]}; convert them to RGB or grey")
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x), computed in float32 at least; one image at a time, so that its bits do not depend on the others.

        Raises:
            ValueError: The images are neither RGB nor grey.
        """
        self.measurement_shape((x.shape[1], x.shape[2], x.shape[3]))
        if len(x) == 0:
            return x
        levels = 255 * x.to(torch.promote_types(x.dtype, torch.float32)).contiguous()
        y = torch.cat([self._decoded(image) for image in levels.split(1)]).to(x.dtype) / 255
        if self.searched is None or not self.searched.requires_grad:
            return y
        return y + self._secant(x) * (self.searched - self.searched.detach()).to(x)

    def _secant(self, x: Tensor) -> Tensor:
        """The stand-in for the derivative in the quality."""
        low, high = (min(max(self.quality + step, 1), 100) for step in (-_STEP, _STEP))
        with torch.no_grad():
            below, above = (JPEG(quality, self.subsampling, self.rounding)(x) for quality in (low, high))
        return (above - below) / (high - low)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Saved as a JPEG file by Pillow and read again; nothing is drawn from ``rng``.

        Raises:
            ValueError: The images are neither RGB nor grey.
        """
        del rng
        self.measurement_shape((x.shape[1], x.shape[2], x.shape[3]))
        files = []
        for image in (x.detach().clamp(0, 1) * 255).round().to("cpu", torch.uint8):
            file = io.BytesIO()
            picture = Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy())
            picture.save(file, "JPEG", quality=self.quality, subsampling=self.subsampling)
            files.append(torch.from_numpy(np.array(Image.open(file))).reshape(*x.shape[2:], -1).permute(2, 0, 1))
        return (torch.stack(files).to(x.dtype) / 255).to(x.device) if files else x

    def extra_repr(self) -> str:
        """Quality, subsampling and rounding."""
        return f"quality={self.quality}, subsampling={self.subsampling}, rounding={self.rounding}"

    @property
    def _exact(self) -> bool:
        return self.rounding != "cubic"

    def _decoded(self, levels: Tensor) -> Tensor:
        """Levels of one image, encoded and decoded."""
        height, width = levels.shape[2:]
        levels = self._byte(levels)
        if levels.shape[1] == 1:
            return self._blocks(levels, self.tables[0])
        y, chroma = _mixed(_TO_YCC, levels).split((1, 2), 1)
        y, chroma = self._byte(y), self._byte(chroma + 128, -_TIE)
        y = self._blocks(y, self.tables[0])
        if self.subsampling == "4:4:4":
            chroma = self._blocks(chroma, self.tables[1])
        else:
            small = self._blocks(self._halved(chroma), self.tables[1])[..., : (width + 1) // 2]
            chroma = self._enlarged(small)[..., :height, :width]
        return self._byte(y + self._whole(_mixed(_TO_RGB, torch.cat([torch.zeros_like(y), chroma - 128], 1))))

    def _blocks(self, plane: Tensor, table: tuple[int, ...]) -> Tensor:
        """Planes (1, C, h, w) through transform, quantisation and back; edges are repeated to fill the last blocks."""
        _, channels, height, width = plane.shape
        plane = _padded(plane, -height % 8, -width % 8) - 128
        rows, columns = plane.shape[2] // 8, plane.shape[3] // 8
        D, steps = _transform(plane.dtype, plane.device), torch.tensor(table, dtype=plane.dtype, device=plane.device)
        steps = steps.reshape(8, 8)
        blocks = plane.reshape(channels, rows, 8, columns, 8).transpose(2, 3)
        across = self._fixed(blocks @ D.mT, 4 * _ROOT)
        coefficients = self._round(self._fixed(D @ across, 8) / steps) * steps
        down = self._fixed(D.mT @ coefficients, 4 * _ROOT)
        plane = (down @ D).transpose(2, 3).reshape(1, channels, 8 * rows, 8 * columns)
        return self._byte(plane + 128)[..., :height, :width]

    def _round(self, c: Tensor) -> Tensor:
        """The surrogate of rounding; ties go away from 0."""
        nearest = c.detach().sign() * (c.detach().abs() + 0.5 + _TIE).floor()
        return ROUNDINGS[self.rounding](nearest, c)

    def _fixed(self, c: Tensor, scale: float) -> Tensor:
        """Rounded to multiples of 1 / scale, as libjpeg's integer transform (jfdctint.c, jidctint.c) does after a pass."""
        return straight_through((c.detach() * scale + 0.5 + _PASS_TIE).floor() / scale, c) if self._exact else c

    def _whole(self, levels: Tensor, tie: float = _TIE) -> Tensor:
        """Rounded with the derivative 1, ties by ``tie``; unless roundings other than of coefficients are left out."""
        return straight_through((levels.detach() + 0.5 + tie).floor(), levels) if self._exact else levels

    def _byte(self, levels: Tensor, tie: float = _TIE) -> Tensor:
        """The same, clamped to 0..255 with the derivative 1."""
        return straight_through(self._whole(levels, tie).detach().clamp(0, 255), levels) if self._exact else levels

    def _halved(self, chroma: Tensor) -> Tensor:
        """Means of 2x2; columns repeated before the mean to fill blocks, rows after it. Ties alternate from column to column."""
        chroma = _padded(chroma, chroma.shape[2] % 2, -chroma.shape[3] % 16)
        means = functional.avg_pool2d(chroma, 2)
        if not self._exact:
            return means
        bias = torch.tensor([1.0, 2.0], dtype=means.dtype, device=means.device).repeat(means.shape[3] // 2) / 4
        return straight_through((means.detach() + bias).floor(), means)

    def _enlarged(self, chroma: Tensor) -> Tensor:
        """Twice the size by the triangle filter; by repetition where libjpeg finds the rows too short."""
        if chroma.shape[3] <= 2:
            return chroma.repeat_interleave(2, 2).repeat_interleave(2, 3)
        tall = _triangle(chroma.mT).mT
        wide = _triangle(tall)
        if not self._exact:
            return wide
        bias = torch.tensor([8.0, 7.0], dtype=wide.dtype, device=wide.device).repeat(chroma.shape[3]) / 16
        return straight_through((wide.detach() + bias).floor(), wide)


def _nearest(quality: Tensor) -> int:
    """The integer quality nearest to one that is searched for."""
    if quality.ndim or not quality.is_floating_point() or not 0.5 <= quality.item() <= 100.5:
        raise ValueError(f"JPEG quality: expected an integer or a float tensor of shape () from 1 to 100, got {quality!r}")
    return min(max(round(quality.item()), 1), 100)


def _step(luma: tuple[int, ...], chroma: tuple[int, ...]) -> float:
    """Root mean square error of RGB levels if every coefficient is a step wrong; subsampling can only lessen it."""
    squares = [sum(step**2 for step in table) / 64 for table in (luma, chroma, chroma)]
    weights = [sum((row[i] / 65536) ** 2 for row in _TO_RGB) / 3 for i in range(3)]
    return math.sqrt(sum(weight * square for weight, square in zip(weights, squares, strict=True)))


def _padded(plane: Tensor, rows: int, columns: int) -> Tensor:
    return functional.pad(plane, (0, columns, 0, rows), mode="replicate") if rows or columns else plane


def _mixed(matrix: tuple[tuple[int, int, int], ...], planes: Tensor) -> Tensor:
    """A colour transform, entry by entry."""
    first, second, third = planes.split(1, 1)
    return torch.cat([(a * first + b * second + c * third) / 65536 for a, b, c in matrix], 1)


def _triangle(x: Tensor) -> Tensor:
    """Twice as many columns: 3/4 of the sample and 1/4 of its neighbour on that side; the edge repeats."""
    left = torch.cat([x[..., :1], x[..., :-1]], -1)
    right = torch.cat([x[..., 1:], x[..., -1:]], -1)
    return torch.stack([(3 * x + left) / 4, (3 * x + right) / 4], -1).flatten(-2)


@lru_cache(maxsize=16)
def _transform(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The orthonormal DCT-II matrix of 8 points."""
    with torch.inference_mode(False):  # the cached tensor must serve autograd, whoever asks first
        k = torch.arange(8, dtype=torch.float64)
        D = torch.cos(math.pi / 8 * k[:, None] * (k + 0.5)) / 2
        D[0] /= math.sqrt(2)
        return D.to(device=device, dtype=dtype)
