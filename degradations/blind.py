r"""Blind: parameters of a degradation that nobody knows, searched for together with the image.

An unknown parameter is a latent block u, standard normal, and a chart makes it the natural value, so that bounds hold by
construction and :math:`\|u\|^2 / 2` is its energy:

- ``Bounded``: :math:`\theta = l + (h - l) \Phi(u)`, uniform in [l, h], or the same of :math:`\log \theta`. :math:`\Phi` is the
  normal distribution function.
- ``Simplex``: :math:`k = \mathrm{softmax}(s u)`, positive entries of sum 1: a point spread function (PSF). Its logarithm has the
  standard deviation s under the prior; flat for small s, a few spikes for large.
- ``Angle``: :math:`\theta = \tfrac{P}{2 \pi} \operatorname{atan2}(u_2, u_1)`, uniform on a circle of circumference P: directions.

Estimating image and parameters at once is ambiguous in general (Levin et al., "Understanding and evaluating blind deconvolution
algorithms", CVPR 2009, shows what goes wrong with sparse priors); here the generator knows what sharp images look like.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import Degradation
from pulse_framework.latents import UNKNOWN, LatentBlock, Latents

__all__ = ["Angle", "Blind", "Bounded", "Chart", "Simplex"]

_FAR = 40.0
"""Where the normal distribution function is 0 or 1 in any precision."""


class Chart(Protocol):
    """Makes natural values of standard normal numbers of the shape ``shape``."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of u."""
        ...

    def value(self, u: Tensor) -> Tensor:
        """The natural value of one item."""
        ...

    def checked(self, name: str, truth: object) -> Tensor:
        """A known truth as a natural value; ValueError if the chart has none such."""
        ...

    def error(self, found: Tensor, truth: Tensor) -> Tensor:
        """Relative error, one number."""
        ...


@dataclass(frozen=True)
class Bounded:
    """A number in [low, high].

    Attributes:
        low: In natural units.
        high: The same.
        scale: ``linear``: uniform before anything is seen; ``log``: its logarithm is.

    Raises:
        ValueError: The bounds are not finite and ascending (above 0 for ``log``), or there is no such scale.
    """

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    shape: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if self.scale not in ("linear", "log"):
            raise ValueError(f"Bounded scale: expected linear or log, got {self.scale!r}")
        if not -math.inf < self.low < self.high < math.inf or (self.scale == "log" and not self.low > 0):
            lowest = "0 < " if self.scale == "log" else ""
            raise ValueError(f"Bounded: expected {lowest}low < high, finite, got {self.low} and {self.high}; change the bounds")

    def value(self, u: Tensor) -> Tensor:
        """By the normal distribution function."""
        share = torch.special.ndtr(u[0])
        if self.scale == "log":
            return (math.log(self.low) + math.log(self.high / self.low) * share).exp().clamp(self.low, self.high)
        return (self.low + (self.high - self.low) * share).clamp(self.low, self.high)

    def checked(self, name: str, truth: object) -> Tensor:
        """A number within the bounds."""
        if isinstance(truth, bool) or not isinstance(truth, int | float) or not self.low <= truth <= self.high:
            raise ValueError(f"Blind truth of {name}: expected a number in [{self.low}, {self.high}], got {truth!r}")
        return torch.tensor(float(truth), dtype=torch.float64)

    def error(self, found: Tensor, truth: Tensor) -> Tensor:
        """Relative to the truth."""
        return (found - truth).abs() / truth.abs()


@dataclass(frozen=True)
class Simplex:
    """Positive numbers of sum 1: a PSF of size x size.

    Attributes:
        size: Side.
        spread: Standard deviation of the logarithms before anything is seen.

    Raises:
        ValueError: The size is below 1, or the spread is not positive.
    """

    size: int
    spread: float = 1.5

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.spread < math.inf:
            raise ValueError(f"Simplex: expected a size of at least 1 and a spread above 0, got {self.size} and {self.spread}")

    @property
    def shape(self) -> tuple[int, ...]:
        """(size, size)."""
        return self.size, self.size

    def value(self, u: Tensor) -> Tensor:
        """By the softmax of all entries."""
        return (self.spread * u.flatten()).softmax(0).reshape(u.shape)

    def checked(self, name: str, truth: object) -> Tensor:
        """A matrix of the size, divided by its sum."""
        given = torch.as_tensor(truth, dtype=torch.float64)
        if given.shape != self.shape or not bool((given >= 0).all()) or not 0 < float(given.sum()) < math.inf:
            raise ValueError(
                f"Blind truth of {name}: expected {self.size} x {self.size} numbers of at least 0, got {tuple(given.shape)}"
            )
        return given / given.sum()

    def error(self, found: Tensor, truth: Tensor) -> Tensor:
        """Length of the difference, relative to that of the truth."""
        return torch.linalg.vector_norm(found - truth) / torch.linalg.vector_norm(truth)


