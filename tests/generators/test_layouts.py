"""StyleGAN2 of other layouts gets SG2-ADA's names: TensorFlow's against an inverse written here, rosinality's name by name."""

import argparse

import numpy as np
import pytest
import torch

from generators._checkpoints import read_checkpoint
from tests.generators.written import LEGACY, assert_same, rosinality, tensorflow_variables, weights, write_tensorflow

# NVIDIA, TensorFlow


@pytest.mark.parametrize("name", ["stylegan2_ada_skip", "stylegan2_ada_resnet", "orig"])
def test_tensorflow_stylegan2_gets_the_names_of_ada(monkeypatch, tmp_path, name):
    tensors = weights("stylegan2_ada_skip" if name == "orig" else name)
    if name == "orig":
        tensors = {key: tensor for key, tensor in tensors.items() if "torgb" not in key or "b32" in key}
    static = {"resolution": 32, "latent_size": 32, "dlatent_size": 48, "mapping_layers": 3, "fmap_base": 256, "fmap_max": 24}
    write_tensorflow(monkeypatch, tmp_path / "a.pkl", tensorflow_variables(tensors, name == "orig"), **static)
    found = read_checkpoint(tmp_path / "a.pkl")
    biases = [key for key in tensors if key.startswith("synthesis") and key.endswith("affine.bias")]
    for key in biases:  # + 1 - 1 rounds
        torch.testing.assert_close(found.tensors.pop(key), tensors.pop(key), rtol=0, atol=1e-6)
    assert_same(found.tensors, tensors)
    assert (found.family, found.source_format) == ("stylegan2", "nvidia-tensorflow")
    assert found.architecture["architecture"] == name.rsplit("_", 1)[-1]
    assert found.architecture["channels"] == {4: 24, 8: 24, 16: 24, 32: 16}
    assert (found.architecture["c_dim"], found.architecture["conv_clamp"]) == (0 if name.endswith("resnet") else 4, None)


def test_tensorflow_that_is_told_otherwise(monkeypatch, tmp_path):
    variables = tensorflow_variables(weights("stylegan2_ada_resnet"))
    write_tensorflow(monkeypatch, tmp_path / "a.pkl", variables, resolution=64)
    with pytest.raises(ValueError, match="expected img_resolution to be 64"):
        read_checkpoint(tmp_path / "a.pkl")
    variables["synthesis"] = [item for item in variables["synthesis"] if item[0] != "noise2"]
    write_tensorflow(monkeypatch, tmp_path / "a.pkl", variables)
    with pytest.raises(ValueError, match=r"missing \['synthesis/noise2'\]"):
        read_checkpoint(tmp_path / "a.pkl")


def test_tensorflow_stylegan1_keeps_its_names(monkeypatch, tmp_path):
    array = np.arange(12, dtype=">f4").reshape(3, 4)  # the other byte order too
    variables = {
        "": [("lod", np.float32(0.5))],
        "mapping": [("Dense0/weight", array)],
        "synthesis": [("4x4/Const/const", array.T)],
    }
    write_tensorflow(monkeypatch, tmp_path / "a.pkl", variables, version=3, resolution=1024, num_channels=3, mapping_lrmul=0.01)
    found = read_checkpoint(tmp_path / "a.pkl")
    expected = torch.arange(12.0).reshape(3, 4)
    assert_same(
        found.tensors, {"lod": torch.tensor(0.5), "mapping/Dense0/weight": expected, "synthesis/4x4/Const/const": expected.T}
    )
    assert (found.family, found.architecture["img_resolution"]) == ("stylegan1", 1024)


# rosinality, pSp and e4e


