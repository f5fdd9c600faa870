r"""Masks: only some of the pixels are observed, :math:`A(x) = m \odot x` with m of 0 and 1, where 1 means observed.

The measurement keeps the image's shape and is 0 (black) where nothing was observed; a photo with a hole has to be black there.
:math:`A = A^\top = A^2`. Strokes are those of inpainting in Poirier-Ginter and Lalonde, "Robust Unsupervised StyleGAN Image
Restoration", CVPR 2023, arXiv:2302.06733: straight lines of 0.08 of the side with round ends, which lie in the outer thirds.
Theirs have soft edges, ours are 0 or 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.images import read_image
from pulse_framework.interfaces import LinearDegradation

__all__ = ["Mask", "box", "load", "random", "strokes", "uncrop"]


class Mask(LinearDegradation):
    """Keep the observed pixels of images, the same in every channel.

    Args:
        observed: m, of shape (H, W), for images of that size; or a function of (height, width) that gives m, for any size. It has
            to give the same m every time.

    Attributes:
        gap: Half of an 8-bit level, in image units.

    Raises:
        ValueError: m is not a matrix of 0 and 1, or nothing is observed.
    """

    gap = 0.5 / 255

    def __init__(self, observed: Float[Tensor, "H W"] | Callable[[int, int], Tensor]) -> None:
        super().__init__()
        self._recipe = _Given(_checked(observed)) if isinstance(observed, Tensor) else observed

    def mask(self, image_shape: tuple[int, int, int]) -> Float[Tensor, "1 H W"]:
        """The mask m of images of this shape, float32 on the CPU.

        Raises:
            ValueError: There is none for this size.
        """
        return _made(self._recipe, *image_shape[-2:]).clone()

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape.

        Raises:
            ValueError: There is no mask for this size.
        """
        _made(self._recipe, *image_shape[-2:])
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """Images with zeros where nothing was observed.

        Raises:
            ValueError: There is no mask for this size.
        """
        return x * _made(self._recipe, *x.shape[-2:]).to(x)

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """A(x) clamped to [0, 1] and rounded to 8 bits, as it is when saved; nothing is drawn from ``rng``."""
        del rng
        return (self(x).clamp(0, 1) * 255).round() / 255

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """A itself.

        Raises:
            ValueError: y is not of this image shape.
        """
        if tuple(y.shape[1:]) != tuple(image_shape):
            raise ValueError(f"Mask adjoint: expected y of shape (N, *{image_shape}), got {tuple(y.shape)}; check image_shape")
        return self(y)

    def extra_repr(self) -> str:
        """What the mask is made from."""
        return str(self._recipe)


