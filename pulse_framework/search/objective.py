"""What a search minimises: a weighted sum of named terms, one number per item."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import Generator, LatentPrior
from pulse_framework.latents import Latents

__all__ = ["Evaluation", "L1Consistency", "L2Consistency", "Objective", "PriorEnergy", "Term", "total"]


def _no_lift(name: str) -> Tensor:
    raise ValueError(f"Evaluation: expected a way to express the latents as {name!r}, got none; give it `lift`")


@dataclass(frozen=True)
class Evaluation:
    """One iterate of N searches, as the terms see it.

    Attributes:
        latents: The whole input of the generator.
        priors: The prior of every block that moves.
        image: G(latents), shape (N, C, H, W).
        degraded: A(image), shape (N, *measurement).
        measurement: y, of the same shape.
        mse: Mean square of A(x) - y of each item, shape (N,), with its gradient.
        lift: The latents expressed as the block of the given name, with their gradient.
        unknowns: The operator's unknown parameters in natural units, by name, with their gradient.
        noise: Variance of the noise in each measurement, shape (N,), as the operator's ``measure`` leaves it where the search
            began; None where nobody knows, 0 where no term asked.
        observed: Which pixels of a measurement were observed, 1, or not, 0, shape (1, h, w); None: all of them.
        keys: Of each item's random numbers, shape (N, 2), see ``noise.normals``; None where there are none.
        numbers: Of the iterate of each item, shape (N,).
    """

    latents: Latents
    priors: Mapping[str, LatentPrior]
    image: Tensor
    degraded: Tensor
    measurement: Tensor
    mse: Tensor
    lift: Callable[[str], Tensor] = _no_lift
    unknowns: Mapping[str, Tensor] = field(default_factory=dict)
    noise: Tensor | None = None
    observed: Tensor | None = None
    keys: Tensor | None = None
    numbers: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class Term(ABC):
    """One weighted part of the objective."""

    weight: float = 1.0

    @property
    def needs_noise(self) -> bool:
        """Whether it wants to know the variance of the noise."""
        return False

    def on(self, generator: Generator, moved: Sequence[str]) -> "Term | None":
        """The term as it is for a search of the blocks ``moved``; None if it has no part there and is left out.

        Raises:
            ValueError: It should have, and cannot.
        """
        del generator, moved
        return self

    def check(self, measurement: tuple[int, ...]) -> None:
        """Refuse measurements of a shape that the term cannot take, before any work.

        Raises:
            ValueError: It cannot.
        """
        del measurement

    @abstractmethod
    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """The unweighted value of each item."""


@dataclass(frozen=True, kw_only=True)
class L2Consistency(Term):
    """Mean square of A(x) - y, never below ``floor``: PULSE's ``L2``, whose clamp at eps stops the gradient (section 3)."""

    floor: float = 0.0

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In squared image units."""
        return at.mse.clamp(min=self.floor) if self.floor else at.mse


@dataclass(frozen=True, kw_only=True)
class L1Consistency(Term):
    """Mean absolute value of A(x) - y, never below ``floor``."""

    floor: float = 0.0

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In image units."""
        error = (at.degraded - at.measurement).abs().flatten(1).mean(1)
        return error.clamp(min=self.floor) if self.floor else error


@dataclass(frozen=True, kw_only=True)
class PriorEnergy(Term):
    """Energy of the blocks that move, summed: with L2 consistency this is maximum a posteriori (CSGM, section 2.2)."""

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """In nats."""
        return torch.stack([prior.energy(at.latents[name]) for name, prior in at.priors.items()]).sum(0)


class Objective:
    """The weighted sum of named terms.

    Args:
        terms: Name to term; the names are for logs and overrides. One that is None is left out, as a configuration leaves
            out a term of another.

    Raises:
        ValueError: There is no term.
    """

    def __init__(self, terms: Mapping[str, Term | None]) -> None:
        self.terms = {name: term for name, term in terms.items() if term is not None}
        if not self.terms:
            raise ValueError("Objective: expected at least one term, got none; add L2Consistency")

    @property
    def l2_weight(self) -> float:
        """Weight of the mean square of A(x) - y, of the terms that have no floor."""
        return sum(term.weight for term in self.terms.values() if isinstance(term, L2Consistency) and not term.floor)

    @property
    def needs_noise(self) -> bool:
        """Whether one of the terms wants to know the variance of the noise."""
        return any(term.needs_noise for term in self.terms.values())

    def on(self, generator: Generator, moved: Sequence[str]) -> "Objective":
        """The terms that apply to a search of the blocks ``moved``.

        Raises:
            ValueError: A term refuses the blocks, or none is left.
        """
        return Objective({name: term.on(generator, moved) for name, term in self.terms.items()})

    def parts(self, at: Evaluation) -> dict[str, Float[Tensor, " N"]]:
        """Each term of each item, weighted."""
        return {name: term.weight * term(at) for name, term in self.terms.items()}

    def __call__(self, at: Evaluation) -> Float[Tensor, " N"]:
        """The objective of each item."""
        return total(self.parts(at))


def total(parts: Mapping[str, Tensor]) -> Tensor:
    """The objective of its parts."""
    first, *others = parts.values()
    return sum(others, first)
