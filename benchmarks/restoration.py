"""Ten tasks on faces that the default generator drew: down to the noise, and beside PULSE's search that only knows downscaling.

Each face goes through the true process of its task, sensor noise included. The search knows A and stops at what the noise leaves
(the discrepancy principle); "residual" is its final error against the measurement over what is expected of the noise, in dB:
0 is the noise, well below 0 would be noise that is fitted. PULSE's search is given the same measurements reduced to 8x8 pixels,
and takes them for clean ones. Writes its section of README.md.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch
from _readme import machine, write_section
from torch import Tensor

from degradations.downscale import Downscale
from pulse_framework.cli.compose import build, load
from pulse_framework.interfaces import Degradation
from pulse_framework.search import SearchResult, draw, psnr_db, stream

NOISE = "{_target_:degradations.noise.GaussianNoise,sigma:0.05}"
BICUBIC = "{_target_:degradations.downscale.Downscale,factor:%s}"
BLUR = "{_target_:degradations.blur.gaussian_blur,sigma:2.0}"
RANDOM = "{_target_:degradations.mask.random,observed:%s}"
JPEG = "{_target_:degradations.jpeg.JPEG,quality:%s}"
TASKS = {
    "downscaling x8": [BICUBIC % 8, NOISE],
    "Gaussian blur, sigma 2": [BLUR, NOISE],
    "motion blur, 15 pixels": ["{_target_:degradations.blur.motion_blur,length:15,angle:0.5}", NOISE],
    "25 % random pixels": [NOISE, RANDOM % 0.25],
    "box of half the side": [NOISE, "{_target_:degradations.mask.box,fraction:0.5}"],
    "JPEG, quality 10": [NOISE, JPEG % 10],
    "Gaussian noise 0.1": ["{_target_:degradations.noise.GaussianNoise,sigma:0.1}"],
    "greyscale": ["{_target_:degradations.colour.Greyscale}", NOISE],
    "blur, x4, noise, JPEG 50": [BLUR, BICUBIC % 4, NOISE, JPEG % 50],
    "motion blur, noise, half of the pixels": [
        "{_target_:degradations.blur.motion_blur,length:9,angle:0.5}",
        NOISE,
        RANDOM % 0.5,
    ],
}


SETTINGS = ["experiment=full_size"]


def answers(overrides: Sequence[str], measurements: Tensor, operator: Degradation) -> list[SearchResult]:
    """The answer to every measurement."""
    config = load(list(overrides))
    generator, plan = build(config.generator), build(config.search)
    engine = plan.engine(generator, operator)
    found = {a.index: a.samples[0] for a in plan.run(engine, ((str(i), y) for i, y in enumerate(measurements)))}
    return [found[i] for i in range(len(measurements))]


def image_db(results: Sequence[SearchResult], truth: Tensor) -> float:
    """Median PSNR of the answers against the true faces."""
    errors = [float((r.image.clamp(0, 1) - x).square().mean()) for r, x in zip(results, truth, strict=True)]
    return statistics.median(psnr_db(error) for error in errors)


def row(name: str, parts: Sequence[str], faces: Tensor, steps: int) -> str:
    """A line of the table."""
    operator: Degradation = build(load(["degradation=chain", f"degradation.parts=[{','.join(parts)}]"]).degradation)
    measured = torch.cat([operator.measure(x[None], stream(7, f"{name} {i}")) for i, x in enumerate(faces)])
    begun = time.perf_counter()
    results = answers([*SETTINGS, f"search.steps={steps}"], measured, operator)
    seconds = (time.perf_counter() - begun) / len(faces)
    above = [psnr_db(r.target_mse) - r.psnr_db for r in results]
    small = measured.expand(-1, 3, -1, -1)
    small = small if small.shape[-1] == 8 else Downscale(f"{small.shape[-1]}/8")(small).clamp(0, 1)
    paper = answers(["experiment=pulse_stylegan"], small, Downscale(8))
    within = sum(abs(value) <= 0.5 for value in above)
    cells = [
        name,
        f"{statistics.median(psnr_db(r.target_mse) for r in results):.1f}",
        f"{within} of {len(faces)}",
        f"{statistics.median(above):+.2f} ({min(above):+.2f} to {max(above):+.2f})",
        f"{statistics.median(r.steps for r in results):.0f}",
        f"{seconds:.1f}",
        f"{image_db(results, faces):.1f}",
        f"{image_db(paper, faces):.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


def section(rows: Sequence[str], faces: int, steps: int) -> str:
    """The text of the section."""
    return (
        f"""## Ten tasks, down to the noise

{faces} faces drawn by `faces-stylegan2-64`, measured with sensor noise of 0.05 (or 0.1) and 8 bits, searched with
`experiment=full_size` in at most {steps} steps: noise maps move beside the styles, and a search stops at the noise. "Noise"
is the median of the PSNR that is expected of a noisy measurement; "residual" the median (and range) of how much worse than
that the answer explains it, in dB: well below 0 would be noise that was fitted. "Image" is the median PSNR against the true
face, "PULSE" that of `experiment=pulse_stylegan`, which knows nothing but downscaling, on the same measurements reduced to
8x8.

| task | noise, dB | within 0.5 dB | residual, dB | steps | seconds an image | image, dB | PULSE, dB |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""
        + "\n".join(rows)
        + f"\n\n{machine()}."
    )


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=8)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("tasks", nargs="*", help="some of the tasks; then nothing is written")
    options = parser.parse_args()
    generator = build(load().generator)
    with torch.no_grad():
        drawn = [draw(generator, {}, stream(7, f"face {i}"), torch.zeros(1)) for i in range(options.faces)]
        faces = torch.cat([generator(latents) for latents in drawn]).clamp(0, 1)
    rows = []
    for name in options.tasks or TASKS:
        rows.append(row(name, TASKS[name], faces, options.steps))
        print(rows[-1], flush=True)
    if not options.tasks:
        write_section("restoration", section(rows, options.faces, options.steps))


if __name__ == "__main__":
    main()
