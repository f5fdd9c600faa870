"""The search against the original: success, consistency and recovered truth at what cost, on generated and on real faces.

What `pulse bench` does, with methods of our own: all answer the same measurements, a few at a time and in turn, in one process
with one thread. Looking at a bank's draws and training an encoder come once for a generator and degradation, and are told
apart. Writes its section of README.md and ``search.svg``, success against seconds.
"""

import argparse
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from _readme import machine, write_section
from torch import Tensor

from degradations.downscale import Downscale
from pulse_framework.cli.app import app
from pulse_framework.cli.comparison import TOGETHER, Method, answers, compare
from pulse_framework.cli.compose import build, load
from pulse_framework.cli.tally import SCORES, Tally, plot, table
from pulse_framework.cli.targets import Targets, generated, pictures
from pulse_framework.interfaces import Generator
from pulse_framework.priors import SpherePrior
from pulse_framework.search import Engine, Plan, SearchResult
from pulse_framework.search.encoder import read_encoder

GENERATOR, MOST, SEED = "digiface-dcgan-64", 32, 11
FREE = ["objective=l2", "search.target_noise=null"]  # measurements without noise are to be met exactly
PAPER = ["experiment=pulse"]


def methods(encoder: Path) -> dict[str, list[str]]:
    """Settings of every method."""
    guess = [*FREE, "search/start=encoder", f"search.start.path={encoder}"]
    bank = [*FREE, "search/start=bank"]
    adam = ["search=adam"]
    exact = ["search=levenberg", "search.target_db=45.1"]
    gradients = ["search=lbfgs", "search.target_db=45.1"]
    return {
        "original: one random start, 100 steps": PAPER,
        "original, best of 8 starts": [*PAPER, "search.restarts=8"],
        f"original, until it succeeds (at most {MOST})": PAPER,
        "bank of 8192, 100 steps": [*bank, *adam, "search.steps=100", "search.start.draws=8192"],
        "bank of 16384, at most 400 steps": [*bank, *adam, "search.steps=400"],
        "encoder, at most 400 steps": [*guess, *adam, "search.steps=400"],
        "bank of 16384, L-BFGS, until 27 dB": [*bank, "search=lbfgs", "search.target_db=27"],
        "encoder, L-BFGS, until 27 dB": [*guess, "search=lbfgs", "search.target_db=27"],
        "bank of 16384, L-BFGS": [*bank, *gradients],
        "bank of 16384, L-BFGS, 8 starts halved": [*bank, *gradients, "search.restarts=8", "search.halving=true"],
        "encoder, L-BFGS": [*guess, *gradients],
        "encoder, Levenberg-Marquardt": [*guess, *exact],
    }


def until(plan: Plan, engine: Engine, queue: Sequence[tuple[str, Tensor]]) -> list[SearchResult]:
    """The original, started again for what it has not solved."""
    best: dict[int, SearchResult] = {}
    for attempt in range(MOST):
        left = [index for index in range(len(queue)) if index not in best or best[index].mse > 2e-3]
        again = [(f"{queue[index][0]} {attempt}", queue[index][1]) for index in left]
        for index, result in zip(left, answers(plan, engine, again) if left else [], strict=True):
            before = best.get(index)
            steps, seconds = (before.steps, before.seconds) if before else (0, 0.0)
            better = result if before is None or result.mse < before.mse else before
            best[index] = replace(better, key=queue[index][0], steps=result.steps + steps, seconds=result.seconds + seconds)
    return [best[index] for index in range(len(queue))]


def competitors(generator: Generator, encoder: Path, only: str) -> dict[str, Method]:
    """The methods whose name fits."""
    found = {}
    for name, overrides in methods(encoder).items():
        if re.search(only, name):
            plan: Plan = build(load([f"generator={GENERATOR}", *overrides, "search.slots=16"]).search)
            found[name] = Method(plan, generator, until if "until it succeeds" in name else answers)
    return found


def told(title: str, name: str, number: int, tally: Tally) -> None:
    """What has been found so far."""
    print(f"{title}: {name}: {number} more, {tally.success:.0%}, {tally.each:.2f} s", flush=True)


def encoder_for(factor: int, folder: Path) -> tuple[Path, float]:
    """The encoder of a factor, trained if it is not there, and the seconds that took."""
    path = folder / f"{GENERATOR}-x{factor}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        arguments = ["encoder", "train", "-o", str(path), "--generator", GENERATOR, "--factor", str(factor)]
        app([*arguments, "--samples", "60000", "--quiet", "--device", "cpu"], standalone_mode=False)
    return path, read_encoder(path)[2]["training"]["seconds"]


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
    faces = generated(generator, {"z": SpherePrior()}, options.count, SEED)
    sets = [("generated, x8", faces, 8), ("generated, x4", faces, 4)]
    if options.images:
        real, rejected = pictures(options.images, generator.image_shape, options.count)
        assert real.keys, f"{options.images}: expected pictures, got {rejected or 'none'}"
        sets.insert(0, ("real, x8", real, 8))
    text, groups = [], {}
    for title, targets, factor in sets:
        encoder, trained = encoder_for(factor, options.encoders)
        # keys of their own, so that searches for the same face at two factors begin apart
        named = Targets([f"{title} {index}" for index in range(len(targets.keys))], targets.images)
        found = compare(competitors(generator, encoder, options.only or ""), Downscale(factor), {title: named}, told)
        assert not found.refused, f"expected methods that run, got {found.refused}"
        groups[title] = found.tallies[title]
        banks = [tally for name, tally in groups[title].items() if "bank" in name]
        bank = max(banks, key=lambda tally: tally.start).once() if banks else "none here"
        training = f"the training of the encoder, {trained:.0f} seconds of the clock"
        once = f"Once for all images: the bank and a search, {bank}; {training}."
        text.append(f"### {len(named.keys)} faces, {title}\n\n{once}\n\n{table(groups[title])}\n")
        write(text, groups, options.only)  # after every set: the whole takes an hour


def write(text: Sequence[str], groups: Mapping[str, Mapping[str, Tally]], only: str | None) -> None:
    """The section of the sets so far, and the plot."""
    if only:
        command = f"python benchmarks/search.py --images FACES --only '{only}'"
        heading = f"## Some of these methods in a run of their own\n\n`{command}`.\n\n"
        write_section("search_only", heading + "\n".join(text) + f"\n{machine()}.")
        return
    (Path(__file__).parent / "search.svg").write_text(plot(groups))
    write_section("search", INTRODUCTION + "\n".join(text) + f"\n![Success against seconds](search.svg)\n\n{machine()}.")


INTRODUCTION = f"""## The search against the original

`{GENERATOR}`, bicubic, sphere prior, one thread; methods in turn, {TOGETHER} images at a time. {SCORES}
Steps of the original that is started again are those of all its starts. Made by `python benchmarks/search.py --images FACES`.

"""


if __name__ == "__main__":
    main()
