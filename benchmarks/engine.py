"""What the engine costs over the bare generator, measured in one run; writes its section of benchmarks/README.md.

Bare: G forward, A, mean square, backward to the latent, at one batch width. Engine: the same number of searches in as many
slots, every step of theirs. Rounds of the two alternate, so that both meet the same machine.
"""

import statistics
import time
from collections.abc import Iterator

import torch
from _readme import machine, write_section

from pulse_framework.cli.compose import build, load
from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.search import Plan, Search, draw, stream

MOVED = {"faces-stylegan2-64": "v_plus", "digiface-dcgan-64": "z"}
SLOTS = (1, 4, 16)
STEPS = 50
ROUNDS = 7


def bare(generator: Generator, degradation: Degradation, measurements: torch.Tensor, block: str) -> float:
    """Seconds per step of forward, A and backward, with nothing around them."""
    like = torch.zeros(())
    rows = [draw(generator, {}, stream(0, str(i)), like, [block]) for i in range(len(measurements))]
    latents = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
    z = latents[block]
    begun = time.perf_counter()
    for _ in range(STEPS):
        z.requires_grad_()
        error = (degradation(generator(latents | {block: z})) - measurements).square().flatten(1).mean(1)
        (gradient,) = torch.autograd.grad(error.sum(), z)
        z = z.detach() - gradient
    return (time.perf_counter() - begun) / STEPS


def engine(plan: Plan, generator: Generator, degradation: Degradation, measurements: torch.Tensor) -> tuple[float, float]:
    """Seconds per step of a whole run, with and without the comparison of batch widths that a new engine begins with."""
    made = plan.engine(generator, degradation)
    seconds = []
    for _ in range(2):
        searches = [Search(str(i), y) for i, y in enumerate(measurements)]
        begun = time.perf_counter()
        assert all(result.steps == STEPS for result in made.run(searches))
        seconds.append((time.perf_counter() - begun) / STEPS)
    return seconds[0], seconds[1]


def measured(name: str, block: str) -> Iterator[tuple[int, float, float, float, float, float]]:
    """Slots, milliseconds and ratios of one generator."""
    settings = [f"generator={name}", f"search.blocks=[{block}]", "objective=l2", f"search.steps={STEPS}"]
    config = load([*settings, "search.at_target=false", "search.start.draws=1", "degradation.factor=8"])
    generator, degradation = build(config.generator), build(config.degradation)
    for slots in SLOTS:
        config.search.slots = slots
        plan = build(config.search)
        measurements = torch.rand(slots, *degradation.measurement_shape(generator.image_shape))
        bare(generator, degradation, measurements, block)
        rounds = [
            (bare(generator, degradation, measurements, block), *engine(plan, generator, degradation, measurements))
            for _ in range(ROUNDS)
        ]
        alone, first, again = (statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(row[2] / row[0] for row in rounds)
        whole = statistics.median(row[1] / row[0] for row in rounds)
        print(f"{name}, {slots} slots: bare {alone * 1e3:.2f} ms, engine {again * 1e3:.2f} ms a step, ratio {ratio:.3f}")
        yield slots, alone * 1e3, again * 1e3, ratio, first * 1e3, whole


def main() -> None:
    """Measure, print and write the table."""
    rows = [(name, *row) for name, block in MOVED.items() for row in measured(name, block)]
    table = "\n".join(f"| `{n}` | {s} | {b:.2f} | {e:.2f} | {r:.3f} | {f:.2f} | {w:.3f} |" for n, s, b, e, r, f, w in rows)
    text = f"""## The engine over the bare generator

Milliseconds per step of all slots together: `z` of the DCGAN or `v_plus` of our StyleGAN2, bicubic factor 8, sphere, mean square
consistency, Adam, {STEPS} steps, medians of
{ROUNDS} rounds, the two alternating in one process. Bare is forward, A and backward alone. "New engine" includes the
comparison of batch widths that an engine makes once, before its first search.

| generator | slots | bare, ms | engine, ms | ratio | new engine, ms | ratio |
| --- | --- | --- | --- | --- | --- | --- |
{table}

{machine()}.
"""
    write_section("engine", text)


if __name__ == "__main__":
    main()
