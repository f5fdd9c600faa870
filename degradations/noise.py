r"""Noise of a sensor: A is the identity, without noise; ``measure`` draws it.

For a number x of the image, in image units, and its measurement y:

- ``GaussianNoise``: :math:`y = x + \sigma n`, n standard normal; :math:`-\log p(y | x) = (y - x)^2 / 2 \sigma^2` and a constant.
- ``PoissonNoise``: :math:`y = k / P`, k Poisson of mean :math:`P x` with P photons at white, then Gaussian noise of sigma (or
  none); without it :math:`-\log p(y | x) = P x - P y \log x` and a constant, with it nearly the same of
  :math:`x + P \sigma^2` and :math:`y + P \sigma^2` (variances agree).
- ``SaltAndPepper``: black or white, each with probability p/2, else x. Salt and pepper say nothing of x: a robust likelihood.
- ``SpeckleNoise``: :math:`y = x (1 + \sigma n)`; :math:`-\log p(y | x) = (y - x)^2 / 2 \sigma^2 x^2 + \log x` and a constant.
- ``DropOut``: 0 with probability p, else x; a robust likelihood, or a mask if it is known what was lost.

The terms for them are in ``pulse_framework.search``: ``GaussianLikelihood``, ``PoissonLikelihood``, ``HuberConsistency``,
``StudentLikelihood``. What is measured is saved, so it is clamped to [0, 1] and rounded to ``bits``, unless that is None.

``gap`` is no sure bound, since noise has none: it is 1.25 times the root mean square error expected of the worst image in [0, 1],
and half of a level. The root mean square of 768 Gaussian numbers has a standard deviation of 2.6 hundredths of its expectation.
"""

import math
from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import LinearDegradation

__all__ = ["DropOut", "GaussianNoise", "PoissonNoise", "SaltAndPepper", "SpeckleNoise"]


