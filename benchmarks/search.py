"""The search against the original: success, consistency and recovered truth at what cost, on generated and on real faces.

Every method answers the same measurements, a few at a time and in turn, in one process with one thread; seconds are CPU
seconds, so other programs matter little. Looking at a bank's draws and training an encoder come once for a generator and
degradation, and are told apart. Writes its section of README.md and ``search.svg``, success against seconds.
"""

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from _readme import machine, write_section
from torch import Tensor
from torch.nn import functional

from degradations.downscale import Downscale
from pulse_framework.cli.app import app
from pulse_framework.cli.compose import build, load
from pulse_framework.images import read_image
from pulse_framework.interfaces import Generator
from pulse_framework.priors import SpherePrior
from pulse_framework.search import Engine, Plan, SearchResult, draw, psnr_db, stream
from pulse_framework.search.encoder import read_encoder

GENERATOR, TOGETHER, MOST = "digiface-dcgan-64", 16, 32
FREE = ["objective=l2", "search.target_noise=null"]  # measurements without noise are to be met exactly
PAPER = ["experiment=pulse"]


def methods(encoder: Path) -> dict[str, list[str]]:
    """Settings of every method."""
    guess = [*FREE, "search/start=encoder", f"search.start.path={encoder}"]
    bank = [*FREE, "search/start=bank"]
    exact = ["search=levenberg", "search.target_db=45.1"]
    gradients = ["search=lbfgs", "search.target_db=45.1"]
    return {
        "original: one random start, 100 steps": PAPER,
        "original, best of 8 starts": [*PAPER, "search.restarts=8"],
        f"original, until it succeeds (at most {MOST})": PAPER,
        "bank of 8192, 100 steps": [*bank, "search.steps=100", "search.start.draws=8192"],
        "bank of 16384, at most 400 steps": [*bank, "search.steps=400"],
        "encoder, at most 400 steps": [*guess, "search.steps=400"],
        "bank of 16384, L-BFGS": [*bank, *gradients],
        "encoder, L-BFGS": [*guess, *gradients],
        "bank of 16384, Levenberg-Marquardt": [*bank, *exact],
        "encoder, Levenberg-Marquardt": [*guess, *exact],
    }


@dataclass
class Tally:
    """What a method has found so far."""

    results: list[SearchResult] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, found: Sequence[SearchResult], truth: Tensor, seconds: float) -> None:
        """Count some answers."""
        self.results += found
        self.errors += [float((result.image - x).square().mean()) for result, x in zip(found, truth, strict=True)]
        self.seconds += seconds

    @property
    def success(self) -> float:
        """Share of answers within 2e-3, PULSE's eps."""
        return sum(result.mse <= 2e-3 for result in self.results) / len(self.results)

    @property
    def each(self) -> float:
        """CPU seconds an image."""
        return self.seconds / len(self.results)

    def row(self, name: str, *, known: bool) -> str:
        """A line of the table."""
        db = [result.psnr_db for result in self.results]
        radii = [abs(float(result.latents["z"].norm()) / result.latents["z"].numel() ** 0.5 - 1) for result in self.results]
        cells = [
            name,
            f"{self.success:.0%}",
            f"{sum(value >= 45 for value in db) / len(db):.0%}",
            f"{statistics.median(db):.1f}",
            f"{sum(psnr_db(error) > 35 for error in self.errors) / len(db):.0%}" if known else "",
            f"{100 * max(radii):.2g}",
            f"{statistics.mean(result.steps for result in self.results):.0f}",
            f"{self.each:.2f}",
            f"{self.success / self.each:.2f}",
        ]
        return "| " + " | ".join(cells) + " |"


def answers(plan: Plan, engine: Engine, ys: Tensor, names: Sequence[str]) -> list[SearchResult]:
    """The best answer to every measurement, in order."""
    found = {answer.index: answer.samples[0] for answer in plan.run(engine, zip(names, ys, strict=True))}
    return [found[index] for index in range(len(ys))]


