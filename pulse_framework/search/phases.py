"""A search as data: phases, stop rules, and the measurements to be searched for."""

import fnmatch
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from pulse_framework.interfaces import Generator, LatentPrior
from pulse_framework.latents import Latents, check_latents, space
from pulse_framework.search.joint import StandardNormal, unknown_blocks
from pulse_framework.search.objective import Objective
from pulse_framework.search.optimisers import Optimiser
from pulse_framework.search.schedules import Constant, Schedule

__all__ = ["Phase", "Search", "StopRule", "mse_from_db", "psnr_db", "searched_blocks", "start_at"]


def psnr_db(mse: float) -> float:
    """Peak signal-to-noise ratio of images in [0, 1] from their mean square error, in dB."""
    return math.inf if mse == 0 else -10 * math.log10(mse)


def mse_from_db(db: float) -> float:
    """Mean square error of images in [0, 1] at the given peak signal-to-noise ratio."""
    return 10 ** (-db / 10)


def searched_blocks(generator: Generator) -> tuple[str, ...]:
    """Names of the blocks that a search moves when none are named: the first one that a gradient reaches."""
    return tuple(name for name, block in space(generator.blocks).items() if block.searchable)[:1]


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """When one search is over. Every rule is decided per search.

    Attributes:
        steps: Budget: how many iterates are evaluated.
        target_db: Consistency that counts as converged, in dB; or
        target_mse: the same as a mean square error in [0, 1] units.
        target_noise: How many times the residual that the noise is expected to leave counts as converged, if that is looser
            (see ``discrepancy``); 1 is Morozov's principle. None asks for the other target whatever the noise. With no target at
            all, nothing counts as converged.
        at_target: Whether reaching the target ends the search, or only decides its status.
        patience: Stop after so many steps in a row without an improvement of the objective by more than the fraction
            ``tolerance``; None never does.
        tolerance: See ``patience``.
        enough: Stop where each of these terms of the objective, weighted, is at most its number: name to number.
        keep: Which iterate is the answer: the ``best``, or the ``last`` that was finite and that the optimiser did not take back:
            a sample of ``Langevin``, or what a published method ends with.

    Raises:
        ValueError: A number is out of range, both targets are given, or ``keep`` is unknown.
    """

    steps: int
    target_db: float | None = None
    target_mse: float | None = None
    target_noise: float | None = None
    at_target: bool = True
    patience: int | None = None
    tolerance: float = 1e-3
    enough: Mapping[str, float] | None = None
    keep: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"search steps: expected at least 1, got {self.steps}")
        if self.target_db is not None and self.target_mse is not None:
            raise ValueError("search target: expected one of target_db and target_mse, got both; set one of them to null")
        if self.target_mse is not None and not self.target_mse >= 0:
            raise ValueError(f"search target_mse: expected a mean square error of at least 0, got {self.target_mse}")
        if self.target_noise is not None and not 0 < self.target_noise < math.inf:
            raise ValueError(f"search target_noise: expected a number above 0, or null, got {self.target_noise}")
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"search patience: expected at least 1 step, or null, got {self.patience}")
        if self.keep not in ("best", "last"):
            raise ValueError(f"search keep: expected best or last, got {self.keep!r}")

    @property
    def has_target(self) -> bool:
        """Whether anything can count as converged."""
        return self.target_noise is not None or self.threshold >= 0

    @property
    def threshold(self) -> float:
        """The target without noise, as a mean square error; -1, which nothing reaches, when there is none."""
        if self.target_db is not None:
            return mse_from_db(self.target_db)
        return -1.0 if self.target_mse is None else self.target_mse

    def threshold_at(self, residual: float) -> float:
        """The target where the noise leaves this mean square error: the looser of the two."""
        return self.threshold if self.target_noise is None else max(self.threshold, self.target_noise * residual)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One leg of a search: which latent blocks move, where, and how.

    Attributes:
        prior: Prior, and so manifold, of the blocks that move: one for all, or one for each name. Unknown parameters of the
            operator have a standard normal one, unless they are named.
        objective: What is minimised.
        optimiser: How.
        schedule: Multiplier of its rate over the budget.
        stop: When it ends.
        blocks: Names of the blocks that move; None means the names of ``prior``, or the generator's ladder, one rung after the
            other; see ``on``.
        beside: Priors of blocks that move beside those, on every rung; by name, or by a pattern of names such as ``noise_*``,
            or several, ``noise_[5-9]|noise_10``.
        held: Blocks of the input that do not move, each lifted from the phase before: such as ``rgb_8``, the image made on the
            way to the ``features_8`` that move.
        coarse: How many of the finest levels of the generator are left out, see ``Generator.truncated``; 0: none. The measurement
            is then corrected, see ``RowStepper.corrected``, and the phase's answer is but a start for the next.
        climb: Whether a phase that names no block climbs the ladder; else it moves the first block that a gradient reaches.
    """

    prior: LatentPrior | Mapping[str, LatentPrior]
    objective: Objective
    optimiser: Optimiser
    stop: StopRule
    schedule: Schedule = field(default_factory=Constant)
    blocks: Sequence[str] | None = None
    beside: Mapping[str, LatentPrior] | None = None
    held: Sequence[str] = ()
    coarse: int = 0
    climb: bool = True

    def on(self, generator: Generator) -> tuple["Phase", ...]:
        """What the phase comes to on a generator, checked.

        Where no block is named, that is one phase for each rung of the generator's ladder. Each but the last
        has a tenth of the budget, which is enough to come near, and is left out if that is less than one step; the last has what
        is left. Each has a schedule of its own. Terms that do not
        apply are left out.

        Raises:
            ValueError: A block is unknown, cannot be searched, or has no prior; there is none to move; one that is held fills the
                place of one that moves; a term refuses them; the generator cannot be truncated so far.
        """
        if self.coarse != 0:
            generator.truncated(self.coarse)
        rungs = [rung._widened(generator) for rung in self._rungs(generator)]
        for rung in rungs:
            space(generator.blocks, [*rung.priors(generator), *self.held])
        known = tuple(rung._knowing(generator, tuple(rung.priors(generator))) for rung in rungs)
        for rung in known:
            if unknown := sorted(set(rung.stop.enough or ()) - set(rung.objective.terms)):
                raise ValueError(f"phase stop enough: expected terms among {sorted(rung.objective.terms)}, got {unknown}")
        return known

    def _knowing(self, generator: Generator, moved: tuple[str, ...]) -> "Phase":
        """The phase whose terms and optimiser know what they need of the generator."""
        return replace(self, objective=self.objective.on(generator, moved), optimiser=self.optimiser.on(generator, moved))

    def _rungs(self, generator: Generator) -> tuple["Phase", ...]:
        count = len(generator.ladder)
        if self.blocks or isinstance(self.prior, Mapping) or not (count and self.climb):
            return (self,)
        share = self.stop.steps // 10
        steps = [*[share] * (count - 1), self.stop.steps - share * (count - 1)]
        return tuple(
            replace(self, blocks=(name,), stop=replace(self.stop, steps=step))
            for name, step in zip(generator.ladder, steps, strict=True)
            if step
        )

    def _widened(self, generator: Generator) -> "Phase":
        """The phase with the blocks of ``beside`` among those that move."""
        if not self.beside:
            return self
        names = [block.name for block in generator.blocks]
        matched = {
            pattern: [name for part in pattern.split("|") for name in fnmatch.filter(names, part)] for pattern in self.beside
        }
        further = {name: self.beside[pattern] for pattern, found in matched.items() for name in found}
        if idle := [pattern for pattern, found in matched.items() if not found]:
            raise ValueError(f"phase beside: expected patterns of block names among {names}, got {idle}; correct them")
        return replace(self, prior=self.priors(generator) | further, blocks=None, beside=None)

    def priors(self, generator: Generator) -> dict[str, LatentPrior]:
        """The prior of every block that moves, in the generator's order; unknown parameters always do.

        Raises:
            ValueError: A block is unknown, cannot be searched, or has no prior; or there is none to move.
        """
        named = dict(self.prior) if isinstance(self.prior, Mapping) else {}
        unknown = {block.name: named.get(block.name, StandardNormal()) for block in unknown_blocks(generator)}
        wanted = tuple(name for name in self.blocks or named if name not in unknown) or searched_blocks(generator)
        chosen = [block for name, block in space(generator.blocks, wanted).items() if name in wanted]
        stuck = [block.name for block in chosen if not block.searchable]
        if stuck or not chosen:
            raise ValueError(f"phase blocks: expected blocks that a gradient reaches, got {stuck or 'none'}")
        if isinstance(self.prior, LatentPrior):
            return {block.name: self.prior for block in chosen} | unknown
        lacking = sorted({block.name for block in chosen} - set(named))
        if lacking:
            raise ValueError(f"phase prior: expected a prior for every block that moves, got none for {lacking}")
        return {block.name: named[block.name] for block in chosen} | unknown


@dataclass(frozen=True)
class Search:
    """One start for one measurement; its random stream is that of (seed, key, restart).

    Attributes:
        key: Name of the image: its file name, or its index.
        measurement: y, shape (c, h, w), in [0, 1] units.
        restart: Which start this is, from 0.
        seed: Seed of the run; 0 is a seed.
        index: Tells apart images of one key; the result does not depend on it.
        start: Blocks to begin at, without N (those of an earlier result, or of a file), each lifted to the blocks of the first
            phase; what they leave open is drawn. None draws everything.
    """

    key: str
    measurement: Tensor
    restart: int = 0
    seed: int = 0
    index: int = 0
    start: Latents | None = None

    def __post_init__(self) -> None:
        if not self.measurement.dtype.is_floating_point:
            raise TypeError(f"measurement of {self.key!r}: expected floats in [0, 1], got {self.measurement.dtype}")
        if not bool(torch.isfinite(self.measurement).all()):
            raise ValueError(f"measurement of {self.key!r}: expected finite numbers, got NaN or infinity; repair the image")


def start_at(generator: Generator, names: Iterable[str], start: Latents, drawn: Latents) -> dict[str, Tensor]:
    """A full input that begins at ``start`` and can be lifted to the blocks ``names``.

    Args:
        generator: Declares the blocks.
        names: The blocks of the first phase.
        start: Blocks without N; at most one of each slot.
        drawn: A full input of N = 1; it fills the slots that ``start`` leaves open, and gives device and dtype.

    Raises:
        ValueError: A block is unknown, doubled, of the wrong shape or not finite, or its slot is not among those of ``names``.
    """
    slots = {block.name: block.slot for block in generator.blocks}
    space(generator.blocks, start)
    like = next(iter(drawn.values()))
    given = {name: value.detach()[None].to(like) for name, value in start.items()}
    if wild := [name for name, value in given.items() if not bool(value.isfinite().all())]:
        raise ValueError(f"search start: expected finite numbers, got NaN or infinity in {wild}")
    taken = {slots[name] for name in given}
    if lost := sorted(name for name in given if slots[name] not in {slots[other] for other in names}):
        raise ValueError(f"search start: expected blocks that the first phase has, got {lost} besides {sorted(names)}")
    full = {name: value for name, value in drawn.items() if slots[name] not in taken} | given
    check_latents(generator.blocks, full)
    return full
