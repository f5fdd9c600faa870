r"""A Gaussian fitted to vectors, with all of its covariance.

.. math:: -\log p(x) = \tfrac12 \sum_l (x_l - \mu)^\top C^{-1} (x_l - \mu) + const, \qquad
          x_l = \mu + L \epsilon_l, \quad C = L L^\top

for the rows :math:`x_l` of an item: half the squared Mahalanobis distance. On StyleGAN's w it is the regulariser of BRGM
(Marinescu et al., arXiv:2012.04567) with the correlations kept; on :math:`\rho_5(w)` it is II2S's :math:`P_N` (Zhu et al.,
arXiv:2012.09036), whose principal components U and variances s give :math:`L = U^\top \sqrt s`.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import LatentPrior
from pulse_framework.manifolds import Euclidean

__all__ = ["MahalanobisPrior"]

_TOLERANCE = 1e-4  # of symmetry and orthonormality; components come in float32


class MahalanobisPrior(LatentPrior):
    """A Gaussian on the last axis; rows are independent. Its tensors are kept in float64.

    Args:
        mean: Of a row.
        covariance: Of a row, (D, D); or a pair: orthonormal principal components (K, D) and their variances (K,). With K < D,
            samples keep to the plane of the components, and to leave it costs nothing.

    Raises:
        ValueError: Shapes disagree, a number is not finite, or the covariance is not symmetric and positive definite.
    """

    manifold = Euclidean()
    mean: Tensor
    colour: Tensor
    whiten: Tensor

    def __init__(
        self, mean: Float[Tensor, " D"], covariance: Float[Tensor, "D D"] | tuple[Float[Tensor, "K D"], Float[Tensor, " K"]]
    ) -> None:
        super().__init__()
        mean = mean.detach().double().clone()
        if mean.ndim != 1 or not bool(mean.isfinite().all()):
            raise ValueError(f"MahalanobisPrior mean: expected a vector of finite numbers, got shape {tuple(mean.shape)}")
        colour, whiten = _of_components(len(mean), *covariance) if isinstance(covariance, tuple) else _of(len(mean), covariance)
        self.register_buffer("mean", mean)
        self.register_buffer("colour", colour)  # (K, D): rows of white noise, times it, have the covariance
        self.register_buffer("whiten", whiten)  # (D, K): the way back

    @classmethod
    def from_samples(cls, samples: Float[Tensor, "count D"] | Iterable[Float[Tensor, "_ D"]]) -> "MahalanobisPrior":
        """Fit to vectors, given at once or in chunks; sums are in float64, with count - 1 in the denominator.

        Raises:
            ValueError: There are too few samples, or they lie in a plane.
        """
        count, mean, covariance = _moments([samples] if isinstance(samples, Tensor) else samples)
        if count <= len(mean):
            raise ValueError(
                f"MahalanobisPrior samples: expected more than the {len(mean)} entries of each, got {count}; add some"
            )
        return cls(mean, covariance)

    def sample(self, shape: tuple[int, ...], rng: torch.Generator) -> Float[Tensor, "*event"]:
        """Draw one item, all rows independent.

        Raises:
            ValueError: The last axis is not that of the mean.
        """
        if shape[-1:] != self.mean.shape:
            raise ValueError(
                f"MahalanobisPrior: expected shape (..., {len(self.mean)}), got {shape}; use the block it was fitted to"
            )
        noise = torch.randn((*shape[:-1], len(self.colour)), generator=rng)
        return (self.mean.cpu() + noise.double() @ self.colour.cpu()).float()

    def energy(self, latent: Float[Tensor, "N *event"]) -> Float[Tensor, " N"]:
        """Half the squared Mahalanobis distance to the mean, summed over rows."""
        with torch.autocast(latent.device.type, enabled=False):
            white = (latent - self.mean.to(latent)) @ self.whiten.to(latent)
            return white.flatten(1).square().sum(1) / 2


def _of(size: int, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Both ways, by Cholesky."""
    c = covariance.detach().double()
    if c.shape != (size, size):
        raise ValueError(f"MahalanobisPrior covariance: expected shape {(size, size)}, got {tuple(c.shape)}")
    if not bool(c.isfinite().all()) or bool(((c - c.T).abs() > _TOLERANCE * c.abs().max()).any()):
        raise ValueError("MahalanobisPrior covariance: expected a symmetric matrix of finite numbers, got another; fit it anew")
    lower, failed = torch.linalg.cholesky_ex((c + c.T) / 2)
    if bool(failed):
        raise ValueError(
            "MahalanobisPrior covariance: expected it positive definite, got a direction without variance; give the components"
            " that have some, and their variances"
        )
    inverse = torch.linalg.solve_triangular(lower, torch.eye(size, dtype=c.dtype, device=c.device), upper=False)
    return lower.T.contiguous(), inverse.T.contiguous()


def _of_components(size: int, components: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Both ways, along principal components."""
    u, s = components.detach().double(), variances.detach().double()
    if u.ndim != 2 or not 0 < len(u) <= size or u.shape != (*s.shape, size):
        raise ValueError(
            f"MahalanobisPrior components: expected shape (K, {size}) with variances (K,), K at most {size}, got {tuple(u.shape)}"
            f" with {tuple(s.shape)}"
        )
    if not bool((s.isfinite() & (s > 0)).all()):
        raise ValueError(
            "MahalanobisPrior variances: expected positive numbers, got others; leave out components without variance"
        )
    if not bool(((u @ u.T - torch.eye(len(u), dtype=u.dtype, device=u.device)).abs() < _TOLERANCE).all()):
        raise ValueError("MahalanobisPrior components: expected orthonormal rows, got others; a component is a row, of length 1")
    return s.sqrt()[:, None] * u, (u / s.sqrt()[:, None]).T.contiguous()


def _moments(chunks: Iterable[Tensor]) -> tuple[int, Tensor, Tensor]:
    """Count, mean and covariance, all sums shifted by the mean of the first chunk."""
    count, shift = 0, None
    total = square = torch.zeros((), dtype=torch.float64)
    for chunk in chunks:
        x = chunk.detach().double()
        if x.ndim != 2 or len(x) == 0 or (shift is not None and x.shape[1:] != shift.shape):
            raise ValueError(f"MahalanobisPrior samples: expected shape (count, D), one D, got {tuple(x.shape)}")
        shift = x.mean(0) if shift is None else shift
        count, total, square = count + len(x), total + (x - shift).sum(0), square + (x - shift).T @ (x - shift)
    if shift is None or count < 2:
        raise ValueError(f"MahalanobisPrior samples: expected at least 2, got {count}")
    return count, shift + total / count, (square - torch.outer(total, total) / count) / (count - 1)
