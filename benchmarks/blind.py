"""Blind searches: how well unknown parameters are recovered, on images that the generator itself has drawn.

Each target is a seeded draw of `faces-stylegan2-64`, measured with parameters drawn from what the search believes of them; a
point spread function is a random curve of motion. The search is that of `experiment=blind`.

    python benchmarks/blind.py              # 32 targets of each kind, some minutes each
    python benchmarks/blind.py -n 4 blind_gaussian_blur
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from _readme import machine, write_section
from torch import Tensor

from degradations.blind import Blind
from degradations.blur import trajectory_blur
from pulse_framework.cli.compose import build, load
from pulse_framework.interfaces import Generator
from pulse_framework.search import Plan, draw, stream

KINDS = {
    "blind_gaussian_blur": [],
    "blind_motion_blur": [],
    "blind_psf": ["search.steps=600"],
    "blind_gamma": [],
    "blind_exposure": [],
    "blind_jpeg": [],
    "blind_gaussian_noise": ["objective=gaussian"],
}


def truth_of(operator: Blind, index: int) -> dict[str, Tensor]:
    """Parameters of one target: u drawn as a search draws it; of a PSF, a curve of five pixels."""
    rng, found = stream(0, f"truth {index}"), {}
    for name, chart in operator.charts.items():
        if name == "psf":
            side = chart.shape[0]
            psf = torch.nn.functional.pad(trajectory_blur(5.0, seed=index).psf, [side] * 4)
            top, left = (psf.shape[0] - side) // 2, (psf.shape[1] - side) // 2
            cut = psf[top : top + side, left : left + side]
            found[name] = cut / cut.sum()
        else:
            found[name] = chart.value(torch.randn(chart.shape, generator=rng, dtype=torch.float64))
    return found


def recovered(kind: str, count: int, overrides: Sequence[str] = ()) -> tuple[dict[str, list[float]], float]:
    """Relative errors of every parameter, and the seconds it took."""
    config = load(["experiment=blind", f"degradation={kind}", *KINDS[kind], *overrides])
    generator, operator, plan = build(config.generator), build(config.degradation), build(config.search)
    assert isinstance(generator, Generator)
    assert isinstance(operator, Blind)
    assert isinstance(plan, Plan)
    truths, targets = [], []
    with torch.no_grad():
        for index in range(count):
            truths.append(truth_of(operator, index))
            image = generator(draw(generator, {}, stream(0, f"target {index}"), torch.zeros(1))).clamp(0, 1)
            y = operator.operator(**truths[-1]).measure(image, stream(0, f"noise {index}"))[0]
            targets.append((str(index), y))
    errors: dict[str, list[float]] = {name: [] for name in operator.charts}
    begun = time.perf_counter()
    for answer in plan.run(plan.engine(generator, operator), targets):
        found = answer.samples[0].parameters
        for name, chart in operator.charts.items():
            truth = truths[answer.index][name]
            errors[name].append(float(chart.error(torch.tensor(found[name], dtype=torch.float64), truth)))
    return errors, time.perf_counter() - begun


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help="degradations to try; the section is written for all")
    parser.add_argument("-n", type=int, default=32, help="targets of each")
    parser.add_argument("-o", "--override", action="append", default=[], help="settings, KEY=VALUE")
    given = parser.parse_args()
    lines = []
    for kind in given.kinds:
        errors, seconds = recovered(kind, given.n, given.override)
        for name, values in errors.items():
            near = sum(value <= 0.1 for value in values)
            middle, worst = (100 * value for value in (statistics.median(values), max(values)))
            numbers = f"{near} of {given.n} | {middle:.1f} % | {worst:.1f} % | {seconds / given.n:.1f}"
            lines.append(f"| `{kind}` | {name} | {numbers} |")
            print(lines[-1], flush=True)
    if given.kinds != list(KINDS):
        return
    table = "\n".join(lines)
    write_section(
        "blind",
        f"""## Unknown parameters, recovered

{given.n} images drawn by `faces-stylegan2-64` each, measured with parameters that are drawn too, searched with
`experiment=blind` (300 steps; 600 for the PSF). Errors are relative to the truth, a direction's to 90 degrees.

| degradation | parameter | within 10 % | median error | largest | seconds a target |
| --- | --- | --- | --- | --- | --- |
{table}

{machine()}.""",
    )


if __name__ == "__main__":
    main()
