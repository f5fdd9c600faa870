r"""Consistency as a network sees it: a distance of A(x) and y in features, at one scale or at several.

With :math:`\downarrow` the mean over 2 x 2 pixels and d a distance such as LPIPS,

.. math:: \sum_{k=0}^{K-1} d(\downarrow^k A(x), \downarrow^k y) + c \, \langle | \downarrow^K A(x) - \downarrow^K y | \rangle ,

where a level counts as long as the shorter side exceeds ``least``. One level is the perceptual term of BRGM and of StyleGAN2's
projector; up to six of them above 16 pixels, and c = 0.1, are RUSIR's (Poirier-Ginter and Lalonde, CVPR 2023, arXiv:2302.06733,
section 3).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pulse_framework.search.objective import Evaluation, Term

__all__ = ["FeatureConsistency"]


@dataclass(frozen=True, kw_only=True)
class FeatureConsistency(Term):
    """A distance of A(x) and y in the features of a network.

    Pixels that were not observed count as they are in A(x) and y: 0 in both, if y is what the mask's own ``measure`` gives.

    Attributes:
        distance: Of two batches of images in [0, 1], (N, C, h, w), one number for each pair: such as ``FeatureDistance``.
        side: Images with a longer side are reduced to it first, by means over areas; None never does. Smaller ones stay.
        levels: How many scales count, at most.
        least: Scales count whose shorter side is above so many pixels.
        coarse: Weight of the mean absolute difference at the scale behind the last one.

    Raises:
        ValueError: A number is out of range.
    """

    distance: Callable[[Tensor, Tensor], Tensor]
    side: int | None = None
    levels: int = 1
    least: int = 0
    coarse: float = 0.0

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
        """In the units of the distance."""
        return self._value(at.degraded, at.measurement)

    def _value(self, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(self.distance, nn.Module):
            self.distance.to(x)
        x, y = (self._reduced(image) for image in (x, y))
        parts = [x.new_zeros(len(x))]
        for _ in range(self.levels):
            if min(x.shape[2:]) <= self.least:
                break
            parts.append(self.distance(x, y))
            if parts[-1].shape != parts[0].shape:
                got = tuple(parts[-1].shape)
                raise ValueError(f"FeatureConsistency distance: expected one number for each pair, got shape {got}; use another")
            if self.levels > 1 or self.coarse:
                x, y = (functional.avg_pool2d(image, 2) for image in (x, y))
        if self.coarse:
            parts.append(self.coarse * (x - y).abs().flatten(1).mean(1))
        return torch.stack(parts).sum(0)

    def _reduced(self, image: Tensor) -> Tensor:
        longest = max(image.shape[2:])
        if self.side is None or longest <= self.side:
            return image
        height, width = (max(1, round(side * self.side / longest)) for side in image.shape[2:])
        return functional.adaptive_avg_pool2d(image, (height, width))
