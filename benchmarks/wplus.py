"""Searches of a StyleGAN where leaving the prior is easy: a success counts only within the prior's band.

For a style in w+ the energy is the mean square of its entries in PULSE's chart (``v_plus``), in which each entry of what the
mapping makes is about standard normal; ``p_n_plus`` is the chart where its entries are uncorrelated, too. The bands have 99 % of
the mapping's own styles. All methods answer the same measurements, a few at a time and in turn, in one process with one thread;
seconds are CPU seconds. Writes its section of README.md.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from _readme import machine, write_section
from torch import Tensor

from degradations.downscale import Downscale
from pulse_framework.cli.compose import build, load
from pulse_framework.cli.targets import generated, pictures
from pulse_framework.interfaces import Generator
from pulse_framework.priors import SpherePrior
from pulse_framework.search import SearchResult, stream
from pulse_framework.search.geocross import geocross
from pulse_framework.search.streams import native_draws

GENERATOR, TOGETHER, DRAWS, FACTOR = "faces-stylegan2-64", 8, 4000, 8
EXACT = ["search.target_noise=null"]  # measurements without noise are to be met exactly
FLAT = [*EXACT, "prior=flat", "search/start=mean", "search.blocks=[w_plus]", "search.optimiser.rate=0.05"]
METHODS = {
    "`experiment=pulse_stylegan`, the original's settings": ["experiment=pulse_stylegan"],
    "default": EXACT,
    "default without GEOCROSS": [*EXACT, "objective=l2"],
    "z on its sphere": [*EXACT, "objective=l2", "search.blocks=[z]"],
    "w+ without prior, from the mean": [*FLAT, "objective=l2"],
    "w+ with a Gaussian, from the mean": [*FLAT, "objective=l2_gaussian"],
}


HEAD = (
    "| method | within 2e-3 | and the band in `v_plus` | in `p_n_plus` | median dB | energy in `v_plus` | in `p_n_plus` |"
    " GEOCROSS | radius off by, % | steps | CPU s an image |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def energy(generator: Generator, latents: dict[str, Tensor], chart: str) -> float:
    """Mean square of the style in a chart."""
    with torch.no_grad():
        return float(generator.lift({name: value[None] for name, value in latents.items()}, chart).square().mean())


def row(
    generator: Generator, name: str, results: list[SearchResult], bands: dict[str, tuple[float, float]], seconds: float
) -> str:
    """A line of the table."""
    energies = {chart: [energy(generator, dict(result.latents), f"{chart}_plus") for result in results] for chart in bands}
    solved = [result.mse <= 2e-3 for result in results]
    inside = {
        chart: sum(yes and low <= value <= high for yes, value in zip(solved, energies[chart], strict=True)) / len(results)
        for chart, (low, high) in bands.items()
    }
    with torch.no_grad():
        full = [{key: value[None] for key, value in result.latents.items()} for result in results]
        apart = [float(geocross(generator.lift(latents, "w_plus"))) for latents in full]
        radii = [generator.lift(latents, "v_plus").square().mean(-1).sqrt() for latents in full]
    cells = [
        name,
        f"{sum(solved) / len(solved):.0%}",
        *(f"{share:.0%}" for share in inside.values()),
        f"{statistics.median(result.psnr_db for result in results):.1f}",
        *(f"{statistics.median(values):.3g}" for values in energies.values()),
        f"{statistics.median(apart):.2f}",
        f"{100 * max(float((radius - 1).abs().max()) for radius in radii):.2g}",
        f"{statistics.mean(result.steps for result in results):.0f}",
        f"{seconds / len(results):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=16, help="targets of each kind")
    parser.add_argument("--images", type=Path, help="folder of face crops, or an array of grey ones; left out, no real faces")
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator: Generator = build(load([f"generator={GENERATOR}"]).generator)
    w = torch.cat(list(native_draws(generator, "w", DRAWS, stream(5, "band"))))
    with torch.no_grad():
        own = {
            chart: torch.cat([generator.lift({"w": part}, chart).square().mean(-1) for part in w.split(256)])
            for chart in ("v", "p_n")
        }
    bands = {chart: (float(values.quantile(0.005)), float(values.quantile(0.995))) for chart, values in own.items()}
    groups = {"generated": generated(generator, {"z": SpherePrior()}, args.count, seed=11).images}
    groups |= {"real": pictures(args.images, generator.image_shape, args.count)[0].images} if args.images else {}
    operator = Downscale(FACTOR)
    parts = []
    for title, faces in groups.items():
        ys = operator(faces).detach()
        found: dict[str, list[SearchResult]] = {name: [] for name in METHODS}
        seconds = dict.fromkeys(METHODS, 0.0)
        plans = {name: build(load([f"generator={GENERATOR}", *chosen]).search) for name, chosen in METHODS.items()}
        engines = {name: plan.engine(generator, operator) for name, plan in plans.items()}
        for first in range(0, len(ys), TOGETHER):
            for name, plan in plans.items():
                begun = time.process_time()
                queue = [(f"{title} {first + k}", y) for k, y in enumerate(ys[first : first + TOGETHER])]
                found[name] += [answer.samples[0] for answer in plan.run(engines[name], queue)]
                seconds[name] += time.process_time() - begun
                print(row(generator, name, found[name], bands, seconds[name]), flush=True)
        lines = "\n".join(row(generator, name, found[name], bands, seconds[name]) for name in METHODS)
        parts.append(f"""### {len(ys)} faces, {title}, x{FACTOR}

{HEAD}
{lines}
""")
    said = " and ".join(f"between {low:.2f} and {high:.2f} in `{chart}_plus`" for chart, (low, high) in bands.items())
    text = f"""## Success within the prior

`{GENERATOR}`, bicubic, no noise. Energies are mean squares of the style, medians over the answers, in PULSE's chart `v_plus` and
in `p_n_plus`, whose entries are uncorrelated, too. Of the mapping's own styles 99 % are {said}: a success
within the band is within 2e-3 and there. GEOCROSS of a mapped style is 0. "Radius off by" is the worst row's in `v_plus`.

{chr(10).join(parts)}
{machine()}.
"""
    write_section("wplus", text)


if __name__ == "__main__":
    main()
