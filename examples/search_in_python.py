"""The main job from Python: one call, and then the same search put together by hand."""

import argparse
from pathlib import Path

import torch

import pulse_framework
from degradations.downscale import Downscale
from generators import stylegan2
from pulse_framework.images import read_image, write_png
from pulse_framework.priors import SpherePrior
from pulse_framework.search import Adam, Geocross, L2Consistency, Linear1CycleDrop, NearestDraw, Objective, single_phase
from pulse_framework.weights import fetch

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("-o", "--output", type=Path, default=Path("out"))
arguments.add_argument("--steps", type=int, default=300)
arguments.add_argument("--draws", type=int, default=256, help="Random starts of which the nearest is taken.")
given = arguments.parse_args()
given.output.mkdir(parents=True, exist_ok=True)

photo = read_image(Path(__file__).with_name("face.png"))  # (3, 128, 128)
y = Downscale(16).measure(photo[None], torch.Generator())[0]  # (3, 8, 8): what is left of it

# One call. The key names the random streams, as a file name does on the command line.
settings = {"samples": 2, "steps": given.steps, "overrides": [f"search.start.draws={given.draws}"]}
found = pulse_framework.upsample(y, keys=["face"], device="cpu", **settings)
for k, result in enumerate(found.results):
    print(f"sample {k}: {result.status.value}, {result.psnr_db:.1f} dB after {result.steps} steps. {result.reason.value}")
    write_png(result.image, given.output / f"face_{k}.png")

# The same, from parts. Every one of them can be replaced by another, or by one of your own.
generator = stylegan2.load(fetch("pkg://generators/cards/faces-stylegan2-64.yaml"), fit_samples=100_000)
objective = Objective({"consistency": L2Consistency(weight=100.0), "geocross": Geocross(weight=0.05)})
parts = {"prior": SpherePrior(), "objective": objective}
parts |= {"optimiser": Adam(rate=0.4), "schedule": Linear1CycleDrop()}
plan = single_phase(**parts, steps=given.steps, target_db=27.0, samples=2, start=NearestDraw(draws=given.draws))
(answer,) = plan.run(plan.engine(generator, Downscale(8)), [("face", y)])
same = all(torch.equal(a.image, b.image) for a, b in zip(found.results, answer.samples, strict=True))
print(f"built by hand, the images are {'the same, bit for bit' if same else 'different'}")
