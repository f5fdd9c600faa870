r"""Consistency as the noise has it: negative log-likelihoods of y given a = A(x), and what resists outliers.

Each is the mean over the numbers of a measurement, and 0 where a = y, so parts without a are left out. For maximum a posteriori
with ``PriorEnergy``, give a likelihood the number of measured values as its weight.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pulse_framework.interfaces import Generator
from pulse_framework.search.joint import unknown_names
from pulse_framework.search.objective import Evaluation, Term

__all__ = ["GaussianLikelihood", "HuberConsistency", "NoiseLikelihood", "PoissonLikelihood", "StudentLikelihood"]


@dataclass(frozen=True, kw_only=True)
class GaussianLikelihood(Term):
    r"""White Gaussian noise, :math:`(a - y)^2 / 2 \sigma^2`, and :math:`\log \sigma` where sigma is unknown.

    Attributes:
        sigma: Standard deviation, in image units; or the name of an unknown parameter of the operator, which is that.

    Raises:
        ValueError: Sigma is not positive.
    """

    sigma: float | str

    def __post_init__(self) -> None:
        if not isinstance(self.sigma, str):
            _positive(self, "sigma", self.sigma)

    def on(self, generator: Generator, moved: Sequence[str]) -> "GaussianLikelihood":
        """The term, checked.

        Raises:
            ValueError: The operator has no such unknown parameter.
        """
        if isinstance(self.sigma, str) and self.sigma not in (known := unknown_names(generator)):
            raise ValueError(f"GaussianLikelihood sigma: expected a number or one of {list(known)}, got {self.sigma!r}")
        return self

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In nats for each number."""
        if not isinstance(self.sigma, str):
            return at.mse / (2 * self.sigma**2)
        sigma = at.unknowns[self.sigma]
        logarithm = torch.stack([one.log() for one in sigma])  # vectors of numbers may round otherwise than one
        return at.mse / (2 * sigma.square()) + logarithm


@dataclass(frozen=True, kw_only=True)
class NoiseLikelihood(Term):
    r"""White Gaussian noise of a level that is set, or is that of the degradation: :math:`\|a - y\|^2 / 2 \sigma^2`.

    Unlike the other terms it is the sum over all numbers: with ``PriorEnergy``, both of weight 1, it is the negative logarithm of
    the posterior.

    Attributes:
        sigma: Standard deviation, in image units; None: what the operator's own ``measure`` leaves, simulated (see
            ``discrepancy``) where the search begins.
        least: A sigma that is simulated is never less, in image units; without noise the posterior would have no breadth.

    Raises:
        ValueError: A number is not positive.
    """

    sigma: float | None = None
    least: float = 0.01

    def __post_init__(self) -> None:
        if self.sigma is not None:
            _positive(self, "sigma", self.sigma)
        _positive(self, "least", self.least)

    @property
    def needs_noise(self) -> bool:
        """Where no level is set."""
        return self.sigma is None

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In nats."""
        squares = at.mse * at.measurement[0].numel()
        if self.sigma is not None:
            return squares / (2 * self.sigma**2)
        if at.noise is None:
            raise ValueError("NoiseLikelihood sigma: expected the level of the noise, got none; set sigma, or give `noise`")
        return squares / (2 * at.noise.clamp(min=self.least**2))


@dataclass(frozen=True, kw_only=True)
class PoissonLikelihood(Term):
    r"""Counted photons, :math:`P (a - y) - P y \log (a / y)`, which is half of the deviance.

    Gaussian noise of reading is taken for photons of its variance: :math:`P \sigma^2` is added to a and to y, in image units (the
    shifted Poisson model, Snyder et al., JOSA A 12, 1995). Below ``floor`` the logarithm goes on as its parabola there, so
    that its derivative stays finite and points upward.

    Attributes:
        peak: P, photons expected where the image is 1.
        sigma: Standard deviation of the noise of reading, in image units.
        floor: The smallest a whose logarithm is taken, in image units.

    Raises:
        ValueError: The peak or the floor is not positive, or sigma is negative.
    """

    peak: float
    sigma: float = 0.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        _positive(self, "peak", self.peak)
        _positive(self, "floor", self.floor)
        if self.sigma:
            _positive(self, "sigma", self.sigma)

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In nats for each number."""
        shift = self.peak * self.sigma**2
        a, y = at.degraded + shift, (at.measurement + shift).clamp(min=0)
        below = (a / self.floor - 1).clamp(max=0)
        log_a = a.clamp(min=self.floor).log() + below - below.square() / 2
        return (self.peak * (a - y - y * log_a + torch.xlogy(y, y))).flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class HuberConsistency(Term):
    r"""With :math:`r = a - y`: :math:`r^2` up to delta, :math:`\delta (2 |r| - \delta)` beyond (Huber, 1964).

    Outliers pull no harder than what is delta away.

    Attributes:
        delta: In image units.

    Raises:
        ValueError: Delta is not positive.
    """

    delta: float = 0.1

    def __post_init__(self) -> None:
        _positive(self, "delta", self.delta)

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In squared image units."""
        return 2 * functional.huber_loss(at.degraded, at.measurement, reduction="none", delta=self.delta).flatten(1).mean(1)


@dataclass(frozen=True, kw_only=True)
class StudentLikelihood(Term):
    r"""Student's t, :math:`\tfrac{\nu + 1}{2} \log (1 + r^2 / \nu s^2)` with :math:`r = a - y`. Far outliers hardly pull at all.

    Attributes:
        scale: s, in image units.
        freedom: Degrees of freedom, nu; 1 is Cauchy's.

    Raises:
        ValueError: The scale or the freedom is not positive.
    """

    scale: float
    freedom: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "scale", self.scale)
        _positive(self, "freedom", self.freedom)

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In nats for each number."""
        square = (at.degraded - at.measurement).square() / (self.freedom * self.scale**2)
        return (self.freedom + 1) / 2 * square.log1p().flatten(1).mean(1)


def _positive(term: Term, name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{type(term).__name__} {name}: expected a finite number above 0, got {value}")
