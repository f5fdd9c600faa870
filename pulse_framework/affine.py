r"""Affine resampling of pictures, with antialiasing: the sparse matrix of it.

Points are (x, y) in pixels, to the right and down, from the outer corner of the first pixel, whose centre is (0.5, 0.5). An
affine map :math:`u = L p + t` takes a point p of the picture that is made to a point u of the picture that is sampled. A pixel
is a weighted mean of pixels q, with weights :math:`k(F(q - u))`, k a separable kernel. Where the map shrinks, F is the inverse of
L, so that the kernel is as wide as a pixel that is made and lies along its sides; where it enlarges, F is the identity and k
interpolates; of a map that does both along two directions, F does each along its own. What the kernel has outside of the picture
is left out and the weights still sum to 1, as in Pillow.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["KERNELS", "Taps", "apply", "covered", "invert", "resample", "taps", "transpose"]

KERNELS = {"bilinear": 1, "bicubic": 2, "lanczos3": 3}
"""Kernels and where they end; the cubic one is that of Keys with a = -1/2, as in Pillow and PULSE."""

_CHUNK = 1 << 22
"""Products held at a time, in numbers of one image."""
_BLOCK = 1 << 18
"""Weights computed at a time."""
_SLACK = 1e-6
"""In pixels: how far a pixel may reach outside and still count as covered, since corners are rounded."""


@dataclass(frozen=True, eq=False)
class Taps:
    """A sparse matrix, row by row.

    Attributes:
        index: Of the pixels taken, counted along rows, (h w, K).
        weight: Of each, float64; the sum is 1, or 0 where nothing of the picture is within reach.
        covered: Which pixels that are made lie wholly inside of the picture that is sampled, (h, w).
        source: (H, W) of the picture that is sampled.
    """

    index: Tensor
    weight: Tensor
    covered: Tensor
    source: tuple[int, int]


def invert(matrix: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    """The inverse of an affine map, both (2, 3) in float64.

    Raises:
        ValueError: The map is no such matrix or has no inverse.
    """
    whole = np.vstack([_checked(matrix), [0.0, 0.0, 1.0]])
    return np.linalg.inv(whole)[:2]


def taps(
    matrix: Sequence[Sequence[float]] | np.ndarray, source: tuple[int, int], made: tuple[int, int], kernel: str = "bicubic"
) -> Taps:
    """The matrix of a resampling.

    Args:
        matrix: L and t side by side, (2, 3): from points of the picture that is made to points of the one that is sampled.
        source: (height, width) of the picture that is sampled.
        made: (height, width) of the picture that is made.
        kernel: ``bilinear``, ``bicubic`` or ``lanczos3``.

    Raises:
        ValueError: There is no such kernel, or the map has no inverse.
    """
    index, weight = (np.concatenate(parts) for parts in zip(*_blocks(matrix, source, made, kernel), strict=True))
    used = (weight != 0).any(0)
    used[0] |= not used.any()
    return Taps(torch.from_numpy(index[:, used]), torch.from_numpy(weight[:, used]), covered(matrix, source, made), source)


def covered(matrix: Sequence[Sequence[float]] | np.ndarray, source: tuple[int, int], made: tuple[int, int]) -> Tensor:
    """Which pixels that are made lie wholly inside of the picture that is sampled, (h, w); arguments as of ``taps``."""
    matrix = _checked(matrix)
    corners = _points(made, 0) @ matrix[:, :2].T + matrix[:, 2]
    inside = ((corners >= -_SLACK) & (corners <= np.array([source[1], source[0]]) + _SLACK)).all(-1)
    return torch.from_numpy(inside[:-1, :-1] & inside[1:, :-1] & inside[:-1, 1:] & inside[1:, 1:])


def resample(
    x: Float[Tensor, "C H W"], matrix: Sequence[Sequence[float]] | np.ndarray, made: tuple[int, int], kernel: str = "bicubic"
) -> Float[Tensor, "C h w"]:
    """``apply`` with ``taps``, which are not kept; arguments and errors as theirs."""
    flat, parts = x.flatten(1), []
    for index, weight in _blocks(matrix, (x.shape[-2], x.shape[-1]), made, kernel):
        taken = flat[:, torch.from_numpy(index).to(x.device)]
        parts.append((taken * torch.from_numpy(weight).to(x)).sum(-1))
    return torch.cat(parts, 1).unflatten(1, made)


def apply(x: Float[Tensor, "C H W"], matrix: Taps) -> Float[Tensor, "C h w"]:
    """The picture that is made of x, in the dtype and on the device of x, where ``matrix`` should be too."""
    flat, rows = x.flatten(1), max(1, _CHUNK // (x.shape[0] * matrix.index.shape[1]))
    parts = zip(matrix.index.split(rows), matrix.weight.to(x).split(rows), strict=True)
    return torch.cat([(flat[:, index] * weight).sum(-1) for index, weight in parts], 1).unflatten(1, matrix.covered.shape)


def transpose(y: Float[Tensor, "C h w"], matrix: Taps) -> Float[Tensor, "C H W"]:
    """The transposed matrix times y."""
    flat, rows = y.flatten(1), max(1, _CHUNK // (y.shape[0] * matrix.index.shape[1]))
    made = y.new_zeros(matrix.source[0] * matrix.source[1], y.shape[0])
    parts = zip(flat.split(rows, 1), matrix.index.split(rows), matrix.weight.to(y).split(rows), strict=True)
    for values, index, weight in parts:
        products = (values[..., None] * weight).flatten(1).mT
        made = made.index_put((index.flatten(),), products, accumulate=True)  # unlike index_add, the same bits at every call
    return made.mT.unflatten(1, matrix.source).contiguous()


def _blocks(
    matrix: Sequence[Sequence[float]] | np.ndarray, source: tuple[int, int], made: tuple[int, int], kernel: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Index and weight of the pixels that are made, some at a time."""
    if kernel not in KERNELS:
        raise ValueError(f"affine kernel: expected one of {', '.join(KERNELS)}, got {kernel!r}")
    matrix = _checked(matrix)
    filtered = _filter(matrix[:, :2])
    half = KERNELS[kernel] * np.abs(np.linalg.inv(filtered)).sum(1)  # of the box around the kernel, along x and y
    centres = (_points(made, 0.5) @ matrix[:, :2].T + matrix[:, 2]).reshape(-1, 2)
    first = np.floor(centres - half + 0.5).astype(np.int64)
    reach = np.floor(2 * half).astype(int) + 1
    rows = max(1, _BLOCK // int(reach.prod()))
    for block in (slice(i, i + rows) for i in range(0, len(first), rows)):
        yield _rows(first[block], centres[block], reach, filtered, source, kernel)


def _checked(matrix: Sequence[Sequence[float]] | np.ndarray) -> np.ndarray:
    made = np.asarray(matrix, dtype=np.float64)
    if made.shape != (2, 3) or not np.isfinite(made).all() or abs(np.linalg.det(made[:, :2])) < 1e-12:
        raise ValueError(
            f"affine map: expected a matrix (2, 3) of finite numbers that can be inverted, got {made.tolist()}; correct it"
        )
    return made


def _filter(linear: np.ndarray) -> np.ndarray:
    """F: L's inverse where L shrinks, the identity where it enlarges."""
    u, s, v = np.linalg.svd(linear)
    if s[0] <= 1 + 1e-9:
        return np.eye(2)
    return np.linalg.inv(linear) if s[-1] >= 1 else (v.T / np.maximum(s, 1)) @ u.T


def _points(size: tuple[int, int], offset: float) -> np.ndarray:
    """Corners (offset 0) or centres (offset 0.5) of pixels, (rows, columns, 2)."""
    height, width = (side + (offset == 0) for side in size)
    return np.stack(np.meshgrid(np.arange(width) + offset, np.arange(height) + offset), -1)


def _rows(
    first: np.ndarray, centres: np.ndarray, reach: np.ndarray, filtered: np.ndarray, source: tuple[int, int], kernel: str
) -> tuple[np.ndarray, np.ndarray]:
    """Index and weight of some pixels."""
    height, width = source
    x, y = (first[:, axis, None] + np.arange(reach[axis]) for axis in (0, 1))
    dx, dy = x + 0.5 - centres[:, :1], y + 0.5 - centres[:, 1:]  # q - u
    if filtered[0, 1] == filtered[1, 0] == 0:
        weight = _value(kernel, dy * filtered[1, 1])[:, :, None] * _value(kernel, dx * filtered[0, 0])[:, None]
    else:
        sides = (dx[:, None] * f[0] + dy[:, :, None] * f[1] for f in filtered)
        weight = np.multiply(*(_value(kernel, side) for side in sides))
    weight *= ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None]
    total = weight.sum((1, 2), keepdims=True)
    near = np.abs(total) > 1e-9
    weight *= np.where(near, 1 / np.where(near, total, 1), 0)
    index = y.clip(0, height - 1)[:, :, None] * width + x.clip(0, width - 1)[:, None]
    return index.reshape(len(first), -1), weight.reshape(len(first), -1)


def _value(kernel: str, t: np.ndarray) -> np.ndarray:
    d = np.abs(t)
    if kernel == "bilinear":
        return np.maximum(1 - d, 0)
    if kernel == "lanczos3":
        return np.where(d < 3, np.sinc(d) * np.sinc(d / 3), 0.0)
    near, far = (1.5 * d - 2.5) * d * d + 1, -0.5 * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
