r"""Langevin dynamics on manifolds: searches that end at samples of a posterior, not at its mode.

With the objective U in nats, the last iterate is distributed as :math:`\exp(-U)` on the product of the manifolds: as
:math:`p(z \mid y)` where U is a negative log-likelihood plus the prior's energy. One step from z with momentum v, of length h:

.. math:: v \leftarrow \alpha v + \sqrt{1 - \alpha^2}\, \xi, \qquad
    v \leftarrow v - \tfrac h2 \nabla U(z), \qquad
    (z', v') \leftarrow \text{from } z \text{ with velocity } v \text{ for the time } h, \qquad
    v' \leftarrow v' - \tfrac h2 \nabla U(z')

with tangent normal noise xi; z' is taken with the probability :math:`\min(1, e^{H - H'})`, :math:`H = U + \|v\|^2 / 2`, and
else the momentum turns round. Without memory (alpha = 0) and in flat space that is the Metropolis-adjusted Langevin algorithm
(Roberts and Tweedie, Bernoulli 2, 1996), with memory Horowitz's (Phys. Lett. B 268, 1991); on embedded manifolds see Byrne and
Girolami (Scand. J. Stat. 40, 2013). As it is adjusted, a step of any length leaves the posterior what it is.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.latents import Latents
from pulse_framework.search.flat import flatten, part, tangent, wide
from pulse_framework.search.noise import normals
from pulse_framework.search.optimisers import Iterate, Optimiser, State

__all__ = ["Langevin"]


@dataclass(frozen=True, kw_only=True)
class Langevin(Optimiser):
    """Takes every iterate for a proposal; with ``StopRule.keep: last`` the answer is the last one that was taken.

    Attributes:
        rate: First length of a step, h, in latent units.
        longest: No step is longer. A normal block, or one on the sphere of radius root d, is one unit wide; steps that go round a
            sphere would be taken for good ones.
        momentum: alpha, what is left of the momentum after a step.
        acceptance: Share of proposals that are to be taken: the lengths of each search are adapted to that,
        adapting: during this share of the budget; after that they are fixed, so that what follows is exact.

    Raises:
        ValueError: A number is out of range.
    """

    rate: float = 0.1
    longest: float = 1.0
    momentum: float = 0.0
    acceptance: float = 0.6
    adapting: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate <= self.longest < float("inf"):
            raise ValueError(f"Langevin longest: expected a number of at least the rate {self.rate}, got {self.longest}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"Langevin momentum: expected a number in [0, 1), got {self.momentum}")
        if not 0 < self.acceptance < 1:
            raise ValueError(f"Langevin acceptance: expected a number in (0, 1), got {self.acceptance}")
        if not 0 <= self.adapting <= 1:
            raise ValueError(f"Langevin adapting: expected a number in [0, 1], got {self.adapting}")

    def begin(self, latents: Latents, measurement: Float[Tensor, "N *m"]) -> State:
        """Nothing taken yet."""
        del measurement
        flat = torch.zeros_like(flatten(latents))
        number = flat[:, 0]
        return {
            "objective": number + torch.inf,
            "hamiltonian": number + torch.inf,
            "limit": number.clone(),
            "scale": number + 1,
            "length": number.clone(),
            "gradient": flat.clone(),
            "momentum": flat.clone(),
            "velocity": flat.clone(),
            "taken": number != 0,
        } | {f"base/{name}": value.clone() for name, value in latents.items()}

    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """The rate, and by what fraction the length may change: less and less, then not at all."""
        age = torch.arange(len(rates), dtype=torch.float64)
        gains = torch.where(age < self.adapting * len(rates), (1 + age) ** -0.6, 0.0)
        return torch.stack([rates, gains], 1)

    def move(self, at: Iterate, state: State) -> tuple[Latents, State]:
        """Take the proposal or not, then make the next one."""
        here = {name: at.latents[name] for name in at.gradients}
        gradient = tangent(at.manifolds, here, flatten(at.gradients))
        first = state["objective"].isinf()
        arrived = state["velocity"] - state["length"][:, None] / 2 * gradient
        rise = (at.objective + _energy(arrived) - state["hamiltonian"]).nan_to_num(nan=torch.inf)
        taken = first | (rise <= state["limit"])
        scale = state["scale"] * torch.where(first, 1, 1 + at.coefficients[1] * (taken.to(rise) - self.acceptance))

        base = {name: torch.where(wide(taken, value), value, state[f"base/{name}"]) for name, value in here.items()}
        objective = torch.where(taken, at.objective, state["objective"])
        gradient = torch.where(taken[:, None], gradient, state["gradient"])
        momentum = torch.where(taken[:, None], arrived, -state["momentum"])
        noise, limit = normals(at.keys, at.numbers, gradient.shape[1], gradient)
        kept = torch.where(first, 0.0, self.momentum)[:, None]
        momentum = tangent(at.manifolds, base, kept * momentum + (1 - kept.square()).sqrt() * noise)
        scale = torch.minimum(scale, self.longest / at.coefficients[0])
        length = at.coefficients[0] * scale
        velocity = part(momentum - length[:, None] / 2 * gradient, base)
        moved, carried = {}, {}
        for name, x in base.items():
            moved[name], way = at.manifolds[name].transport(x, wide(length, x) * velocity[name])
            carried[name] = way / wide(length, x)
        return moved, {
            "objective": objective,
            "hamiltonian": objective + _energy(momentum),
            "limit": limit,
            "scale": scale,
            "length": length,
            "gradient": gradient,
            "momentum": momentum,
            "velocity": flatten(carried),
            "taken": taken,
        } | {f"base/{name}": value for name, value in base.items()}


def _energy(momentum: Tensor) -> Tensor:
    """Of every row."""
    return momentum.square().sum(1) / 2