@dataclass(frozen=True)
class Angle:
    """A direction, in (-period / 2, period / 2].

    Attributes:
        period: In radians: pi for a line without an arrow, 2 pi for one with.

    Raises:
        ValueError: The period is not positive.
    """

    period: float = math.pi
    shape: tuple[int, ...] = (2,)

    def __post_init__(self) -> None:
        if not 0 < self.period < math.inf:
            raise ValueError(f"Angle period: expected a positive number of radians, got {self.period}")

    def value(self, u: Tensor) -> Tensor:
        """The direction of u."""
        return torch.atan2(u[1], u[0]) * (self.period / (2 * math.pi))

    def checked(self, name: str, truth: object) -> Tensor:
        """Any finite number."""
        if isinstance(truth, bool) or not isinstance(truth, int | float) or not math.isfinite(truth):
            raise ValueError(f"Blind truth of {name}: expected a number of radians, got {truth!r}")
        return torch.tensor(float(truth), dtype=torch.float64)

    def error(self, found: Tensor, truth: Tensor) -> Tensor:
        """The shorter way round, relative to half of the period: 0 to 1."""
        half = self.period / 2
        return (torch.remainder(found - truth + half, self.period) - half).abs() / half


class Blind(Degradation):
    """A degradation some of whose parameters are unknown.

    Calling it is A in the middle of what is possible (u = 0). ``measure`` is the process of the truth, where that is given; no
    search sees it.

    Args:
        operator: Makes the degradation of the unknown parameters, given as tensors by name; derivatives go through them.
        unknown: Chart of each.
        truth: Natural values of those that are known to whoever measures the error; the middle for the others.
        name: Tells apart the unknowns of several parts of a chain.

    Raises:
        ValueError: Nothing is unknown, the truth is of something else or impossible, or the operator refuses its values.
        TypeError: The operator makes no degradation.
    """

    def __init__(
        self,
        operator: Callable[..., Degradation],
        unknown: Mapping[str, Chart],
        truth: Mapping[str, float | Sequence[Sequence[float]] | Tensor] | None = None,
        name: str = "",
    ) -> None:
        super().__init__()
        if not unknown:
            raise ValueError("Blind unknown: expected at least one parameter, got none; use the operator itself")
        if strange := sorted(set(truth or {}) - set(unknown)):
            raise ValueError(f"Blind truth: expected some of {sorted(unknown)}, got {strange}; correct the names")
        self.operator, self.charts, self.name = operator, dict(unknown), name
        self.truth = {key: self.charts[key].checked(key, value) for key, value in (truth or {}).items()}
        self.blocks = tuple(LatentBlock(self._block(key), chart.shape) for key, chart in self.charts.items())
        middle, *ends = (
            {key: chart.value(torch.full(chart.shape, u, dtype=torch.float64)) for key, chart in self.charts.items()}
            for u in (0.0, -_FAR, _FAR)
        )
        made = operator(**middle)
        if not isinstance(made, Degradation):
            raise TypeError(f"Blind operator: expected it to make a Degradation, got {type(made).__name__}; give its class")
        for values in ends:  # refused now rather than in the middle of a search
            operator(**values)
        self.middle, self.process = made, operator(**middle | self.truth) if truth else made
        self.gap, self.surrogate = float(made.gap), made.surrogate

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """The operator's.

        Raises:
            ValueError: The operator cannot take such images.
        """
        return self.middle.measurement_shape(image_shape)

    def mask(self, image_shape: tuple[int, int, int]) -> Float[Tensor, "1 h w"] | None:
        """The operator's, in the middle."""
        return self.middle.mask(image_shape)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Float[Tensor, "N *measurement"]:
        """A(x) in the middle of what is possible."""
        y: Tensor = self.middle(x)
        return y

    def measure(self, x: Float[Tensor, "N C H W"], rng: torch.Generator) -> Float[Tensor, "N *measurement"]:
        """The process of the truth, or of the middle."""
        return self.process.measure(x, rng)

    def given(self, latents: Latents) -> Degradation:
        """The operator of the natural values that one item has."""
        return self.operator(**{key: chart.value(latents[self._block(key)]) for key, chart in self.charts.items()})

    def unknowns(self, latents: Latents) -> dict[str, Float[Tensor, "N *value"]]:
        """Natural values; each row on its own, since vectors of numbers may round otherwise than one."""
        return {
            self._label(key): torch.stack([chart.value(u) for u in latents[self._block(key)]])
            for key, chart in self.charts.items()
        }

    def errors(self, latents: Latents) -> dict[str, Float[Tensor, " N"]]:
        """Of the parameters whose truth was given; see the charts."""
        found = self.unknowns(latents)
        return {
            self._label(key): torch.stack([self.charts[key].error(value, truth.to(value)) for value in found[self._label(key)]])
            for key, truth in self.truth.items()
        }

    def extra_repr(self) -> str:
        """What is unknown."""
        return f"unknown={self.charts}"

    def _label(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def _block(self, key: str) -> str:
        return UNKNOWN + self._label(key)
