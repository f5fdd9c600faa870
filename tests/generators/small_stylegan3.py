"""Small networks of StyleGAN3 with random weights, and the published ones with their answers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from generators.stylegan3 import Architecture, tensor_shapes

GOLDEN = Path(__file__).parent.parent / "golden"
NAMES = ["stylegan3_t", "stylegan3_r"]
T = Architecture(16, 6, 0, 7, channel_base=64, channel_max=6, num_layers=5, margin_size=3)
R = replace(T, conv_kernel=1, use_radial_filters=True)


def read(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file if key != "meta"}
        told = json.loads(bytes(file["meta"]))["kwargs"]
    told |= {"mapping_layers": told.pop("mapping_kwargs")["num_layers"]}
    del told["num_fp16_res"]
    weights = {key.removeprefix("weights/"): value for key, value in arrays.items() if key.startswith("weights/")}
    return Architecture(**told), weights, arrays


def random_tensors(a, seed=0):
    """Weights of the scales that training leaves, and filters of no symmetry, so that none can be applied the wrong way round."""
    rng, tensors = torch.Generator().manual_seed(seed), {}
    for name, shape in tensor_shapes(a).items():
        value = torch.randn(shape, generator=rng)
        if name.endswith("_filter"):
            value = value.abs() / value.abs().sum()
        elif name.endswith("magnitude_ema"):
            value = value.abs() + 0.5
        elif name.endswith("transform"):
            value = torch.eye(3) + 0.1 * value
        elif name.endswith("affine.bias"):
            value = 1 + 0.1 * value
        elif name.startswith("mapping.fc"):
            value = value * 100
        tensors[name] = value
    return tensors
