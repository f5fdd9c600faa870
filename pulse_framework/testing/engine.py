"""The laws of a search: one suite judges any phase, and any engine, on a world whose answer is known."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.latents import Latents
from pulse_framework.search import Engine, Evaluation, Phase, Plan, Search, SearchResult, Status, StopReason, draw, stream
from pulse_framework.testing.checks import close, equal
from pulse_framework.testing.toys import LinearToy, LinearWorld

__all__ = ["EngineContract"]


class EngineContract(ABC):
    """Laws of the engine under the settings of one phase, in float64.

    Attributes:
        tolerance: How near the optimum the best latent must come.
        same: Relative difference allowed between two ways to run one search.
    """

    tolerance: float = 1e-6
    same: float = 1e-8

    @abstractmethod
    def make_phase(self) -> Phase:
        """A phase that moves ``z`` and whose budget suffices to reach the optimum of a ``LinearWorld``."""

    def make_engine(self, generator: Generator, degradation: Degradation, phases: Iterable[Phase], slots: int) -> Engine:
        """The engine on trial."""
        return Engine(generator, degradation, phases, slots=slots)

    def optimum(self, world: LinearWorld, measurement: Tensor) -> Tensor:
        """The best latent: here that of least mean square error."""
        return world.optimum(measurement)

    def test_reaches_the_known_optimum(self) -> None:
        """From every start."""
        world = LinearWorld.make()
        images = world.measurements(3)
        searches = [Search(key, y, restart, index=index) for index, (key, y) in enumerate(images) for restart in range(2)]
        for result in self._run(world, searches):
            best = self.optimum(world, images[result.index][1])
            close(result.latents["z"], best, f"latent of {result.key}, restart {result.restart}", self.tolerance)

    def test_answer_is_one_iterate(self) -> None:
        """Evaluating the returned latent gives the returned image, mse and objective."""
        world, phase = LinearWorld.make(), self._short()
        priors = phase.priors(world.generator)
        for result, (_, y) in zip(self._all(world, 5), world.measurements(5), strict=True):
            latents = {name: value[None] for name, value in result.latents.items()}
            image = world.generator(latents).detach()
            degraded = world.degradation(image)
            mse = (degraded - y).square().flatten(1).mean(1)
            objective = phase.objective(Evaluation(latents, priors, image, degraded, y[None], mse))
            close(result.image, image[0], "image of the latent", 1e-12)
            close(torch.tensor([result.mse, result.objective]), torch.stack([mse[0], objective[0]]), "mse and objective", 1e-6)

    def test_best_is_the_best_of_its_trace(self) -> None:
        """Feasible before not, then the lowest objective, then the earliest; ``step`` and ``steps`` say where."""
        world = LinearWorld.make()
        for result in self._all(world, 5):
            assert len(result.trace) == result.steps, f"trace: expected {result.steps} iterates, got {len(result.trace)}"
            threshold = -1.0 if result.target_mse is None else result.target_mse
            ranks = [(mse > threshold, objective, step) for step, (objective, mse) in enumerate(result.trace.tolist())]
            got = (not result.feasible, result.objective, result.step)
            assert got == min(ranks), f"best iterate: expected {min(ranks)}, got {got}"
            assert result.trace[result.step, 1] == result.mse, "best iterate: expected the mse of its step"

    def test_more_steps_are_never_worse(self) -> None:
        """At a fixed rate, the best objective never rises with the budget."""
        world, phase = LinearWorld.make(), self.make_phase()
        (key, y), last = world.measurements(1)[0], float("inf")
        for steps in range(1, 12):
            shorter = replace(phase, schedule=lambda _: 1.0, stop=replace(phase.stop, steps=steps))
            (result,) = self._run(world, [Search(key, y)], shorter)
            assert result.objective <= last, f"objective after {steps} steps: expected at most {last}, got {result.objective}"
            last = result.objective

    def test_restarts_equal_the_best_of_single_runs(self) -> None:
        """R restarts of an image give the best of R searches run alone."""
        world, restarts = LinearWorld.make(), 4
        images = world.measurements(3)
        plan = Plan(phases=(self._short(),), restarts=restarts)
        engine = self.make_engine(world.generator, world.degradation, plan.phases, plan.slots)
        answers = sorted(plan.run(engine, images), key=lambda answer: answer.index)
        for answer, (key, y) in zip(answers, images, strict=True):
            single = [self._run(world, [Search(key, y, restart)], self._short())[0] for restart in range(restarts)]
            best, (got,) = min(single, key=lambda result: result.rank), answer.samples
            assert got.restart == best.restart, f"best restart of {key}: expected {best.restart}, got {got.restart}"
            close(got.image, best.image, f"image of {key}", self.same)
            starts = {float(result.trace[0, 0]) for result in single}
            assert len(starts) == restarts, "expected every restart to begin elsewhere"

    def test_results_ignore_batch_size(self) -> None:
        """1, 5 and 37 slots."""
        world = LinearWorld.make()
        alone = self._all(world, 7, slots=1)
        for slots in (5, 37):
            self._agree(self._all(world, 7, slots=slots), alone, f"{slots} slots against one")

    def test_results_ignore_order(self) -> None:
        """And the other images."""
        world = LinearWorld.make()
        forward = self._all(world, 7, slots=4)
        searches = [Search(key, y, index=index) for index, (key, y) in enumerate(world.measurements(7))]
        backward = sorted(self._run(world, searches[::-1], self._short(), slots=4), key=lambda result: result.index)
        self._agree(backward, forward, "reversed queue")
        self._agree(self._run(world, searches[3:4], self._short(), slots=4), forward[3:4], "one of the queue alone")

    def test_seed_decides_the_start(self) -> None:
        """0 is a seed: it equals itself and differs from 1."""
        world = LinearWorld.make()
        key, y = world.measurements(1)[0]
        runs = [self._run(world, [Search(key, y, seed=seed)], self._short())[0].trace[0, 0] for seed in (0, 0, 1)]
        equal(runs[1], runs[0], "second run with seed 0")
        assert runs[2] != runs[0], "expected seed 1 to begin elsewhere than seed 0"

    def test_every_search_gets_one_answer(self) -> None:
        """Also those whose images are never finite, and their neighbours cannot tell."""
        world = LinearWorld.make()
        healthy = self._all(world, 6, slots=4)
        key, y = world.measurements(6)[2]
        start = draw(world.generator, self._short().priors(world.generator), stream(0, key), y)["z"]
        sick = self._all(replace(world, generator=_Sick(world.generator, start)), 6, slots=4)
        assert [result.index for result in sick] == list(range(6)), f"expected six answers, got {[item.index for item in sick]}"
        assert sick[2].status is Status.FAILED, f"expected status failed, got {sick[2].status}"
        assert sick[2].reason is StopReason.NON_FINITE, f"expected reason not finite, got {sick[2].reason}"
        others = [0, 1, 3, 4, 5]
        self._agree([sick[row] for row in others], [healthy[row] for row in others], "neighbours of a failed search")

    def _short(self) -> Phase:
        """The phase cut to a few steps, where searches have not met at the optimum yet."""
        phase = self.make_phase()
        return replace(phase, stop=replace(phase.stop, steps=min(phase.stop.steps, 9)))

    def _run(
        self, world: LinearWorld, searches: Sequence[Search], phase: Phase | None = None, slots: int = 16
    ) -> list[SearchResult]:
        engine = self.make_engine(world.generator, world.degradation, [phase or self.make_phase()], slots)
        return list(engine.run(searches))

    def _all(self, world: LinearWorld, count: int, slots: int = 16) -> list[SearchResult]:
        """Short searches for so many images, in their order."""
        searches = [Search(key, y, index=index) for index, (key, y) in enumerate(world.measurements(count))]
        return sorted(self._run(world, searches, self._short(), slots=slots), key=lambda result: result.index)

    def _agree(self, got: Sequence[SearchResult], expected: Sequence[SearchResult], what: str) -> None:
        assert len(got) == len(expected), f"{what}: expected {len(expected)} answers, got {len(got)}"
        for one, other in zip(got, expected, strict=True):
            assert (one.key, one.step, one.steps) == (other.key, other.step, other.steps), f"{what}: {one.key} took another way"
            close(one.image, other.image, f"{what}: image of {one.key}", self.same)
            close(one.trace, other.trace, f"{what}: trace of {one.key}", self.same)


class _Sick(LinearToy):
    """The world's generator, but for one latent its image is NaN."""

    latent: Tensor

    def __init__(self, well: LinearToy, latent: Tensor) -> None:
        super().__init__(well.weight.detach(), well.bias.detach())
        self.register_buffer("latent", latent)

    def synthesize(self, latents: Latents) -> Tensor:
        """W z + b, or NaN."""
        sick = (latents["z"] - self.latent).abs().amax(1) < 1e-12
        return super().synthesize(latents) + torch.where(sick, torch.nan, 0.0).to(self.latent)[:, None, None, None]
