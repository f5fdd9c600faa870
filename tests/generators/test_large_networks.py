"""A StyleGAN2 of 1024 x 1024 with NVIDIA's widths (config F, 30 million parameters): its files are read back bit for bit."""

import json

import pytest
import torch
from safetensors.torch import save_file

from generators._checkpoints import read_checkpoint
from generators._stylegan2_architecture import Architecture, architecture_of, random_tensors
from tests.generators.written import assert_same, rosinality_state, tensorflow_variables, write_persistent, write_tensorflow

ARCHITECTURE = Architecture(tuple(min(32768 // side, 512) for side in (4 << index for index in range(9))))
KWARGS = {
    "z_dim": 512,
    "c_dim": 0,
    "w_dim": 512,
    "img_resolution": 1024,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 8},
    "synthesis_kwargs": {"channel_base": 32768, "channel_max": 512, "architecture": "skip", "conv_clamp": None},
}
METADATA = {"family": "stylegan2", "z_dim": "512", "w_dim": "512", "img_resolution": "1024", "architecture": "skip"}


@pytest.fixture(scope="module")
def tensors():
    made = random_tensors(ARCHITECTURE)
    trained = ("weight", "bias", "noise_strength", "b4.const")
    assert sum(tensor.numel() for name, tensor in made.items() if name.endswith(trained)) == 30_370_060
    return made


def read_back(path, source_format):
    found = read_checkpoint(path)
    assert (found.family, found.source_format) == ("stylegan2", source_format)
    assert architecture_of(found.architecture) == ARCHITECTURE
    return found.tensors


def test_safetensors(tensors, tmp_path):
    save_file(tensors, tmp_path / "a.safetensors", METADATA | {"channel_base": json.dumps(32768), "channel_max": "512"})
    assert_same(read_back(tmp_path / "a.safetensors", "safetensors"), tensors)


def test_nvidia(tensors, monkeypatch, tmp_path):
    write_persistent(monkeypatch, tmp_path / "a.pkl", tensors, KWARGS)
    assert_same(read_back(tmp_path / "a.pkl", "nvidia-torch"), tensors)


def test_rosinality(tensors, tmp_path):
    torch.save({"g_ema": rosinality_state(tensors), "latent_avg": tensors["mapping.w_avg"]}, tmp_path / "a.pt")
    assert_same(read_back(tmp_path / "a.pt", "rosinality"), tensors)


def test_psp(tensors, tmp_path):
    state = {f"decoder.{name}": tensor for name, tensor in rosinality_state(tensors).items()}
    average = tensors["mapping.w_avg"].expand(ARCHITECTURE.rows, -1).clone()
    torch.save({"state_dict": state, "latent_avg": average, "opts": {"output_size": 1024}}, tmp_path / "a.pt")
    assert_same(read_back(tmp_path / "a.pt", "psp"), tensors)


def test_tensorflow(tensors, monkeypatch, tmp_path):
    static = {"resolution": 1024, "latent_size": 512, "dlatent_size": 512, "mapping_layers": 8}
    write_tensorflow(monkeypatch, tmp_path / "a.pkl", tensorflow_variables(tensors), **static, fmap_base=16384, fmap_max=512)
    found = read_back(tmp_path / "a.pkl", "nvidia-tensorflow")
    for name in [name for name in found if name.startswith("synthesis") and name.endswith("affine.bias")]:  # + 1 - 1 rounds
        torch.testing.assert_close(found.pop(name), tensors[name], rtol=0, atol=1e-6)
    assert_same(found, {name: tensor for name, tensor in tensors.items() if name in found})
    assert len(found) > 100
