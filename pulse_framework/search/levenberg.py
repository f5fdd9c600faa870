r"""Levenberg-Marquardt on manifolds: second order, for small latents and measurements.

With the residual :math:`r = A(G(z)) - y`, its Jacobian J in the tangent spaces of the blocks that move and the gradient g of
the whole objective, a step is

.. math:: d = -(\tfrac{2 w}{m} J^T J + \mu I)^{-1} g,

w being the weight of the consistency among the terms. A step that lowers the objective is taken and :math:`\mu` falls;
another is taken back and :math:`\mu` rises (Marquardt, SIAM J. Appl. Math. 11, 1963; on manifolds Absil, Mahony and
Sepulchre, 2008, section 8.4). Each row has a damping and a Jacobian of its own, and the rows' linear algebra never meets.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pulse_framework.latents import Latents
from pulse_framework.search.flat import flatten, part, tangent, wide
from pulse_framework.search.objective import Objective
from pulse_framework.search.optimisers import Iterate, Optimiser, State

__all__ = ["LevenbergMarquardt"]

_CHUNK = 128  # derivatives that are computed together: always as many, so always the same arithmetic
_LARGEST = 2**24  # numbers of one Jacobian


@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt(Optimiser):
    """Damped Gauss-Newton steps, accepted or taken back search by search.

    One step costs about as many passes through G and A as there are numbers in the latents (forward mode) or in the
    measurement (reverse mode), and none where a step was taken back.

    Attributes:
        rate: Fraction of the step that is taken.
        damping: First damping, in units of the mean curvature.
        up: What a failed step multiplies the damping by.
        down: What a successful step divides it by.
        mode: How derivatives are propagated; ``auto``: forwards where the generator's and the operator's operations can
            (tried once), else backwards.

    Raises:
        ValueError: A number is out of range, the mode is unknown, the objective lacks ``L2Consistency``, or the Jacobian is
            too large.
    """

    rate: float = 1.0
    damping: float = 1e-2
    up: float = 4.0
    down: float = 4.0
    mode: Literal["auto", "forward", "reverse"] = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.damping < float("inf"):
            raise ValueError(f"LevenbergMarquardt damping: expected a positive number, got {self.damping}")
        if not (self.up > 1 and self.down > 1):
            raise ValueError(f"LevenbergMarquardt up and down: expected factors above 1, got {self.up} and {self.down}")
        if self.mode not in ("auto", "forward", "reverse"):
            raise ValueError(f"LevenbergMarquardt mode: expected auto, forward or reverse, got {self.mode!r}")

    def check(self, objective: Objective, latents: int, measurement: int) -> None:
        """See ``Optimiser``."""
        if objective.l2_weight <= 0:
            raise ValueError(
                "LevenbergMarquardt: expected an objective with a term L2Consistency without a floor, got "
                f"{list(objective.terms)}; choose objective=l2 or another optimiser"
            )
        if latents * measurement > _LARGEST:
            raise ValueError(
                f"LevenbergMarquardt: expected a Jacobian of at most {_LARGEST} numbers, got {measurement} measurements by "
                f"{latents} latents; move fewer blocks, or choose another optimiser"
            )

    def begin(self, latents: Latents, measurement: Float[Tensor, "N *m"]) -> State:
        """Nothing accepted yet."""
        flat = flatten(latents)
        number = flat.new_zeros(len(flat))
        return {
            "objective": number + torch.inf,
            "damping": number + self.damping * self.down,  # the first iterate is always accepted
            "gradient": torch.zeros_like(flat),
            "jacobian": flat.new_zeros(len(flat), measurement[0].numel(), flat.shape[1]),
        } | {f"base/{name}": value.clone() for name, value in latents.items()}

    def table(self, rates: Float[Tensor, " T"]) -> Float[Tensor, "T K"]:
        """The rate."""
        return rates[:, None]

    def move(self, at: Iterate, state: State) -> tuple[Latents, State]:
        """Accept or take back, then step from the best point."""
        lower = at.objective < state["objective"]
        damping = torch.where(lower, state["damping"] / self.down, state["damping"] * self.up)
        moved = {name: at.latents[name] for name in at.gradients}
        base = {name: torch.where(wide(lower, value), value, state[f"base/{name}"]) for name, value in moved.items()}
        state = {
            "objective": torch.where(lower, at.objective, state["objective"]),
            "damping": damping.clamp(1e-9, 1e12),
            "gradient": torch.where(lower[:, None], tangent(at.manifolds, moved, flatten(at.gradients)), state["gradient"]),
            "jacobian": state["jacobian"].clone(),
        } | {f"base/{name}": value for name, value in base.items()}
        steps = torch.zeros_like(state["gradient"])
        for row, (live, fresh) in enumerate(zip(at.live.tolist(), lower.tolist(), strict=True)):
            if live and fresh:
                state["jacobian"][row] = self._jacobian(at, {name: value[row : row + 1] for name, value in at.latents.items()})
            if live:
                curvature = 2 * at.weight / state["jacobian"].shape[1]
                steps[row] = _solve(state["jacobian"][row], state["gradient"][row], curvature, state["damping"][row])
        parts = part(steps * at.coefficients[0][:, None], base)
        return {name: at.manifolds[name].retract(base[name], parts[name]) for name in base}, state

    def _jacobian(self, at: Iterate, latents: Latents) -> Tensor:
        """Of A(G(z)) of one row by the blocks that move, in their tangent spaces, shape (m, D)."""
        moved = {name: latents[name] for name in at.gradients}
        with torch.autocast(at.objective.device.type, enabled=False), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")  # PyTorch's own, once it first goes forwards
            forward = self.mode == "forward" or (self.mode == "auto" and _has_forward(at.measured, latents, moved))
            rows = (_forward if forward else _reverse)(at.measured, latents, moved)
        return tangent(at.manifolds, moved, rows[None])[0]


def _solve(jacobian: Tensor, gradient: Tensor, curvature: float, damping: Tensor) -> Tensor:
    """-(c JJ + mu I)^-1 g of one row, by whichever of J's sides is smaller, in double precision where there is one."""
    precise = jacobian.dtype if jacobian.device.type == "mps" else torch.float64
    j, g = jacobian.to(precise), gradient.to(precise)
    m, count = j.shape
    square = j.square().sum()
    if not bool(square > 0):
        return -gradient / curvature  # flat: nothing is known but the slope
    mu = damping.to(precise) * curvature * square / count
    if count <= m:
        step = -torch.linalg.solve(curvature * j.T @ j + mu * torch.eye(count).to(j), g)
    else:  # Woodbury's identity
        inner = torch.linalg.solve(j @ j.T + mu / curvature * torch.eye(m).to(j), j @ g)
        step = (j.T @ inner - g) / mu
    return step.to(gradient.dtype)


