r"""The Gaussian that PULSE puts on a StyleGAN's w space, and the chart it searches in.

The mapping network M ends in a leaky ReLU of slope 0.2, whose inverse is a leaky ReLU of slope 5. What goes into that last
activation is nearly Gaussian, so with the mean and standard deviation of each entry of :math:`\rho_5(M(z))`

.. math:: w = \rho_{0.2}(\sigma v + \mu), \qquad v \sim N(0, I), \qquad
          \rho_a(t) = \max(t, 0) + a \min(t, 0),

is distributed much like M(z) (Menon et al., CVPR 2020, section 3.3; Zhu et al., arXiv:2012.09036, call it P space). A positive
factor that follows the activation, as in StyleGAN2, passes through both :math:`\rho`, so the chart holds there too.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

__all__ = ["chart", "fit_gaussian"]

_CHUNK = 4096
_SLOPE = 0.2


def chart(v: Float[Tensor, "*axes D"], mean: Float[Tensor, " D"], std: Float[Tensor, " D"]) -> Float[Tensor, "*axes D"]:
    """The w of a v."""
    return functional.leaky_relu(v * std + mean, _SLOPE)


@torch.no_grad()
def fit_gaussian(
    mapping: Callable[[Tensor], Tensor], z_dim: int, samples: int = 100_000, seed: int = 0
) -> tuple[Float[Tensor, " D"], Float[Tensor, " D"]]:
    """Mean and standard deviation of each entry of the last activation's input, over seeded samples of z.

    Args:
        mapping: Takes z of shape (n, z_dim), float32, on the CPU, to w of shape (n, D).
        z_dim: Entries of z.
        samples: How many z; they are mapped in chunks and summed in float64, shifted by the mean of the first chunk.
        seed: Of the samples; the same machine gives the same answer.

    Returns:
        Mean and standard deviation, the latter with n - 1 in the denominator; float32.

    Raises:
        ValueError: There are fewer than two samples.
    """
    if samples < 2:
        raise ValueError(f"Gaussian fit: expected at least 2 samples, got {samples}; the original program takes a million")
    rng = torch.Generator().manual_seed(seed)
    shift = total = square = torch.zeros((), dtype=torch.float64)
    for first in range(0, samples, _CHUNK):
        z = torch.randn(min(_CHUNK, samples - first), z_dim, generator=rng)
        p = functional.leaky_relu(mapping(z), 1 / _SLOPE).double()
        shift = p.mean(0) if first == 0 else shift
        total = total + (p - shift).sum(0)
        square = square + (p - shift).square().sum(0)
    variance = (square - total.square() / samples) / (samples - 1)
    return (shift + total / samples).float(), variance.clamp(min=0).sqrt().float()
