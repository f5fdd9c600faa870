"""Optimisers whose rows are separate searches: what every one of them is, and those of first order.

Each row has its own age, so a slot can be refilled while its neighbours are half way. What depends on the age alone (rate,
bias corrections) is computed once for a whole phase, in double precision, as a table; settings are frozen and the moments live
in a dictionary beside the optimiser.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.interfaces import Generator
from pulse_framework.latents import Latents
from pulse_framework.manifolds import Manifold
from pulse_framework.search.objective import Objective

__all__ = ["NGD", "SGD", "Adam", "Adamax", "FirstOrder", "Iterate", "Optimiser"]

State = dict[str, Tensor]


@dataclass(frozen=True)
class Iterate:
    """Where N searches are, as an optimiser sees it.

    Attributes:
        latents: The whole input of the generator, without gradients.
        gradients: Of the objective, by the name of every block that moves, in ambient coordinates. Zero where a float16 gradient
            overflowed: what an optimiser makes of such a search is left out, it stays where it is and remembers what it did.
        manifolds: Of every block that moves.
        objective: Shape (N,).
        live: Whether a search goes on, shape (N,).
        coefficients: Row of the optimiser's table for the step of each search, shape (K, N).
        weight: Of the mean square of A(G(z)) - y in the objective.
        measured: A(G(z)) of any number of whole inputs, under the gradient mode that holds.
        keys: Of the random numbers of each search, shape (N, 2); see ``noise.normals``.
        numbers: Which iterate of its phase each is, from 0, shape (N,).
    """

    latents: Latents
    gradients: Latents
    manifolds: Mapping[str, Manifold]
    objective: Tensor
    live: Tensor
    coefficients: Tensor
    weight: float
    measured: Callable[[Latents], Tensor]
    keys: Tensor
    numbers: Tensor


@dataclass(frozen=True, kw_only=True)
class Optimiser(ABC):
    """Says where every search goes next; settings are frozen, and what it remembers is the search's.

    Attributes:
        rate: Step length before the schedule; see the optimiser for its unit.
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate < float("inf"):
            raise ValueError(f"{type(self).__name__} rate: expected a positive number, got {self.rate}")

    def on(self, generator: Generator, moved: tuple[str, ...]) -> "Optimiser":
        """The optimiser as it is for a search of the blocks ``moved``: with what it has to know of the generator.

        Raises:
            ValueError: It cannot move these.
        """
        del generator, moved
        return self

    def check(self, objective: Objective, latents: int, measurement: int) -> None:
        """Refuse what it cannot do, before any work.

        Args:
            objective: What is minimised.
            latents: How many numbers move.
            measurement: How many are measured.

        Raises:
            ValueError: It cannot.
        """
        del objective, latents, measurement

    @abstractmethod
    def begin(self, latents: Latents, measurement: Float[Tensor, "N *m"]) -> State:
        """What it remembers of searches that begin at these blocks; every tensor has the leading axis N."""

    @abstractmethod
    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """Coefficients of each step of a phase, from its scheduled rates; float64."""

    @abstractmethod
    def move(self, at: Iterate, state: State) -> tuple[Latents, State]:
        """The next latents of every block that moves, on their manifolds, and what is remembered then.

        One that may take an iterate back remembers as ``taken``, shape (N,), where it did not; only those can be kept as last.
        """


@dataclass(frozen=True, kw_only=True)
class FirstOrder(Optimiser):
    """Turns the gradient of one block into a step; the manifold of the block turns steps into new latents.

    Attributes:
        rate: Step length before the schedule, in latent units.
        riemannian: Project gradients onto the tangent space and carry the moments along. The original PULSE does not: it
            steps in the ambient space and rescales.
    """

    riemannian: bool = False

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the moments that are tangent vectors."""
        return ("momentum",)

    @abstractmethod
    def start(self, x: Float[Tensor, "N *event"]) -> State:
        """Moments of a search that begins at ``x``; every tensor has the leading axis N."""

    @abstractmethod
    def step(
        self, gradient: Float[Tensor, "N *event"], state: State, coefficients: Float[Tensor, "K N *one"]
    ) -> Float[Tensor, "N *event"]:
        """The step to take, in latent units; updates ``state`` in place."""

    def begin(self, latents: Latents, measurement: Float[Tensor, "N *m"]) -> State:
        """The moments of every block."""
        del measurement
        return {f"{name}/{key}": value for name, x in latents.items() for key, value in self.start(x).items()}

    def move(self, at: Iterate, state: State) -> tuple[Latents, State]:
        """One step of every block on its own."""
        latents: dict[str, Tensor] = {}
        state = dict(state)
        for name, gradient in at.gradients.items():
            x, manifold = at.latents[name], at.manifolds[name]
            one = (-1, *[1] * (x.ndim - 1))
            if self.riemannian:
                gradient = manifold.tangent(x, gradient)
            own = {key.removeprefix(f"{name}/"): value for key, value in state.items() if key.startswith(f"{name}/")}
            step = self.step(gradient, own, at.coefficients.reshape(-1, *x.shape[:1], *one[1:]))
            moved = manifold.retract(x, step)
            if self.riemannian:
                own |= {key: manifold.tangent(moved, own[key]) for key in self.vectors}
            latents[name] = moved
            state |= {f"{name}/{key}": value for key, value in own.items()}
        return latents, state


@dataclass(frozen=True, kw_only=True)
class SGD(FirstOrder):
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
class Adam(FirstOrder):
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
class Adamax(FirstOrder):
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


@dataclass(frozen=True, kw_only=True)
class NGD(FirstOrder):
    """Normalised gradient descent: every vector of every block moves by the rate, whatever the size of its gradient.

    RUSIR's optimiser (Poirier-Ginter and Lalonde, CVPR 2023, arXiv:2302.06733), whose rows of w+ travel at most the rate
    times the number of steps; that is all that keeps them near where they began. On a sphere the step is tangent, and the
    vector turns by the arc tangent of rate over radius. A vector without gradient stays.

    Attributes:
        ndim: How many trailing axes make one vector, as of a ``Sphere``.

    Raises:
        ValueError: ``ndim`` is below 1.
    """

    riemannian: bool = True
    ndim: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ndim < 1:
            raise ValueError(f"NGD ndim: expected at least 1 axis, got {self.ndim}")

    @property
    def vectors(self) -> tuple[str, ...]:
        """It remembers nothing."""
        return ()

    def start(self, x: Float[Tensor, "N *event"]) -> State:
        """Nothing."""
        return {}

    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """The rate."""
        return rates[:, None]

    def step(
        self, gradient: Float[Tensor, "N *event"], state: State, coefficients: Float[Tensor, "K N *one"]
    ) -> Float[Tensor, "N *event"]:
        """Minus the rate times the gradient's direction."""
        axes = tuple(range(-min(self.ndim, gradient.ndim - 1), 0))
        largest = gradient.abs().amax(axes, keepdim=True)
        scaled = gradient / torch.where(largest > 0, largest, 1)  # squares of tiny gradients would vanish
        length = torch.linalg.vector_norm(scaled, dim=axes, keepdim=True)
        return scaled * (-coefficients[0] / torch.where(length > 0, length, 1))
