"""The step that N independent searches take together: one row each.

Everything a search carries is a tensor whose leading axis is the row, in one flat dictionary, so that rows can be filled,
read, moved and dropped without knowing what they hold. Nothing is ever reduced across rows except the sum of objectives,
which exists to call backward once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import Latents
from pulse_framework.search.flat import wide
from pulse_framework.search.objective import Evaluation, total
from pulse_framework.search.optimisers import Iterate
from pulse_framework.search.parts import part
from pulse_framework.search.phases import Phase
from pulse_framework.search.result import REASONS, StopReason

__all__ = ["NoRoomError", "RowStepper", "Rows", "arrange", "watched_names"]

Rows = dict[str, Tensor]

_TARGET, _BUDGET, _STALLED, _NON_FINITE, _ENOUGH = (
    REASONS.index(StopReason[name]) for name in ("TARGET", "BUDGET", "STALLED", "NON_FINITE", "ENOUGH")
)
_FLOAT16_SCALE = 2.0**16  # objectives are scaled so that float16 gradients do not vanish; each row halves its own on overflow
_LEAST_SCALE = 2.0**-24  # a gradient that is not finite at this scale has not overflowed: it is none


class NoRoomError(RuntimeError):
    """So many rows do not fit; they are as they were before the step."""


@dataclass(frozen=True)
class RowStepper:
    """Takes one step of one phase, in place, for any number of rows.

    Attributes:
        generator: G, joint with the unknown parameters of A.
        degradation: A.
        phase: Settings of the phase.
        priors: Prior of every block that moves.
        table: Coefficients of the optimiser for every step, on the device, in the dtype of the latents.
        network: What makes the images: G, or G compiled.
        watch: Whether the rows also record what ``watched_names`` says; nothing of it enters a result.
        whole: What G is a truncation of, if it is one.
        observed: The operator's mask, on the device, if it has one.
    """

    generator: Generator
    degradation: Degradation
    phase: Phase
    priors: dict[str, LatentPrior]
    table: Tensor
    network: Callable[[Latents], Tensor]
    watch: bool = False
    whole: Generator | None = None
    observed: Tensor | None = None

    def start(self, latents: Latents, measurement: Tensor, threshold: Tensor, noise: Tensor, keys: Tensor) -> Rows:
        """Rows of searches that begin at the given full input.

        Args:
            latents: Of N items.
            measurement: Shape (N, *measurement).
            threshold: Mean square error that each has to reach, shape (N,).
            noise: Variance of the noise in each measurement, as far as a term asks for it, shape (N,).
            keys: Of the random numbers of each, shape (N, 2).
        """
        count = len(measurement)
        number = measurement.new_zeros(count)
        integer = torch.zeros(count, dtype=torch.int64, device=measurement.device)
        rows = {
            "measurement": measurement.clone(),
            "threshold": threshold.clone(),
            "noise": noise.clone(),
            "keys": keys.to(integer.device),
            "steps": integer.clone(),
            "reason": integer.clone(),
            "scale": number + _FLOAT16_SCALE,
            "stall/reference": number + torch.inf,
            "stall/age": integer.clone(),
            "best/objective": number + torch.inf,
            "best/mse": number + torch.inf,
            "best/feasible": number != 0,
            "best/step": integer - 1,
            "best/image": measurement.new_full((count, *self.generator.image_shape), torch.nan),
            "trace": measurement.new_full((count, self.phase.stop.steps, 2), torch.nan),
        }
        if self.watch:
            rows["watched"] = measurement.new_full((count, self.phase.stop.steps, len(watched_names(self.phase))), torch.nan)
        for name, value in latents.items():
            rows[f"latent/{name}"] = value.clone()
            rows[f"best/latent/{name}"] = value.clone()
        state = self.phase.optimiser.begin({name: latents[name] for name in self.priors}, measurement)
        return rows | {f"state/{key}": value for key, value in state.items()}

    def step(self, rows: Rows) -> None:
        """Evaluate the iterate, keep it where it is the best so far, decide who stops, move on.

        Raises:
            ValueError: The objective does not depend on a block that moves.
            NoRoomError: The step needs more memory than there is; nothing has changed.
        """
        float16 = torch.is_autocast_enabled(rows["measurement"].device.type) and (
            torch.get_autocast_dtype(rows["measurement"].device.type) == torch.float16
        )
        latents = {name: rows[f"latent/{name}"].detach() for name in self._names(rows)}
        for name in self.priors:
            latents[name].requires_grad_()
        try:
            with torch.enable_grad():
                at = self._evaluate(latents, rows)
                with part("objective"):
                    parts = self.phase.objective.parts(at)
                    objective = total(parts)
                    loss = objective * rows["scale"] if float16 else objective
                with part("gradients"):
                    found = torch.autograd.grad(loss.sum(), [latents[name] for name in self.priors], allow_unused=True)
        except RuntimeError as error:
            if _is_out_of_memory(error):
                raise NoRoomError(f"{len(rows['steps'])} searches at once do not fit in memory") from error
            raise
        gradients = {name: gradient for name, gradient in zip(self.priors, found, strict=True) if gradient is not None}
        if len(gradients) < len(found):
            idle = sorted(set(self.priors) - set(gradients))
            raise ValueError(f"phase blocks: expected blocks that the objective depends on, got {idle}; leave them out")
        with torch.no_grad():
            objective, live, number = objective.detach(), rows["reason"] == 0, rows["steps"]
            with part("best so far"):
                finite, feasible = self._judge(rows, at, objective, parts)
            with part("optimiser"):
                sound = self._move(rows, latents, finite, gradients, objective, float16=float16)
            with part("best so far"):
                self._keep(rows, latents, at, objective, live & finite, feasible, sound)
            if self.watch:
                moved = {name: rows[f"latent/{name}"] - latents[name] for name in self.priors}
                norms = [_norm({name: latents[name] for name in self.priors}), _norm(moved), _norm(gradients)]
                self._record(rows, "watched", live, number, [*norms, *parts.values()])

    def _names(self, rows: Rows) -> list[str]:
        return [key.removeprefix("latent/") for key in rows if key.startswith("latent/")]

    def _evaluate(self, latents: Latents, rows: Rows) -> Evaluation:
        """G under the caller's precision; A and everything after it in the precision of the latents."""
        measurement = rows["measurement"]
        with part("generator"):
            image = self.network(latents).to(measurement.dtype)
        with part("degradation"), torch.autocast(measurement.device.type, enabled=False):
            degraded = self.degradation.at(image, latents)
            mse = (degraded - measurement).square().flatten(1).mean(1)
            unknowns = self.degradation.unknowns(latents)

        def lift(name: str) -> Tensor:
            with torch.autocast(measurement.device.type, enabled=False):
                return self.generator.lift(latents, name)

        known = (self.observed, rows["keys"], rows["steps"])
        return Evaluation(latents, self.priors, image, degraded, measurement, mse, lift, unknowns, rows["noise"], *known)

    def _judge(self, rows: Rows, at: Evaluation, objective: Tensor, parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Record the iterate, and note which rule, if any, ends the search here; whether it is finite, and feasible."""
        stop = self.phase.stop
        live, mse, number = rows["reason"] == 0, at.mse.detach(), rows["steps"]
        finite = objective.isfinite() & mse.isfinite() & at.image.detach().flatten(1).isfinite().all(1)  # A may not see all of it
        feasible = finite & (mse <= rows["threshold"])
        self._record(rows, "trace", live, number, [objective, mse])

        gained = objective < rows["stall/reference"] - stop.tolerance * rows["stall/reference"].abs().nan_to_num(posinf=0)
        rows["stall/age"] = torch.where(gained, 0, rows["stall/age"] + 1)
        rows["stall/reference"] = torch.where(gained, objective, rows["stall/reference"])
        rows["steps"] = number + live
        reason = torch.zeros_like(number)
        if stop.patience is not None:
            reason = torch.where(rows["stall/age"] >= stop.patience, _STALLED, reason)
        reason = torch.where(rows["steps"] >= stop.steps, _BUDGET, reason)
        if stop.enough:
            low = torch.stack([parts[name].detach() <= value for name, value in stop.enough.items()]).all(0)
            reason = torch.where(low, _ENOUGH, reason)
        reason = torch.where(~finite, _NON_FINITE, reason)
        if stop.at_target:
            reason = torch.where(feasible, _TARGET, reason)
        rows["reason"] = torch.where(live, reason, rows["reason"])
        return finite, feasible

    def _keep(
        self, rows: Rows, latents: Latents, at: Evaluation, objective: Tensor, finite: Tensor, feasible: Tensor, sound: Tensor
    ) -> None:
        """Remember the iterate where it is better; or, if the last is to be kept, where the optimiser took it."""
        if self.phase.stop.keep == "last":
            better = finite & sound & rows["state/taken"] if "state/taken" in rows else finite
        else:
            lower = objective < rows["best/objective"]
            better = finite & ((feasible & ~rows["best/feasible"]) | ((feasible == rows["best/feasible"]) & lower))
        number = rows["steps"] - 1
        kept = {"objective": objective, "mse": at.mse.detach(), "feasible": feasible, "step": number, "image": at.image.detach()}
        kept |= {f"latent/{name}": value.detach() for name, value in latents.items()}
        for key, value in kept.items():
            torch.where(wide(better, value), value, rows[f"best/{key}"], out=rows[f"best/{key}"])

    def _record(self, rows: Rows, key: str, live: Tensor, number: Tensor, values: list[Tensor]) -> None:
        """Write one line, that of this iterate, for the searches under way."""
        index = number.clamp(max=self.phase.stop.steps - 1)[:, None, None].expand(-1, 1, len(values))
        old = rows[key].gather(1, index)
        rows[key].scatter_(1, index, torch.where(live[:, None, None], torch.stack(values, 1)[:, None], old))

    def _move(
        self, rows: Rows, latents: Latents, finite: Tensor, gradients: dict[str, Tensor], objective: Tensor, *, float16: bool
    ) -> Tensor:
        """One step of the optimiser on the manifold of every block that moves; none where a float16 gradient overflowed.

        Returns:
            Where the gradient is finite, shape (N,).
        """
        sound = torch.stack([gradient.flatten(1).isfinite().all(1) for gradient in gradients.values()]).all(0)
        scale = rows["scale"]
        over = (rows["reason"] == 0) & finite & ~sound
        if float16:
            rows["scale"] = torch.where(sound, scale, scale / 2)
            over &= scale <= _LEAST_SCALE
            for name, gradient in gradients.items():
                gradients[name] = torch.where(wide(sound, gradient), gradient / wide(scale, gradient), 0)
        rows["reason"] = torch.where(over, _NON_FINITE, rows["reason"])
        at = Iterate(
            latents={name: value.detach() for name, value in latents.items()},
            gradients=gradients,
            manifolds={name: prior.manifold for name, prior in self.priors.items()},
            objective=objective,
            live=rows["reason"] == 0,
            coefficients=self.table[(rows["steps"] - 1).clamp(0, len(self.table) - 1)].T,
            weight=self.phase.objective.l2_weight,
            measured=self._measured,
            keys=rows["keys"],
            numbers=rows["steps"] - 1,
        )
        kept = {key.removeprefix("state/"): value for key, value in rows.items() if key.startswith("state/")}
        before = {key: value.clone() for key, value in kept.items()} if float16 else {}
        moved, state = self.phase.optimiser.move(at, kept)
        if float16:
            moved = {name: torch.where(wide(sound, value), value, at.latents[name]) for name, value in moved.items()}
            state = {key: torch.where(wide(sound, value), value, before[key]) for key, value in state.items()}
        rows |= {f"latent/{name}": value for name, value in moved.items()}
        rows |= {f"state/{key}": value for key, value in state.items()}
        return sound

    def _measured(self, latents: Latents) -> Tensor:
        """A(G(z)), in full precision."""
        return self.degradation.at(self.generator(latents), latents)

    def corrected(self, measurement: Tensor, latents: Latents) -> Tensor:
        """The measurement of a search that begins at these latents, without what a truncated G lacks of it there.

        .. math:: y' = y + A(G_c(z)) - A(G(z)),

        so that the residual where the phase begins is that of the whole generator: the correction of a multigrid method's full
        approximation scheme (Brandt, Mathematics of Computation 31, 1977).
        """
        if self.whole is None:
            return measurement
        with torch.no_grad(), torch.autocast(measurement.device.type, enabled=False):
            return measurement + self._measured(latents) - self.degradation.at(self.whole(latents), latents)


def watched_names(phase: Phase) -> tuple[str, ...]:
    """Norms of the latents that move, of the step taken from there and of the gradient, over all blocks; weighted terms."""
    return ("radius", "step_size", "gradient_norm", *(f"term/{name}" for name in phase.objective.terms))


def _norm(latents: Latents) -> Tensor:
    """Euclidean norm of each item, all blocks together, shape (N,)."""
    norms = [torch.linalg.vector_norm(value.flatten(1), dim=1) for value in latents.values()]
    return norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms), dim=0)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """CUDA's own class, and what the allocators of a CPU and of MPS say."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in str(error) for text in ("can't allocate memory", "not enough memory", "out of memory")
    )


def arrange(rows: Rows, kept: list[int], fresh: list[Rows], width: int) -> Rows:
    """Rows kept, then fresh ones, then copies of the first to fill the width."""
    if rows:
        index = torch.tensor(kept, dtype=torch.int64, device=rows["steps"].device)
        fresh = [{key: value[index] for key, value in rows.items()}, *fresh]
    joined = {key: torch.cat([part[key] for part in fresh]) for key in fresh[0]}
    count = len(joined["steps"])
    if count == width:
        return joined
    index = torch.arange(width, device=joined["steps"].device)
    index[count:] = 0
    return {key: value[index] for key, value in joined.items()}
