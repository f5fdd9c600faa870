"""Searches compared: every method answers the same measurements, a few at a time and in turn, in one process.

Seconds are those of the processor, so that other programs matter little; on other devices those of the clock. What comes once
for all images (the looks of a bank at its draws, batch widths compared) comes before, with a first search that counts for none.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pulse_framework.cli.tally import Line, Tally
from pulse_framework.cli.targets import Targets
from pulse_framework.interfaces import Degradation, Generator, LatentPrior
from pulse_framework.latents import Latents
from pulse_framework.manifolds import Sphere
from pulse_framework.memory import PeakMemory
from pulse_framework.search import Engine, Plan, SearchResult, draw, stream
from pulse_framework.search.joint import join

__all__ = ["TOGETHER", "Comparison", "Method", "answers", "compare", "radius_error"]

TOGETHER = 16
"""Images that a method answers before it is the next one's turn."""

Queue = Sequence[tuple[str, Tensor]]
"""Key and measurement of each image."""


def answers(plan: Plan, engine: Engine, queue: Queue) -> list[SearchResult]:
    """The best answer to every measurement, in order."""
    found = {answer.index: answer.samples[0] for answer in plan.run(engine, queue)}
    return [found[index] for index in range(len(queue))]


@dataclass(frozen=True)
class Method:
    """A way to answer measurements.

    Attributes:
        plan: Settings of its searches.
        generator: G, where the searches run.
        way: How the plan is used.
    """

    plan: Plan
    generator: Generator
    way: Callable[[Plan, Engine, Queue], list[SearchResult]] = answers


@dataclass
class _Run:
    """A method that has begun, and the megabytes that its start added and kept."""

    method: Method
    engine: Engine
    seconds: float
    added: float | None
    kept: float | None


@dataclass
class Comparison:
    """What was found.

    Attributes:
        tallies: By title of the targets and name of the method.
        refused: Why a method was left out, by name: the generator, the operator or the search refused it.
    """

    tallies: dict[str, dict[str, Tally]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def compare(
    methods: Mapping[str, Method],
    operator: Degradation,
    sets: Mapping[str, Targets],
    tell: Callable[[str, str, int, Tally], None] = lambda *_: None,
) -> Comparison:
    """Every method on the same noiseless measurements.

    Args:
        methods: By name.
        operator: A, where the searches run.
        sets: Targets by title, at least one image in each.
        tell: Called after every turn of a method with the title of the targets, its name, how many images it has answered in
            that turn, and its tally.
    """
    found, runs = Comparison(), dict[str, _Run]()
    with torch.no_grad():
        measured = {title: operator(targets.images) for title, targets in sets.items()}
    y = next(iter(measured.values()))[:1]
    _rehearse(methods.values(), operator, y)
    for name, method in methods.items():
        try:
            runs[name] = _begin(method, operator, y)
        except (ValueError, TypeError, RuntimeError) as error:
            found.refused[name] = " ".join(str(error).split())
    for title, targets in sets.items():
        tallies = found.tallies[title] = {name: Tally(start=run.seconds, start_peak=run.added) for name, run in runs.items()}
        for turn, first in enumerate(range(0, len(targets.keys), TOGETHER)):
            keys, images = targets.keys[first : first + TOGETHER], targets.images[first : first + TOGETHER]
            queue = list(zip(keys, measured[title][first : first + TOGETHER], strict=True))
            for name, run in list(runs.items())[:: -1 if turn % 2 else 1]:
                _turn(run, tallies[name], queue, images, (name, title))
                tell(title, name, len(queue), tallies[name])
    return found


def _begin(method: Method, operator: Degradation, y: Tensor) -> _Run:
    """Whatever comes before the first image: the engine, and all that its first search makes for those that follow."""
    with PeakMemory(y.device) as memory:
        engine = method.plan.engine(method.generator, operator)
        begun = _now(y.device)
        method.way(method.plan, engine, [("warm", y[0])])
        seconds = _now(y.device) - begun
    return _Run(method, engine, seconds, memory.added, memory.kept)


def _turn(run: _Run, tally: Tally, queue: Queue, images: Tensor, names: tuple[str, str]) -> None:
    """Some images answered, and counted."""
    with PeakMemory(images.device) as memory:
        begun = _now(images.device)
        results = run.method.way(run.method.plan, run.engine, queue)
        seconds = _now(images.device) - begun
    if memory.added is not None:
        tally.peak = max(tally.peak or 0.0, max(0.0, run.kept or 0.0) + memory.added)
    share = seconds / (sum(result.seconds for result in results) or 1.0)
    spheres = _spheres(run.engine.starts.priors[-1])
    for result, truth in zip(results, images, strict=True):
        line = Line(
            method=names[0],
            targets=names[1],
            image=result.key,
            status=result.status.value,
            mse=_finite(result.mse),
            truth_mse=_finite(float((result.image - truth).square().mean())),
            radius_error=radius_error(result.latents, spheres),
            steps=result.steps,
            seconds=result.seconds * share,
        )
        tally.lines.append(line)


def _rehearse(methods: Iterable[Method], operator: Degradation, y: Tensor) -> None:
    """Both passes, once, so that what the process loads and sets up for any search counts for none."""
    for generator in {id(method.generator): method.generator for method in methods}.values():
        for count in (1, TOGETHER):
            joint = join(generator, operator)
            drawn = [draw(joint, {}, stream(0, "rehearsal", k), y) for k in range(count)]
            latents = {name: torch.cat([item[name] for item in drawn]).requires_grad_() for name in drawn[0]}
            with contextlib.suppress(ValueError, TypeError, RuntimeError):  # the methods say so themselves
                loss = (operator.at(joint(latents), latents) - y).square().mean()
                torch.autograd.grad(loss, list(latents.values()), allow_unused=True)


def _now(device: torch.device) -> float:
    """Seconds: of this process on a CPU, else of the clock, once the device has done what it was given."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _spheres(priors: Mapping[str, LatentPrior]) -> dict[str, Sphere]:
    """Those of the blocks that move which do so on spheres."""
    return {name: prior.manifold for name, prior in priors.items() if isinstance(prior.manifold, Sphere)}


def radius_error(latents: Latents, spheres: Mapping[str, Sphere]) -> float | None:
    """The largest deviation of a point from the radius √d, relative to it; d is the number of its entries.

    Args:
        latents: Blocks without N.
        spheres: Where some of them move, by name.

    Returns:
        None where none of them is there.
    """
    errors = []
    for name in latents.keys() & spheres.keys():
        points = latents[name].flatten(-spheres[name].ndim)
        errors.append(float((points.square().mean(-1).sqrt() - 1).abs().max()))
    return max(errors, default=None)