def box(
    fraction: float | None = None,
    top: int | None = None,
    left: int | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Mask:
    """A rectangle is hidden.

    Args:
        fraction: Sides of a centred rectangle over the image's, rounded to pixels; give this alone or the other four.
        top: Rows above it.
        left: Columns to its left.
        height: In pixels.
        width: In pixels.

    Raises:
        ValueError: Neither or both are given, or they are no rectangle.
    """
    return Mask(_rectangle("box", fraction, (top, left, height, width), hidden=True))


def uncrop(
    fraction: float | None = None,
    top: int | None = None,
    left: int | None = None,
    height: int | None = None,
    width: int | None = None,
) -> Mask:
    """Only a rectangle is observed, and the search invents what is around it. Arguments and errors are those of ``box``."""
    return Mask(_rectangle("uncrop", fraction, (top, left, height, width), hidden=False))


def random(observed: float = 0.5, seed: int = 0) -> Mask:
    """Pixels drawn at random are observed, exactly ``observed`` of all, rounded.

    Raises:
        ValueError: ``observed`` is not in (0, 1].
    """
    return Mask(_Random(_in_unit("random observed", observed), seed))


def strokes(count: int = 9, width: float = 0.08, seed: int = 0) -> Mask:
    """Straight strokes with round ends are hidden.

    Args:
        count: Number of strokes.
        width: Over the smaller side of the image.
        seed: The same seed gives the same strokes, at any size of the image.

    Raises:
        ValueError: ``count`` is below 1, or ``width`` not in (0, 1].
    """
    if count < 1:
        raise ValueError(f"strokes count: expected at least 1, got {count}; degradations.identity hides nothing")
    return Mask(_Strokes(count, _in_unit("strokes width", width), seed))


def load(path: str | Path, invert: bool = False) -> Mask:
    """The mask of a picture of the size of the images: observed where it is lighter than middle grey.

    Args:
        path: Of the picture.
        invert: Observed where it is darker, as many programs draw masks.

    Raises:
        ValueError: The picture cannot be read.
    """
    light = read_image(path).mean(0) > 0.5
    return Mask((~light if invert else light).float())


@dataclass(frozen=True, eq=False)
class _Given:
    observed: Tensor

    def __call__(self, height: int, width: int) -> Tensor:
        if tuple(self.observed.shape) != (height, width):
            has = " x ".join(map(str, self.observed.shape))
            raise ValueError(
                f"Mask: expected images of {has} (height x width), as the mask is, got {height} x {width}; resize one"
            )
        return self.observed

    def __str__(self) -> str:
        return f"{self.observed.shape[0]}x{self.observed.shape[1]}, observed={float(self.observed.mean()):.3g}"


@dataclass(frozen=True)
class _Box:
    top: int
    left: int
    height: int
    width: int
    hidden: bool

    def __call__(self, height: int, width: int) -> Tensor:
        bottom, right = self.top + self.height, self.left + self.width
        if bottom > height or right > width:
            raise ValueError(
                f"Mask: expected the box to lie inside of images of {height} x {width}, got one that reaches row {bottom} and"
                f" column {right}; move or shrink it"
            )
        observed = torch.full((height, width), float(self.hidden))
        observed[self.top : bottom, self.left : right] = 1 - float(self.hidden)
        return observed


@dataclass(frozen=True)
class _Centre:
    fraction: float
    hidden: bool

    def __call__(self, height: int, width: int) -> Tensor:
        h, w = (max(1, round(self.fraction * side)) for side in (height, width))
        return _Box((height - h) // 2, (width - w) // 2, h, w, self.hidden)(height, width)


@dataclass(frozen=True)
class _Random:
    observed: float
    seed: int

    def __call__(self, height: int, width: int) -> Tensor:
        order = torch.randperm(height * width, generator=torch.Generator().manual_seed(self.seed))
        return (order < max(1, round(self.observed * height * width))).float().reshape(height, width)


@dataclass(frozen=True)
class _Strokes:
    count: int
    width: float
    seed: int

    def __call__(self, height: int, width: int) -> Tensor:
        rng = torch.Generator().manual_seed(self.seed)
        ends = torch.rand(self.count, 2, 2, generator=rng, dtype=torch.float64) * 2 / 3
        ends = torch.where(ends < 1 / 3, ends, ends + 1 / 3) * torch.tensor([height, width])
        rows = torch.arange(height, dtype=torch.float64)[:, None].expand(height, width) + 0.5
        columns = torch.arange(width, dtype=torch.float64).expand(height, width) + 0.5
        at, observed = torch.stack([rows, columns], -1), torch.ones(height, width)
        for start, end in ends:
            line = end - start
            along = (((at - start) @ line) / line.square().sum().clamp(min=1e-12)).clamp(0, 1)
            distance = (at - start - along[..., None] * line).norm(dim=-1)
            observed[distance <= self.width * min(height, width) / 2] = 0
        return observed


@lru_cache(maxsize=16)
def _made(recipe: Callable[[int, int], Tensor], height: int, width: int) -> Tensor:
    """The mask of a recipe, (1, H, W)."""
    with torch.inference_mode(False):  # the cached tensor must serve autograd, whoever asks first
        return _checked(recipe(height, width))[None].clone()


def _checked(observed: Tensor) -> Tensor:
    if observed.ndim != 2 or not bool(((observed == 0) | (observed == 1)).all()):
        raise ValueError(
            f"Mask: expected a matrix (H, W) of 0 (hidden) and 1 (observed), got {observed.dtype} of shape"
            f" {tuple(observed.shape)}; compare it with a threshold"
        )
    if not bool(observed.any()):
        raise ValueError(f"Mask: expected at least one observed pixel of {tuple(observed.shape)}, got none; hide less")
    return observed.detach().to("cpu", torch.float32, copy=True)


def _rectangle(where: str, fraction: float | None, given: tuple[int | None, ...], hidden: bool) -> _Centre | _Box:
    """The recipe of a rectangle, centred or of a given (top, left, height, width)."""
    sides = [side for side in given if side is not None]
    if fraction is not None and not sides:
        return _Centre(_in_unit(f"{where} fraction", fraction), hidden)
    if fraction is not None or len(sides) < len(given):
        raise ValueError(f"{where}: expected either fraction or all of top, left, height, width, got {fraction} and {given}")
    top, left, height, width = sides
    if min(top, left) < 0 or min(height, width) < 1:
        raise ValueError(
            f"{where}: expected top and left of at least 0, height and width of at least 1, got {given}; correct them"
        )
    return _Box(top, left, height, width, hidden)


def _in_unit(where: str, value: float) -> float:
    if not 0 < value <= 1:
        raise ValueError(f"{where}: expected a fraction in (0, 1], got {value}; correct it")
    return value
