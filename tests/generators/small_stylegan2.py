"""A small StyleGAN2, the answers of the published ones, and how close is close."""

import json
from pathlib import Path

import numpy as np
import torch

from generators._layouts import rosinality_to_ada, stylegan2_shapes
from generators._stylegan2_architecture import Architecture, architecture_of

GOLDEN = Path(__file__).parent.parent / "golden"
TINY = Architecture((6, 5, 4), z_dim=5, w_dim=7, mapping_layers=2)
CLASSES = Architecture((6, 5), z_dim=5, w_dim=7, c_dim=3, mapping_layers=2)


def read(name):
    """Weights by their SG2-ADA names, architecture, and known answers."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        tensors = {key: torch.from_numpy(file[key]).float() for key in file if key != "meta"}
        meta = json.loads(bytes(file["meta"]))
    weights = {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}
    if "kwargs" not in meta:
        weights = rosinality_to_ada(weights, tensors["latent_avg"])
        return weights, architecture_of(stylegan2_shapes(weights)), tensors
    kwargs = meta["kwargs"]
    values = kwargs | kwargs["synthesis_kwargs"] | {"mapping_layers": kwargs["mapping_kwargs"]["num_layers"]}
    return weights, architecture_of(values), tensors


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def drawn(generator, *names, count=2, dtype=torch.float32):
    """Normal numbers for some blocks, and for every label and noise map."""
    blocks = [b for b in generator.blocks if b.name in names or b.name.startswith("noise_")]
    made = {b.name: random(count, *b.shape, seed=i, dtype=dtype) for i, b in enumerate(blocks)}
    return made | {b.name: torch.eye(b.size, dtype=dtype)[:count] for b in generator.blocks if b.name == "label"}


def near(got, expected, tolerance):
    error = (got.double() - expected.double()).detach().abs().max() / expected.detach().abs().max()
    assert error < tolerance, f"relative to the largest: {error:.1e}"
