r"""Blur that varies over the image: at every pixel a mixture of K blurs.

.. math:: A(x)_p = \sum_k m_k(p) \, (B_k x)_p, \qquad \sum_k m_k(p) = 1, \qquad A^\top y = \sum_k B_k^\top (m_k \odot y),

The weights m are those of the pixel that receives, so that constants stay constant.

A map says which blur is where: numbers in [0, 1], over which the K blurs are spread evenly and between which weights are linear
(``between``), or the blur's number from 0 on (``labelled``). The mixture of two Gaussians is no Gaussian: take more of them for a
smoother change. Blurs and weights may carry a graph, as in ``degradations.blur``.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from degradations._psf import Scalar, integer, scalar
from degradations.blur import Blur, gaussian_blur
from pulse_framework.images import read_image
from pulse_framework.interfaces import LinearDegradation

__all__ = ["VaryingBlur", "between", "gaussian", "labelled", "load"]


class VaryingBlur(LinearDegradation):
    """A mixture of blurs, for images (C, H, W) of the size of its map.

    Args:
        blurs: B.
        weights: m, none negative, of sum 1 at every pixel.

    Attributes:
        weights: m in float64 on the CPU.
        gap: Half of an 8-bit level, in image units.

    Raises:
        TypeError: Something else than blurs is mixed.
        ValueError: There are no blurs, or the weights are not of them, negative, or of another sum.
    """

    gap = 0.5 / 255

    def __init__(self, blurs: Iterable[Blur], weights: Float[Tensor, "K H W"]) -> None:
        super().__init__()
        self.blurs = nn.ModuleList(_checked(blurs))
        weights = weights.to("cpu", torch.float64)
        if weights.ndim != 3 or len(weights) != len(self.blurs) or weights.numel() == 0:
            raise ValueError(
                f"VaryingBlur weights: expected shape ({len(self.blurs)}, H, W), a map for each blur, got {tuple(weights.shape)}"
            )
        least, off = weights.detach().min().item(), (weights.detach().sum(0) - 1).abs().max().item()
        if not (least >= 0 and off <= 1e-5):
            raise ValueError(
                f"VaryingBlur weights: expected numbers of at least 0 that sum to 1 at every pixel, got a least of {least:.4g}"
                f" and a sum that is {off:.4g} off; make them with between or labelled"
            )
        self.weights = weights / weights.sum(0)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape.

        Raises:
            ValueError: The map is of another size.
        """
        if tuple(image_shape[1:]) != tuple(self.weights.shape[1:]):
            height, width = self.weights.shape[1:]
            raise ValueError(
                f"VaryingBlur: expected images of {height} x {width}, the size of the map, got {image_shape[1]} x"
                f" {image_shape[2]} (height x width); resize the map"
            )
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """A(x), in the dtype and on the device of x.

        Raises:
            TypeError: x is not of floats.
            ValueError: The map is of another size.
        """
        self.measurement_shape((x.shape[1], x.shape[2], x.shape[3]))
        y = torch.zeros_like(x)
        for blur, weight in self._parts(x):
            y = y + weight * blur(x)
        return y

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits, as it is when saved; nothing is drawn from ``rng``."""
        del rng
        return (self(x).clamp(0, 1) * 255).round() / 255

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """Transpose of A: every blur's adjoint of its weighted share.

        Raises:
            TypeError: y is not of floats.
            ValueError: y is not of this image shape, or the map is of another size.
        """
        expected = self.measurement_shape(image_shape)
        if tuple(y.shape[1:]) != tuple(expected):
            raise ValueError(
                f"VaryingBlur adjoint: expected y of shape (N, *{expected}), got {tuple(y.shape)}; check image_shape"
            )
        x = torch.zeros_like(y)
        for blur, weight in self._parts(y):
            x = x + blur.adjoint(weight * y, image_shape)
        return x

    def extra_repr(self) -> str:
        """Size of the map."""
        return f"map={self.weights.shape[1]}x{self.weights.shape[2]}"

    def _parts(self, x: Tensor) -> list[tuple[Blur, Tensor]]:
        """The blurs with their weights, on the device and in the dtype of x."""
        if not x.is_floating_point():
            raise TypeError(f"VaryingBlur: expected a tensor of floats, got {x.dtype}; convert it to floats in [0, 1]")
        return list(zip(cast("Iterable[Blur]", self.blurs), self.weights.to(x), strict=True))


def between(levels: Float[Tensor, "H W"], count: int) -> Float[Tensor, "{count} H W"]:
    """Weights that are linear in a map, where blur k is at k / (count - 1). The map's graph is kept.

    Args:
        levels: The map, in [0, 1].
        count: Of the blurs.

    Raises:
        ValueError: The map is no matrix of numbers in [0, 1].
    """
    low, high = (levels.detach().min().item(), levels.detach().max().item()) if levels.numel() else (0.0, 0.0)
    if levels.ndim != 2 or not 0 <= low <= high <= 1:
        raise ValueError(
            f"varying blur map: expected a matrix of numbers in [0, 1], got shape {tuple(levels.shape)} and {low:.4g} to"
            f" {high:.4g}; rescale it, or give integers to number the blurs"
        )
    at = levels.to("cpu", torch.float64) * (count - 1)
    return (1 - (at - torch.arange(count, dtype=torch.float64)[:, None, None]).abs()).clamp(min=0)


def labelled(labels: Integer[Tensor, "H W"], count: int) -> Float[Tensor, "{count} H W"]:
    """Weights of 0 and 1 that choose a blur for every pixel, by its number from 0 on.

    Raises:
        ValueError: The labels are no matrix of integers from 0 to count - 1.
    """
    integers = not (labels.is_floating_point() or labels.is_complex())
    if labels.ndim != 2 or not integers or not bool(((labels >= 0) & (labels < count)).all()):
        raise ValueError(
            f"varying blur labels: expected a matrix of integers from 0 to {count - 1}, got shape {tuple(labels.shape)} of"
            f" {labels.dtype} or others; number the {count} blurs from 0 on"
        )
    return (labels.cpu() == torch.arange(count)[:, None, None]).double()


def load(path: str | Path, blurs: Iterable[Blur]) -> VaryingBlur:
    """Blurs mixed by the map of a file, for images of its size.

    Args:
        path: A picture (black is the first blur, white the last; channels are averaged), or ``.npy``: floats in [0, 1], or
            integers that number the blurs.
        blurs: From the first to the last.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: Something else than blurs is mixed.
        ValueError: It cannot be read, or holds no map for so many blurs.
    """
    path, blurs = Path(path), list(blurs)
    if not path.exists():
        raise FileNotFoundError(f"{path}: expected a map (.npy or a picture), got no such file; check the path")
    try:
        values = (
            torch.from_numpy(np.load(path, allow_pickle=False)) if path.suffix == ".npy" else read_image(path).double().mean(0)
        )
    except Exception as error:  # damaged files make the readers fail in every way there is
        raise ValueError(f"{path}: expected a map, got a file that gives none ({error}); make it anew") from error
    try:
        weights = between(values, len(blurs)) if values.is_floating_point() else labelled(values, len(blurs))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return VaryingBlur(blurs, weights)


def gaussian(path: str | Path, low: Scalar = 0.5, high: Scalar = 4.0, levels: int = 5, boundary: str = "reflect") -> VaryingBlur:
    """Gaussians whose sigma goes from ``low`` where the map is 0 to ``high`` where it is 1.

    Args:
        path: Of the map, as for ``load``; integers number the levels.
        low: In pixels.
        high: In pixels.
        levels: Number of Gaussians, evenly spaced in sigma.
        boundary: As for ``Blur``.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError: A sigma is no number and no tensor of shape (), or ``levels`` is no integer.
        ValueError: A sigma is not positive, there are fewer than 2 levels, or the file holds no map.
    """
    where = "varying_blur.gaussian"
    first, last = scalar(where, "low", low, above=0), scalar(where, "high", high, above=0)
    steps = integer(where, "levels", levels, least=2) - 1
    return load(path, [gaussian_blur(first + (last - first) * k / steps, boundary=boundary) for k in range(levels)])


def _checked(blurs: Iterable[Blur]) -> list[Blur]:
    blurs = list(blurs)
    if not blurs:
        raise ValueError("VaryingBlur blurs: expected at least one blur, got none")
    for number, blur in enumerate(blurs):
        if not isinstance(blur, Blur):
            raise TypeError(f"VaryingBlur blurs: expected blurs, got {type(blur).__name__} at {number}; use degradations.blur")
    return blurs