def until(plan: Plan, engine: Engine, ys: Tensor, names: Sequence[str]) -> list[SearchResult]:
    """The original, started again for what it has not solved."""
    best: dict[int, SearchResult] = {}
    for attempt in range(MOST):
        left = [index for index in range(len(ys)) if index not in best or best[index].mse > 2e-3]
        keys = [f"{names[index]} {attempt}" for index in left]
        for index, result in zip(left, answers(plan, engine, ys[left], keys) if left else [], strict=True):
            steps = result.steps + (best[index].steps if index in best else 0)
            better = result if index not in best or result.mse < best[index].mse else best[index]
            best[index] = replace(better, steps=steps)
    return [best[index] for index in range(len(ys))]


def generated(generator: Generator, count: int) -> Tensor:
    """Faces that the generator draws."""
    with torch.no_grad():
        drawn = [draw(generator, {"z": SpherePrior()}, stream(11, f"face {index}"), torch.zeros(1)) for index in range(count)]
        return torch.cat([generator(latents) for latents in drawn])


def real(path: Path, count: int) -> Tensor:
    """Face crops: pictures of a folder, or an array of grey ones (N, h, w) such as scikit-image's ``lfw_subset.npy``."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
        crops = [read_image(file)[None] for file in files[:count]]
    else:
        array = torch.from_numpy(np.load(path)).float()[:count]
        crops = list((array / (1 if float(array.max()) <= 1 else 255))[:, None].split(1))
    sized = [functional.interpolate(crop, (64, 64), mode="bicubic", antialias=True).clamp(0, 1) for crop in crops]
    return torch.cat([crop.expand(-1, 3, -1, -1) for crop in sized])


def compare(
    generator: Generator, faces: Tensor, factor: int, encoder: Path, title: str, only: str
) -> tuple[dict[str, Tally], float]:
    """Every method whose name fits, on the same measurements, in turn; and the CPU seconds of the bank."""
    operator = Downscale(factor)
    ys = operator(faces).detach()
    tallies: dict[str, Tally] = {}
    runs: list[tuple[str, Plan, Engine, Callable[[Plan, Engine, Tensor, Sequence[str]], list[SearchResult]]]] = []
    bank = 0.0
    for name, overrides in ((name, found) for name, found in methods(encoder).items() if re.search(only, name)):
        plan: Plan = build(load([f"generator={GENERATOR}", *overrides, "search.slots=16"]).search)
        runs.append((name, plan, plan.engine(generator, operator), until if "until" in name else answers))
        tallies[name] = Tally()
        begun = time.process_time()
        answers(plan, runs[-1][2], ys[:1], ["warm"])  # fills the bank, compares widths
        bank = max(bank, time.process_time() - begun) if "bank" in name else bank
    for first in range(0, len(ys), TOGETHER):
        part = slice(first, first + TOGETHER)
        names = [f"{title} {index}" for index in range(first, min(first + TOGETHER, len(ys)))]
        for name, plan, engine, way in runs if (first // TOGETHER) % 2 == 0 else runs[::-1]:
            begun = time.process_time()
            found = way(plan, engine, ys[part], names)
            tallies[name].add(found, faces[part], time.process_time() - begun)
            print(f"{title} {first}: {name}: {tallies[name].success:.0%}, {tallies[name].each:.2f} s", flush=True)
    return tallies, bank


def encoder_for(factor: int, folder: Path) -> tuple[Path, float]:
    """The encoder of a factor, trained if it is not there, and the seconds that took."""
    path = folder / f"{GENERATOR}-x{factor}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        arguments = ["encoder", "train", "-o", str(path), "--generator", GENERATOR, "--factor", str(factor)]
        app([*arguments, "--samples", "60000", "--quiet", "--device", "cpu"], standalone_mode=False)
    return path, read_encoder(path)[2]["training"]["seconds"]


def plot(groups: dict[str, dict[str, Tally]], path: Path) -> None:
    """Success against CPU seconds an image, a panel for each set of targets, as SVG."""
    width, height, left = 330, 260, 40
    most = max(tally.each for tallies in groups.values() for tally in tallies.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * len(groups)}" height="{height + 190}" font-family="sans-serif">'
    ]
    for panel, (title, tallies) in enumerate(groups.items()):
        x0 = panel * width + left
        parts.append(f'<text x="{x0}" y="16" font-size="12">{title}: success at 2e-3 against CPU seconds an image</text>')
        parts.append(f'<path d="M{x0} 30V{height}H{x0 + width - 70}" fill="none" stroke="black"/>')
        for share in (0, 50, 100):
            y = height - share / 100 * (height - 40)
            parts.append(f'<text x="{x0 - 34}" y="{y + 4}" font-size="11">{share} %</text>')
        for number, tally in enumerate(tallies.values()):
            x = x0 + (tally.each / most) ** 0.5 * (width - 80)  # a root scale, so that the quick ones are apart
            y = height - tally.success * (height - 40)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="hsl({number * 36},70%,45%)"/>')
            parts.append(f'<text x="{x + 7:.1f}" y="{y + 4:.1f}" font-size="11">{number + 1}</text>')
        parts.append(f'<text x="{x0 + width - 150}" y="{height + 14}" font-size="11">{most:.1f} s (root scale)</text>')
    for number, name in enumerate(next(iter(groups.values()))):
        y = height + 38 + 18 * number
        parts.append(f'<circle cx="{left}" cy="{y - 4}" r="5" fill="hsl({number * 36},70%,45%)"/>')
        parts.append(f'<text x="{left + 10}" y="{y}" font-size="12">{number + 1}  {name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def main() -> None:
    """Measure, print, write the section and the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=64, help="targets of each kind")
    parser.add_argument("--images", type=Path, help="folder of face crops, or an array of grey ones; left out, no real faces")
    parser.add_argument(
        "--encoders", type=Path, default=Path("benchmarks/encoders"), help="folder of encoders; trained if missing"
    )
    parser.add_argument("--only", help="pattern of the methods that run; they get a section of their own")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["PULSE_HOME"] = tempfile.mkdtemp(prefix="pulse-bench-")  # so that the bank is made here, and timed
    generator = build(load([f"generator={GENERATOR}"]).generator)
    faces = generated(generator, options.count)
    sets = [("generated, x8", faces, 8), ("generated, x4", faces, 4)]
    if options.images:
        sets.insert(0, ("real, x8", real(options.images, options.count), 8))
    text, groups = [], {}
    for title, targets, factor in sets:
        encoder, trained = encoder_for(factor, options.encoders)
        groups[title], bank = compare(generator, targets, factor, encoder, title, options.only or "")
        once = f"Once for all images: the bank, {bank:.0f} CPU seconds, and the training of the encoder, {trained:.0f} seconds."
        rows = "\n".join(tally.row(name, known="generated" in title) for name, tally in groups[title].items())
        text.append(f"### {len(targets)} faces, {title}\n\n{once}\n\n{HEAD}\n{rows}\n")
    if options.only:
        command = f"python benchmarks/search.py --images FACES --only '{options.only}'"
        heading = f"## Some of these methods in a run of their own\n\n`{command}`.\n\n"
        write_section("search_only", heading + "\n".join(text) + f"\n{machine()}.")
        return
    plot(groups, Path(__file__).parent / "search.svg")
    write_section("search", INTRODUCTION + "\n".join(text) + f"\n![Success against seconds](search.svg)\n\n{machine()}.")


HEAD = (
    "| method | within 2e-3 | 45 dB | median dB | truth > 35 dB | radius off by, % | steps | CPU s an image | solved a second |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
INTRODUCTION = f"""## The search against the original

`{GENERATOR}`, bicubic, sphere prior, one thread; methods in turn, {TOGETHER} images at a time. "Truth" is recovered where the
answer is within 35 dB of the image that was measured, "radius" the largest deviation from the sphere, "solved a second" the
share within PULSE's 2e-3 over CPU seconds an image. Made by `python benchmarks/search.py --images FACES`.

"""


if __name__ == "__main__":
    main()
