"""Every format read back: NVIDIA's own files against their arrays, state dicts and safetensors as this test writes them."""

import sys
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from generators._checkpoints import read_checkpoint
from tests.generators.written import GOLDEN, LEGACY, PICKLES, assert_same, settings, weights, write_persistent

# NVIDIA, PyTorch


@pytest.mark.parametrize("name", PICKLES)
def test_nvidia_pickle_gives_exactly_the_arrays(name, tmp_path):
    (tmp_path / "no.name").write_bytes((GOLDEN / f"{name}.pkl").read_bytes())
    found, told = read_checkpoint(tmp_path / "no.name"), settings(name)
    assert_same(found.tensors, weights(name))
    assert (found.family, found.source_format) == (name[:9], "nvidia-torch")
    flat = {**told, **told.get("synthesis_kwargs", {}), "mapping_layers": told["mapping_kwargs"]["num_layers"]}
    for key in {*flat} - {"mapping_kwargs", "synthesis_kwargs"}:
        assert found.architecture[key] == flat[key], key
    assert found.architecture["mapping_lr_multiplier"] == 0.01
    assert not {"torch_utils", "dnnlib"} & {*sys.modules}


def test_constructor_defaults_of_stylegan3_are_filled_in():
    found = read_checkpoint(GOLDEN / "stylegan3_t.pkl").architecture
    assert found["first_stopband"] == pytest.approx(4.2871, abs=1e-4)
    assert (found["conv_kernel"], found["filter_size"], found["conv_clamp"], found["margin_size"]) == (3, 6, 256, 10)


def test_attributes_of_each_module_are_handed_on():
    layer = read_checkpoint(GOLDEN / "stylegan3_t.pkl").extra["attributes"]["synthesis.L3_52_16"]
    assert (layer["up_factor"], layer["out_size"], layer["use_fp16"], layer["padding"]) == (4, [52, 52], False, [-6, -9, -6, -9])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_strides_half_precision_and_all_protocols(monkeypatch, tmp_path, protocol):
    tensors = weights("stylegan2_ada_resnet")
    stored = {
        name: tensor.half().to(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
        for name, tensor in tensors.items()
    }
    assert not all(tensor.is_contiguous() for tensor in stored.values())
    write_persistent(monkeypatch, tmp_path / "a.pkl", stored, settings("stylegan2_ada_resnet"), protocol)
    assert_same(read_checkpoint(tmp_path / "a.pkl").tensors, tensors)


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_a_whole_module_saved_by_torch(monkeypatch, tmp_path, options):
    """As PTI saves its tuned generators."""
    tensors, save = weights("stylegan2_ada_resnet"), lambda value, path: torch.save(value, path, **options)
    write_persistent(monkeypatch, tmp_path / "a.pt", tensors, settings("stylegan2_ada_resnet"), save=save)
    assert_same(read_checkpoint(tmp_path / "a.pt").tensors, tensors)


def test_arguments_that_disagree_with_the_tensors(monkeypatch, tmp_path):
    arguments = settings("stylegan2_ada_resnet") | {"img_resolution": 64}
    write_persistent(monkeypatch, tmp_path / "a.pkl", weights("stylegan2_ada_resnet"), arguments)
    with pytest.raises(ValueError, match=r"a\.pkl: expected img_resolution to be 64, .* make it 32"):
        read_checkpoint(tmp_path / "a.pkl")


# State dicts and safetensors


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_stylegan1_keeps_its_names(tmp_path, options):
    arrays = {
        f"{part}{name}": torch.randn(shape, generator=torch.Generator().manual_seed(0))
        for part in ("", "g_synthesis.")
        for name, shape in {"torgb.weight": (3, 4, 1, 1), "blocks.8x8.epi1.style_mod.lin.weight": (8, 6)}.items()
    } | {"g_mapping.dense0.weight": torch.zeros(6, 5)}
    torch.save(OrderedDict(arrays), tmp_path / "a.pt", **options)
    found = read_checkpoint(tmp_path / "a.pt")
    assert_same(found.tensors, arrays)
    assert (found.family, found.source_format) == ("stylegan1", "torch")
    assert found.architecture == {"img_resolution": 8, "img_channels": 3, "w_dim": 6, "z_dim": 5, "mapping_layers": 1}


def test_gaussian_fit_and_strange_tensors(tmp_path):
    torch.save({"mean": torch.ones(4), "std": torch.arange(8.0)[1::2]}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert found.family == "gaussian-fit"
    assert_same(found.tensors, {"mean": torch.ones(4), "std": torch.tensor([1.0, 3, 5, 7])})
    strange = {
        "empty": torch.zeros(0, 3),
        "long": torch.tensor([2**40]),
        "bool": torch.tensor([True, False]),
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "double": torch.ones((), dtype=torch.float64),
        "transposed": torch.arange(6).reshape(2, 3).mT,
    }
    torch.save(strange, tmp_path / "a.pt")
    for name, tensor in read_checkpoint(tmp_path / "a.pt").tensors.items():
        assert torch.equal(tensor, strange[name].float() if strange[name].is_floating_point() else strange[name])


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_a_module_state_dict_with_its_metadata(tmp_path, options):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save(module.state_dict(), tmp_path / "a.pt", **options)
    found = read_checkpoint(tmp_path / "a.pt")
    assert {*found.tensors} == {*module.state_dict()}
    assert found.family == ""


@pytest.mark.parametrize("name", ["stylegan2_ada_resnet", "stylegan3_t"])
def test_state_dicts_of_nvidia_names_by_shape_alone(tmp_path, name):
    torch.save(weights(name), tmp_path / "a.pt")
    found, told = read_checkpoint(tmp_path / "a.pt"), settings(name)
    assert_same(found.tensors, weights(name))
    for key in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"):
        assert found.architecture[key] == told[key]


def test_safetensors_say_what_they_are(tmp_path):
    tensors = weights("stylegan2_ada_skip")
    metadata = {
        "family": "stylegan2",
        "conv_clamp": "none",
        "mapping_lr_multiplier": "0.01",
        "resample_kernel": "[1,3,3,1]",
        "by": "us",
    }
    save_file({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "a", metadata)
    found = read_checkpoint(tmp_path / "a")
    assert_same(found.tensors, tensors)
    assert (found.family, found.source_format) == ("stylegan2", "safetensors")
    expected = {"conv_clamp": None, "mapping_lr_multiplier": 0.01, "by": "us", "c_dim": 4, "img_resolution": 32}
    assert {key: found.architecture[key] for key in expected} == expected
    save_file(tensors, tmp_path / "a", metadata | {"w_dim": "64"})
    with pytest.raises(ValueError, match="expected w_dim to be 64"):
        read_checkpoint(tmp_path / "a")