def _has_forward(measured: Callable[[Latents], Tensor], latents: Latents, moved: Latents) -> bool:
    """Whether derivatives go forwards through everything from latents to measurement."""
    name = next(iter(moved))
    try:
        torch.func.jvp(lambda value: measured({**latents, name: value}), (latents[name],), (latents[name],))
    except (NotImplementedError, RuntimeError):
        return False
    return True


def _forward(measured: Callable[[Latents], Tensor], latents: Latents, moved: Latents) -> Tensor:
    """Column by column, shape (m, D)."""
    at = flatten(moved)[0]

    def residual(flat: Tensor) -> Tensor:
        return measured({**latents, **part(flat[None], moved)})[0].flatten()

    def column(direction: Tensor) -> Tensor:
        return torch.func.jvp(residual, (at,), (direction,))[1]

    directions = torch.eye(len(at)).to(at)
    return torch.func.vmap(column, chunk_size=_CHUNK)(directions).T


def _reverse(measured: Callable[[Latents], Tensor], latents: Latents, moved: Latents) -> Tensor:
    """Row by row, each entry of the measurement pulled back through a copy of its own, shape (m, D)."""
    with torch.no_grad():
        count = measured(latents)[0].numel()
    rows = []
    for first in range(0, count, _CHUNK):
        copies = {name: value.expand(_CHUNK, *value.shape[1:]).contiguous() for name, value in latents.items()}
        leaves = {name: copies[name].requires_grad_() for name in moved}
        with torch.enable_grad():
            entries = measured(copies).flatten(1)
            index = torch.arange(first, min(first + _CHUNK, count))
            pulled = torch.autograd.grad(entries[index - first, index].sum(), list(leaves.values()))
        rows.append(flatten(dict(zip(leaves, pulled, strict=True)))[: len(index)])
    return torch.cat(rows)
