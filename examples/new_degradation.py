"""A degradation of your own, composed with one of ours: a photo that has lost its colour as well as its detail."""

import argparse
from pathlib import Path

import torch
from torch import Tensor

import pulse_framework
from degradations.compose import compose
from degradations.downscale import Downscale
from pulse_framework.images import read_image, write_png


class Grey(pulse_framework.LinearDegradation):
    """A(x) is the mean of the channels."""

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """One channel."""
        return 1, image_shape[1], image_shape[2]

    def forward(self, x: Tensor) -> Tensor:
        """The mean."""
        return x.mean(1, keepdim=True)

    def adjoint(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        """An equal share for every channel."""
        return y.expand(-1, *image_shape) / image_shape[0]


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("-o", "--output", type=Path, default=Path("out"))
arguments.add_argument("--steps", type=int, default=300)
arguments.add_argument("--draws", type=int, default=256, help="Random starts of which the nearest is taken.")
given = arguments.parse_args()
given.output.mkdir(parents=True, exist_ok=True)

photo = read_image(Path(__file__).with_name("face.png"))  # (3, 128, 128)
y = compose([Downscale(16), Grey()]).measure(photo[None], torch.Generator())[0]  # (1, 8, 8)
A = compose([Downscale(8), Grey()])  # of the generator's (3, 64, 64)
more = [f"search.start.draws={given.draws}"]
found = pulse_framework.upsample(y, degradation=A, samples=3, steps=given.steps, device="cpu", overrides=more)
for k, result in enumerate(found.results):
    print(f"sample {k}: {result.status.value}, {result.psnr_db:.1f} dB")
    write_png(result.image, given.output / f"coloured_{k}.png")
