r"""Derivatives that stand in for those of rounding and clamping, which are 0 almost everywhere.

With r the integer nearest to c, rounding is one of

- ``straight_through``: r, with the derivative 1 (Bengio et al., arXiv:1308.3432);
- ``cubic``: :math:`r + (c - r)^3`, whose derivative is its own and 0 at integers (Shin & Song, NeurIPS workshop 2017);
- ``leaky_cubic``: r, with the derivative :math:`0.2 + 2.4 (c - r)^2` of :math:`0.2\,c + 0.8\,(r + (c - r)^3)`: 0.2 at integers
  and 0.8 half-way (Poirier-Ginter & Lalonde, CVPR 2023, arXiv:2302.06733);

and clamping to [l, h], where u is :math:`(c - l) / (h - l)`,

- ``straight_through``: the clamped c, with the derivative 1;
- ``sigmoid``: the clamped c, with the derivative of :math:`(h - l) / (1 + e^{-2 (u - 1/2)})`: 0.5 in the middle, 0.393 at l and
  h, never 0 (the same paper);
- ``exact``: the clamped c with its own derivative, 0 outside.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["CLAMPS", "ROUNDINGS", "straight_through"]


def straight_through(value: Tensor, curve: Tensor) -> Tensor:
    """``value`` to the bit, with the derivative of ``curve``."""
    return value + (curve - curve.detach())


def _cubic(nearest: Tensor, c: Tensor) -> Tensor:
    return nearest + (c - nearest) ** 3


def _leaky_cubic(nearest: Tensor, c: Tensor) -> Tensor:
    return straight_through(nearest, 0.2 * c + 0.8 * _cubic(nearest, c))


def _clamp_straight(c: Tensor, low: float, high: float) -> Tensor:
    return straight_through(c.detach().clamp(low, high), c)


def _clamp_sigmoid(c: Tensor, low: float, high: float) -> Tensor:
    curve = (high - low) * torch.sigmoid(2 * (c - low) / (high - low) - 1)
    return straight_through(c.detach().clamp(low, high), curve)


ROUNDINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "straight_through": straight_through,
    "cubic": _cubic,
    "leaky_cubic": _leaky_cubic,
}
"""Of (r, c), where r has no graph."""

CLAMPS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "straight_through": _clamp_straight,
    "sigmoid": _clamp_sigmoid,
    "exact": torch.clamp,
}
"""Of (c, l, h)."""
