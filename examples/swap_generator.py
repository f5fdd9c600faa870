"""One photo, two generators: only the name of a configuration changes."""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

import pulse_framework
from degradations.downscale import Downscale
from generators import dcgan
from generators.linear import LinearGenerator
from pulse_framework.images import read_image, write_png
from pulse_framework.weights import fetch

arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("-o", "--output", type=Path, default=Path("out"))
arguments.add_argument("--steps", type=int, default=300)
arguments.add_argument("--draws", type=int, default=256, help="Random starts of which the nearest is taken.")
given = arguments.parse_args()
given.output.mkdir(parents=True, exist_ok=True)

y = Downscale(16).measure(read_image(Path(__file__).with_name("face.png"))[None], torch.Generator())[0]

# A generator of our own: principal components of 512 faces that the DCGAN draws, saved as a file of tensors.
faces = dcgan.load(fetch("pkg://generators/cards/digiface-dcgan-64.yaml"))
z = torch.randn(512, 100, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    components = LinearGenerator.fit(faces({"z": z}), latent_dim=100)
weights = given.output / "components.safetensors"
save_file(components.state_dict(), weights)

choices = {"digiface-dcgan-64": [], "linear": [f"generator.path='{weights}'"]}
for name, overrides in choices.items():
    more = [*overrides, f"search.start.draws={given.draws}"]
    found = pulse_framework.upsample(y, generator=name, steps=given.steps, device="cpu", overrides=more)
    write_png(found.images[0], given.output / f"{name}.png")
    print(f"{name}: {found.statuses[0].value}, {found.psnr_db[0]:.1f} dB")
