r"""What the noise leaves of the consistency: Morozov's discrepancy principle (V. A. Morozov, Soviet Math. Dokl. 7, 1966).

Even the true image is not nearer to its measurement than the process of measuring allows,

.. math:: \frac{1}{m} E \lVert \text{measure}(x) - A(x) \rVert^2,

the variance of white noise, :math:`1 / 12 \cdot 255^2` of rounding to 8 bits. A search that is asked for more fits the noise.
The residual is simulated, so any operator with its two faces has one, also where the noise depends on the image.
"""

import math

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation
from pulse_framework.search.streams import CHUNK_PIXELS

__all__ = ["expected_residual"]

_NUMBERS = 20_000  # so that the mean of squares of as many normal numbers has a relative standard error of 1 %


def expected_residual(degradation: Degradation, image: Tensor, rng: torch.Generator, observed: Tensor | None = None) -> float:
    """The mean square of measure(x) - A(x), simulated; 0 where an image is not finite.

    Args:
        degradation: A and ``measure``.
        image: x, shape (C, H, W); clamped to [0, 1], as a picture that is measured is.
        rng: Gives the noise. Where ``measure`` takes none from it, there is nothing to repeat.
        observed: The mean is over pixels of a measurement where this mask is 1; None: over all, hidden ones included.

    Returns:
        In squared units of the measurement.
    """
    if not bool(image.isfinite().all()):
        return 0.0
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        x = image.detach().clamp(0, 1)[None]
        clean = degradation(x)
        before = rng.get_state()
        squares = [_squares(degradation.measure(x, rng), clean, observed)]
        wanted = 1 if torch.equal(before, rng.get_state()) else max(2, math.ceil(_NUMBERS / clean.numel()))
        chunk = max(1, CHUNK_PIXELS // (image.shape[-2] * image.shape[-1]))
        for first in range(1, wanted, chunk):
            copies = x.expand(min(chunk, wanted - first), -1, -1, -1)
            squares.append(_squares(degradation.measure(copies, rng), clean, observed))
        residual = float(torch.cat(squares).mean())
    return residual if math.isfinite(residual) else 0.0


def _squares(measured: Tensor, clean: Tensor, observed: Tensor | None) -> Tensor:
    """The mean square of every draw, in float64."""
    squares = (measured.double() - clean.double()).square()
    if observed is not None:
        weights = observed.to(squares).expand_as(clean)
        squares = squares * (weights / weights.mean())
    return squares.flatten(1).mean(1).cpu()
