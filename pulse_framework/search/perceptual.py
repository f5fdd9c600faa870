r"""Consistency as a network sees it: a distance of A(x) and y in features, at one scale or at several.

With :math:`\downarrow` the mean over 2 x 2 pixels and d a distance such as LPIPS,

.. math:: \sum_{k=0}^{K-1} d(\downarrow^k A(x), \downarrow^k y) + c \, \langle | \downarrow^K A(x) - \downarrow^K y | \rangle ,

where a level counts as long as the shorter side exceeds ``least``. One level is the perceptual term of BRGM and of StyleGAN2's
projector; up to six of them above 16 pixels, and c = 0.1, are RUSIR's (Poirier-Ginter and Lalonde, CVPR 2023, arXiv:2302.06733,
section 3).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pulse_framework.search.noise import normals
from pulse_framework.search.objective import Evaluation, Term

__all__ = ["FeatureConsistency"]


@dataclass(frozen=True, kw_only=True)
class FeatureConsistency(Term):
    """A distance of A(x) and y in the features of a network.

    Attributes:
        distance: Of two batches of images in [0, 1], (N, C, h, w), one number for each pair: such as ``FeatureDistance``.
        side: Images with a longer side are reduced to it first, by means over areas; None never does. Smaller ones stay.
        levels: How many scales count, at most.
        least: Scales count whose shorter side is above so many pixels.
        coarse: Weight of the mean absolute difference at the scale behind the last one.
        hidden: What stands where nothing was observed: what is there in A(x) and y (0 in both, if y is what the mask's own
            ``measure`` gives), or ``noise``, the same in both, anew at every step and scale: normal, of mean 1/4 and standard
            deviation 1/2, as in RUSIR's program.

    Raises:
        ValueError: A number is out of range.
    """

    distance: Callable[[Tensor, Tensor], Tensor]
    side: int | None = None
    levels: int = 1
    least: int = 0
    coarse: float = 0.0
    hidden: Literal["as_is", "noise"] = "as_is"

    def __post_init__(self) -> None:
        for name, value, low in (
            ("side", 1 if self.side is None else self.side, 1),
            ("levels", self.levels, 1),
            ("least", self.least, 0),
        ):
            if value < low:
                raise ValueError(f"FeatureConsistency {name}: expected at least {low}, got {value}")
        if not self.coarse >= 0:
            raise ValueError(f"FeatureConsistency coarse: expected a weight of at least 0, got {self.coarse}")
        if self.hidden not in ("as_is", "noise"):
            raise ValueError(f"FeatureConsistency hidden: expected as_is or noise, got {self.hidden!r}")

    def check(self, measurement: tuple[int, ...]) -> None:
        """Refuse measurements that are no images, or that the network cannot take, by trying it on one.

        Raises:
            ValueError: They are not, it cannot, or the distance is not one number for each pair.
        """
        if len(measurement) != 3 or measurement[0] not in (1, 3):
            raise ValueError(f"FeatureConsistency: expected measurements (1 or 3, h, w), got {measurement}; leave the term out")
        blank = torch.zeros(1, *measurement)
        try:
            with torch.no_grad():
                self._value(blank, blank)
        except RuntimeError as error:
            why = " ".join(str(error).split())[:200]
            raise ValueError(
                f"FeatureConsistency distance: expected a network that takes measurements {measurement}, got {why}; leave the"
                " term out, raise `least`, or use another network"
            ) from error

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In the units of the distance.

        Raises:
            ValueError: Hidden pixels are to be noise, and nobody says which.
        """
        if self.hidden == "as_is" or at.observed is None:
            return self._value(at.degraded, at.measurement)
        if at.keys is None or at.numbers is None:
            raise ValueError("FeatureConsistency hidden: expected an iterate with keys and numbers, got none; leave it as_is")
        return self._value(at.degraded, at.measurement, _Noise(self._reduced(at.observed[None]), at.keys, at.numbers))

    def _value(self, x: Tensor, y: Tensor, noise: "_Noise | None" = None) -> Tensor:
        if isinstance(self.distance, nn.Module):
            self.distance.to(x)
        x, y = (self._reduced(image) for image in (x, y))
        parts = [x.new_zeros(len(x))]
        for level in range(self.levels):
            if min(x.shape[2:]) <= self.least:
                break
            parts.append(self.distance(*((x, y) if noise is None else noise.over(level, x, y))))
            if parts[-1].shape != parts[0].shape:
                got = tuple(parts[-1].shape)
                raise ValueError(f"FeatureConsistency distance: expected one number for each pair, got shape {got}; use another")
            if self.levels > 1 or self.coarse:
                x, y = (functional.avg_pool2d(image, 2) for image in (x, y))
                noise = None if noise is None else replace(noise, seen=functional.avg_pool2d(noise.seen, 2))
        if self.coarse:
            apart = (x - y).abs() if noise is None else (x - y).abs() * noise.seen
            parts.append(self.coarse * apart.flatten(1).mean(1))
        return torch.stack(parts).sum(0)

    def _reduced(self, image: Tensor) -> Tensor:
        longest = max(image.shape[2:])
        if self.side is None or longest <= self.side:
            return image
        height, width = (max(1, round(side * self.side / longest)) for side in image.shape[2:])
        return functional.adaptive_avg_pool2d(image, (height, width))


@dataclass(frozen=True)
class _Noise:
    """What stands where nothing was observed.

    Attributes:
        seen: Share of each pixel that was observed, shape (1, 1, h, w).
        keys: Of the random numbers of each item, shape (N, 2).
        numbers: Of their iterates, shape (N,).
    """

    seen: Tensor
    keys: Tensor
    numbers: Tensor

    def over(self, level: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Two images with the same noise in their hidden parts."""
        drawn, _ = normals(self.keys, self.numbers, math.prod(x.shape[1:]), x, use=level + 1)
        fill = (drawn.unflatten(1, x.shape[1:]) + 0.5) / 2 * (1 - self.seen)
        return x * self.seen + fill, y * self.seen + fill