def assert_is_rosinality(found, average=True):
    tensors, latent_avg = rosinality()
    assert (found.family, found.architecture["img_resolution"], found.architecture["w_dim"]) == ("stylegan2", 64, 48)
    assert found.architecture["channels"] == {4: 24, 8: 24, 16: 24, 32: 24, 64: 12}
    assert (found.architecture["mapping_layers"], found.architecture["resample_kernel"]) == (3, [1, 3, 3, 1])
    pairs = {
        "style.3.weight": "mapping.fc2.weight",
        "input.input": "synthesis.b4.const",
        "conv1.activate.bias": "synthesis.b4.conv1.bias",
        "convs.6.conv.weight": "synthesis.b64.conv0.weight",
        "convs.7.noise.weight": "synthesis.b64.conv1.noise_strength",
        "convs.1.conv.modulation.bias": "synthesis.b8.conv1.affine.bias",
        "to_rgb1.conv.weight": "synthesis.b4.torgb.weight",
        "to_rgbs.3.bias": "synthesis.b64.torgb.bias",
        "noises.noise_0": "synthesis.b4.conv1.noise_const",
        "noises.noise_5": "synthesis.b32.conv0.noise_const",
        "noises.noise_8": "synthesis.b64.conv1.noise_const",
    }
    for theirs, ours in pairs.items():
        assert torch.equal(found.tensors[ours].flatten(), tensors[theirs].flatten()), theirs
    like = weights("stylegan2_ada_skip")  # names and axes are those of a real SG2-ADA network, one block deeper
    names = {name for name in like if "embed" not in name} | {n.replace("b32", "b64") for n in like if "b32" in n}
    assert {*found.tensors} == (names if average else names - {"mapping.w_avg"})
    assert all(found.tensors[name].ndim == like[name].ndim for name in {*like} & {*found.tensors})
    filters = [tensor for name, tensor in found.tensors.items() if "resample_filter" in name]
    assert all(torch.equal(tensor, like["synthesis.b4.resample_filter"]) for tensor in filters)
    moved = sum(tensor.numel() for name, tensor in found.tensors.items() if not name.endswith(("resample_filter", "w_avg")))
    assert moved == sum(tensor.numel() for name, tensor in tensors.items() if not name.endswith("kernel"))
    if average:
        assert torch.equal(found.tensors["mapping.w_avg"], latent_avg)


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_rosinality_converted(tmp_path, options):
    tensors, latent_avg = rosinality()
    torch.save({"g_ema": tensors, "latent_avg": latent_avg}, tmp_path / "a.pt", **options)
    found = read_checkpoint(tmp_path / "a.pt")
    assert_is_rosinality(found)
    assert found.source_format == "rosinality"


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_rosinality_training_snapshot(tmp_path, options):
    tensors, _ = rosinality()
    layer = torch.nn.Linear(2, 2)
    optimiser = torch.optim.Adam(layer.parameters(), betas=(0.0, 0.99))
    layer(torch.ones(2)).sum().backward()
    optimiser.step()
    arguments = argparse.Namespace(size=64, path="data", lr=0.002, mixing=0.9)
    snapshot = {"g": tensors, "d": layer.state_dict(), "g_ema": tensors, "g_optim": optimiser.state_dict(), "args": arguments}
    torch.save(snapshot | {"ada_aug_p": 0.1}, tmp_path / "a.pt", **options)
    found = read_checkpoint(tmp_path / "a.pt")
    assert_is_rosinality(found, average=False)
    assert found.extra == {"args": {"size": 64, "path": "data", "lr": 0.002, "mixing": 0.9}, "ada_aug_p": 0.1}


def test_rosinality_bare_and_without_noise(tmp_path):
    tensors = {name: tensor for name, tensor in rosinality()[0].items() if "noises" not in name}
    torch.save(tensors, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt").tensors
    assert "synthesis.b64.torgb.weight" in found
    assert not any(name.endswith("noise_const") for name in found)
    del tensors["convs.0.activate.bias"]
    torch.save({"g_ema": tensors}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"missing \['convs.0.activate.bias'\], unexpected \[\]"):
        read_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("repeat", [None, 10])
def test_psp_and_e4e(tmp_path, repeat):
    tensors, latent_avg = rosinality()
    state = {f"decoder.{name}": tensor for name, tensor in tensors.items()} | {"encoder.input_layer.0.weight": torch.zeros(2, 3)}
    average = latent_avg if repeat is None else latent_avg.repeat(repeat, 1)
    options = {"output_size": 64, "device": "cuda:0", "lambdas": [1.0, 0.8]}
    torch.save({"state_dict": state, "latent_avg": average, "opts": options}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert_is_rosinality(found)
    assert (found.source_format, found.extra) == ("psp", {"opts": options})
