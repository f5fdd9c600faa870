r"""L-BFGS on manifolds: second order from gradients alone, for latents of any size.

A direction is :math:`d = -H g`, where H is the inverse Hessian that the last m pairs of steps s and changes of the gradient y
tell (Nocedal, Math. Comp. 35, 1980; algorithm 7.4 of Nocedal and Wright, 2006). A length t along it is taken once it meets the
weak Wolfe conditions

.. math:: f(R_x(t d)) \le f(x) + c_1 t \langle g, d \rangle, \qquad \langle g', d' \rangle \ge c_2 \langle g, d \rangle,

d' and g' being d and the gradient there, found by bracketing (Lewis and Overton, Math. Program. 141, 2013: it ends on functions
with kinks too). Gradients and pairs are carried to a new point by projection onto its tangent space (Huang, Gallivan and
Absil, SIAM J. Optim. 25, 2015); a pair without positive curvature there is passed over. Every trial is one iterate of the
search, and every row has a memory, a bracket and a length of its own.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.latents import Latents
from pulse_framework.search.flat import flatten, part, tangent, wide
from pulse_framework.search.optimisers import Iterate, Optimiser, State

__all__ = ["LBFGS"]


@dataclass(frozen=True, kw_only=True)
class LBFGS(Optimiser):
    """Limited-memory BFGS; where every first trial is taken, it is ``torch.optim.LBFGS`` without line search.

    Attributes:
        rate: First length that is tried along a direction; with nothing remembered, that over the sum of the gradient's
            absolute values, if this is above 1.
        memory: Pairs that are remembered, m.
        decrease: c_1.
        curvature: c_2, above c_1.
        trials: Lengths that are tried along a direction. Then the last is taken if it lowers the objective; else the memory is
            forgotten, and the search goes on from where it was.

    Raises:
        ValueError: A number is out of range.
    """

    rate: float = 1.0
    memory: int = 10
    decrease: float = 1e-4
    curvature: float = 0.9
    trials: int = 12

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory < 1 or self.trials < 1:
            raise ValueError(f"LBFGS memory and trials: expected at least 1, got {self.memory} and {self.trials}")
        if not 0 < self.decrease < self.curvature < 1:
            raise ValueError(f"LBFGS: expected 0 < decrease < curvature < 1, got {self.decrease} and {self.curvature}")

    def begin(self, latents: Latents, measurement: Float[Tensor, "N *m"]) -> State:
        """Nothing taken yet."""
        del measurement
        flat = torch.zeros_like(flatten(latents))
        number, past = flat[:, 0], flat[:, None].repeat(1, self.memory, 1)
        return {
            "objective": number + torch.inf,
            "slope": number.clone(),
            "length": number.clone(),
            "low": number.clone(),
            "high": number + torch.inf,
            "trial": number.clone(),
            "gradient": flat.clone(),
            "direction": flat.clone(),
            "steps": past.clone(),
            "changes": past.clone(),
        } | {f"base/{name}": value.clone() for name, value in latents.items()}

    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """The rate."""
        return rates[:, None]

    def move(self, at: Iterate, state: State) -> tuple[Latents, State]:
        """Take the trial and turn, or try another length."""
        here = {name: at.latents[name] for name in at.gradients}
        gradient = tangent(at.manifolds, here, flatten(at.gradients))
        direction = tangent(at.manifolds, here, state["direction"])
        first = state["objective"].isinf()
        enough = at.objective <= state["objective"] + self.decrease * state["length"] * state["slope"]
        levelled = _dot(gradient, direction) >= self.curvature * state["slope"]
        last = state["trial"] + 1 >= self.trials
        taken, lost = first | (enough & (levelled | last)), ~first & ~enough & last
        old = {"steps": state["steps"], "changes": state["changes"]}

        step, change = state["length"][:, None] * direction, gradient - tangent(at.manifolds, here, state["gradient"])
        carried = {key: tangent(at.manifolds, here, value) for key, value in old.items()}
        curved = _dot(step, change) > torch.finfo(step.dtype).eps * (_dot(step, step) * _dot(change, change)).sqrt()
        longer = {key: torch.cat([carried[key][:, 1:], new[:, None]], 1) for key, new in (("steps", step), ("changes", change))}
        past = {key: torch.where(wide(curved & ~first, value), longer[key], value) for key, value in carried.items()}
        past = {key: torch.where(wide(taken, value), value, old[key]) for key, value in past.items()}
        past = {key: torch.where(wide(lost, value), 0, value) for key, value in past.items()}

        base = {name: torch.where(wide(taken, value), value, state[f"base/{name}"]) for name, value in here.items()}
        slope_of = torch.where(taken[:, None], gradient, state["gradient"])
        turned, remembers = _direction(slope_of, past["steps"], past["changes"])
        rate = at.coefficients[0]
        careful = rate / slope_of.abs().sum(1).clamp(min=1)
        again = taken | lost
        length, low, high = self._bracket(at.objective, enough, state)
        direction = torch.where(again[:, None], turned, state["direction"])
        found = past | {
            "objective": torch.where(taken, at.objective, state["objective"]),
            "gradient": slope_of,
            "direction": direction,
            "slope": _dot(slope_of, direction),
            "length": torch.where(again, torch.where(remembers, rate, careful), length),
            "low": torch.where(again, 0, low),
            "high": torch.where(again, torch.inf, high),
            "trial": torch.where(again, 0, state["trial"] + 1),
        }
        found |= {f"base/{name}": value for name, value in base.items()}
        steps = part(found["length"][:, None] * found["direction"], base)
        return {name: at.manifolds[name].retract(value, steps[name]) for name, value in base.items()}, found

    def _bracket(self, objective: Tensor, enough: Tensor, state: State) -> tuple[Tensor, Tensor, Tensor]:
        """The next length to try, and the bracket: by a parabola while too long, by halves between bounds, else twice as long."""
        length, slope = state["length"], state["slope"]
        low, high = torch.where(enough, length, state["low"]), torch.where(enough, state["high"], length)
        bend = objective - state["objective"] - slope * length
        parabola = (-slope * length.square() / (2 * bend)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        shorter = torch.where(low > 0, (low + high) / 2, torch.maximum(0.1 * length, torch.minimum(parabola, 0.5 * length)))
        longer = torch.where(high.isinf(), 2 * length, (low + high) / 2)
        return torch.where(enough, longer, shorter), low, high


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Of every row; never a matrix product, whose rounding may depend on how many rows there are."""
    return (a * b).sum(-1)


def _direction(gradient: Tensor, steps: Tensor, changes: Tensor) -> tuple[Tensor, Tensor]:
    """-H g by the two-loop recursion, and whether the newest pair counts; straight downhill where it would lead up."""
    products = _dot(steps, changes)
    weights = torch.where(products > 0, 1 / products, 0)
    remembers = weights[:, -1] > 0
    found, shares = gradient, {}
    for index in reversed(range(steps.shape[1])):
        shares[index] = (weights[:, index] * _dot(steps[:, index], found))[:, None]
        found = found - shares[index] * changes[:, index]
    squares = _dot(changes[:, -1], changes[:, -1])
    found = found * torch.where(remembers, products[:, -1] / squares, 1)[:, None]
    for index in range(steps.shape[1]):
        back = (weights[:, index] * _dot(changes[:, index], found))[:, None]
        found = found + steps[:, index] * (shares[index] - back)
    downhill = remembers & (_dot(found, gradient) > 0)
    return torch.where(downhill[:, None], -found, -gradient), downhill