class _Noise(LinearDegradation):
    """The identity, measured with noise whose worst expected root mean square is ``worst``."""

    def __init__(self, worst: float, bits: int | None) -> None:
        super().__init__()
        name = type(self).__name__
        if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 16):
            raise ValueError(f"{name} bits: expected an integer from 1 to 16, or None for no rounding, got {bits!r}")
        self.bits = bits
        self.gap = 1.25 * worst + (0.5 / (2**bits - 1) if bits else 0.0)

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The image's own shape."""
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N C H W"]:
        """The images themselves."""
        return x

    def adjoint(self, y: Float[Tensor, "N C H W"], image_shape: tuple[int, int, int]) -> Float[Tensor, "N C H W"]:
        """``y`` itself.

        Raises:
            ValueError: ``y`` is not of this image shape.
        """
        if tuple(y.shape[1:]) != tuple(image_shape):
            raise ValueError(f"{type(self).__name__} adjoint: expected y of shape (N, *{image_shape}), got {tuple(y.shape)}")
        return y

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N C H W"]:
        """Images with noise, clamped and rounded to ``bits``; drawn on the device of ``rng``."""
        y = self._noisy(x.to(rng.device), rng).to(x)
        levels = 2**self.bits - 1 if self.bits else 0
        return (y.clamp(0, 1) * levels).round() / levels if levels else y

    @abstractmethod
    def _noisy(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """The images with their noise."""


class GaussianNoise(_Noise):
    """White Gaussian noise.

    Args:
        sigma: Standard deviation, in image units: 25 of 255 levels are 0.098.
        bits: Of the file the measurement is saved in; None neither clamps nor rounds.

    Raises:
        ValueError: Sigma is not positive, or bits are not from 1 to 16.
    """

    def __init__(self, sigma: float, bits: int | None = 8) -> None:
        super().__init__(_positive(type(self).__name__, "sigma", sigma), bits)
        self.sigma = sigma

    def _noisy(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return x + self.sigma * _normal(x, rng)


class PoissonNoise(_Noise):
    """Counted photons, with the Gaussian noise of reading them if sigma is not 0. Its variance is x / peak + sigma squared.

    Args:
        peak: Photons expected where the image is 1.
        sigma: Standard deviation of the Gaussian part, in image units.
        bits: Of the file the measurement is saved in; None neither clamps nor rounds.

    Raises:
        ValueError: The peak is not positive, sigma is negative, or bits are not from 1 to 16.
    """

    def __init__(self, peak: float, sigma: float = 0.0, bits: int | None = 8) -> None:
        name = type(self).__name__
        read = _positive(name, "sigma", sigma) if sigma else 0.0
        super().__init__(math.sqrt(1 / _positive(name, "peak", peak) + read**2), bits)
        self.peak, self.sigma = peak, sigma

    def _noisy(self, x: Tensor, rng: torch.Generator) -> Tensor:
        counts = torch.poisson(self.peak * x.clamp(min=0).to(torch.promote_types(x.dtype, torch.float32)), generator=rng)
        y = (counts / self.peak).to(x.dtype)
        return y + self.sigma * _normal(x, rng) if self.sigma else y


class SaltAndPepper(_Noise):
    """Some pixels are black or white: the expected square error is p (x^2 + (1 - x)^2) / 2, at most p / 2.

    Args:
        p: Probability of either.
        whole: Whether the channels of a pixel go together.
        bits: Of the file the measurement is saved in; None neither clamps nor rounds.

    Raises:
        ValueError: ``p`` is not in (0, 1], or bits are not from 1 to 16.
    """

    def __init__(self, p: float, whole: bool = True, bits: int | None = 8) -> None:
        super().__init__(math.sqrt(_probability(type(self).__name__, p) / 2), bits)
        self.p, self.whole = p, whole

    def _noisy(self, x: Tensor, rng: torch.Generator) -> Tensor:
        u = _uniform(x, rng, self.whole)
        return torch.where(u < self.p / 2, 0.0, torch.where(u < self.p, 1.0, x))


class SpeckleNoise(_Noise):
    """Gaussian noise in proportion to the image, of variance sigma^2 x^2, as of coherent light.

    Args:
        sigma: Standard deviation where the image is 1, in image units.
        bits: Of the file the measurement is saved in; None neither clamps nor rounds.

    Raises:
        ValueError: Sigma is not positive, or bits are not from 1 to 16.
    """

    def __init__(self, sigma: float, bits: int | None = 8) -> None:
        super().__init__(_positive(type(self).__name__, "sigma", sigma), bits)
        self.sigma = sigma

    def _noisy(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return x * (1 + self.sigma * _normal(x, rng))


class DropOut(_Noise):
    """Some pixels are lost and read 0: the expected square error is p x^2, at most p.

    Args:
        p: Probability of it.
        whole: Whether the channels of a pixel go together.
        bits: Of the file the measurement is saved in; None neither clamps nor rounds.

    Raises:
        ValueError: ``p`` is not in (0, 1], or bits are not from 1 to 16.
    """

    def __init__(self, p: float, whole: bool = True, bits: int | None = 8) -> None:
        super().__init__(math.sqrt(_probability(type(self).__name__, p)), bits)
        self.p, self.whole = p, whole

    def _noisy(self, x: Tensor, rng: torch.Generator) -> Tensor:
        return torch.where(_uniform(x, rng, self.whole) < self.p, 0.0, x)


def _positive(where: str, name: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{where} {name}: expected a finite number above 0, got {value}; degradations.identity has no noise")
    return value


def _probability(where: str, p: float) -> float:
    if not 0 < p <= 1:
        raise ValueError(f"{where} p: expected a probability above 0 and at most 1, got {p}; degradations.identity has no noise")
    return p


def _normal(x: Tensor, rng: torch.Generator) -> Tensor:
    return torch.randn(x.shape, generator=rng, dtype=x.dtype, device=rng.device)


def _uniform(x: Tensor, rng: torch.Generator, whole: bool) -> Tensor:
    """A draw for each pixel, or for each number; never coarser than float32."""
    shape = (len(x), 1, *x.shape[2:]) if whole else tuple(x.shape)
    dtype = torch.promote_types(x.dtype, torch.float32)
    return torch.rand(shape, generator=rng, dtype=dtype, device=rng.device).expand(x.shape)
