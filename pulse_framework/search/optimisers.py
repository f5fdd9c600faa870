"""First-order optimisers whose rows are separate searches.

Each row has its own age, so a slot can be refilled while its neighbours are half way. What depends on the age alone (rate,
bias corrections) is computed once for a whole phase, in double precision, as a table; settings are frozen and the moments live
in a dictionary beside the optimiser.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["SGD", "Adam", "Adamax", "Optimiser"]

State = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Optimiser(ABC):
    """Turns gradients into steps; the manifold of the block turns steps into new latents.

    Attributes:
        rate: Step length before the schedule, in latent units.
        riemannian: Project gradients onto the tangent space and carry the moments along. The original PULSE does not: it
            steps in the ambient space and rescales.
    """

    rate: float
    riemannian: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"{type(self).__name__} rate: expected a positive number, got {self.rate}")

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the moments that are tangent vectors."""
        return ("momentum",)

    @abstractmethod
    def start(self, x: Float[Tensor, "N *event"]) -> State:
        """Moments of a search that begins at ``x``; every tensor has the leading axis N."""

    @abstractmethod
    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """Coefficients of each step of a phase, from its scheduled rates; float64."""

    @abstractmethod
    def step(
        self, gradient: Float[Tensor, "N *event"], state: State, coefficients: Float[Tensor, "K N *one"]
    ) -> Float[Tensor, "N *event"]:
        """The step to take, in latent units; updates ``state`` in place."""


@dataclass(frozen=True, kw_only=True)
class SGD(Optimiser):
    """Gradient descent with heavy-ball momentum, as ``torch.optim.SGD``."""

    momentum: float = 0.0

    def start(self, x: Float[Tensor, "N *event"]) -> State:
        """No velocity."""
        return {"momentum": torch.zeros_like(x)}

    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """The rate."""
        return rates[:, None]

    def step(
        self, gradient: Float[Tensor, "N *event"], state: State, coefficients: Float[Tensor, "K N *one"]
    ) -> Float[Tensor, "N *event"]:
        """Minus the rate times the velocity."""
        velocity = state["momentum"].mul_(self.momentum).add_(gradient)
        return velocity * -coefficients[0]


@dataclass(frozen=True, kw_only=True)
class Adam(Optimiser):
    """Adam (Kingma and Ba, ICLR 2015), entry by entry, as ``torch.optim.Adam``."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def start(self, x: Float[Tensor, "N *event"]) -> State:
        """Zero moments."""
        return {"momentum": torch.zeros_like(x), "square": torch.zeros_like(x)}

    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """Rate over the first bias correction; root of the second."""
        age = torch.arange(1, len(rates) + 1, dtype=torch.float64)
        return torch.stack([rates / (1 - self.beta1**age), (1 - self.beta2**age).sqrt()], 1)

    def step(
        self, gradient: Float[Tensor, "N *event"], state: State, coefficients: Float[Tensor, "K N *one"]
    ) -> Float[Tensor, "N *event"]:
        """Minus the corrected first moment over the root of the corrected second."""
        momentum = state["momentum"].lerp_(gradient, 1 - self.beta1)
        square = state["square"].mul_(self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        return momentum * -coefficients[0] / (square.sqrt().div_(coefficients[1]).add_(self.eps))


@dataclass(frozen=True, kw_only=True)
class Adamax(Optimiser):
    """Adam with the infinity norm (Kingma and Ba, section 7.1), as ``torch.optim.Adamax``."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def start(self, x: Float[Tensor, "N *event"]) -> State:
        """Zero moments."""
        return {"momentum": torch.zeros_like(x), "largest": torch.zeros_like(x)}

    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """Rate over the bias correction."""
        age = torch.arange(1, len(rates) + 1, dtype=torch.float64)
        return (rates / (1 - self.beta1**age))[:, None]

    def step(
        self, gradient: Float[Tensor, "N *event"], state: State, coefficients: Float[Tensor, "K N *one"]
    ) -> Float[Tensor, "N *event"]:
        """Minus the corrected first moment over the decayed largest gradient."""
        momentum = state["momentum"].lerp_(gradient, 1 - self.beta1)
        largest = state["largest"]
        torch.maximum(largest.mul_(self.beta2), gradient.abs().add_(self.eps), out=largest)
        return momentum * -coefficients[0] / largest
