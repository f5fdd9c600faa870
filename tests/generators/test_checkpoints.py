"""Every format read back: NVIDIA's own files against their arrays, the others as this test writes them."""

import argparse
import json
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from generators._checkpoints import read_checkpoint

GOLDEN = Path(__file__).parents[1] / "golden"
PICKLES = ["stylegan2_ada_resnet", "stylegan2_ada_skip", "stylegan3_t"]
LEGACY = {"_use_new_zipfile_serialization": False}


def weights(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return {key[8:]: torch.from_numpy(arrays[key]).float() for key in arrays.files if key.startswith("weights/")}


def settings(name):
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return json.loads(bytes(arrays["meta"]).decode())["kwargs"]


def assert_same(got, expected):
    assert {*got} == {*expected}
    for name, tensor in expected.items():
        assert got[name].dtype == torch.float32
        assert got[name].is_contiguous()
        assert torch.equal(got[name], tensor), name


def fake_module(monkeypatch, name, **members):
    """A module that exists while the test writes its file."""
    for end in [index for index, letter in enumerate(name) if letter == "."]:
        monkeypatch.setitem(sys.modules, name[:end], types.ModuleType(name[:end]))
    module = types.ModuleType(name)
    for key, member in members.items():
        member.__module__, member.__qualname__, member.__name__ = name, key, key
        setattr(module, key, member)
    monkeypatch.setitem(sys.modules, name, module)


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


def write_persistent(monkeypatch, path, tensors, arguments, protocol=4, source="", save=None):
    """An NVIDIA pickle of a single module that holds the tensors under one-part names, or a tree for dotted ones."""

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("run")

    class Persistent:
        def __init__(self, **state):
            self.state = state

        def __reduce__(self):
            meta = {"type": "class", "version": 6, "module_src": source, "class_name": "Any", "state": self.state}
            return _reconstruct_persistent_obj, (meta,)

    def tree(tensors, **state):
        own = {name: torch.nn.Parameter(tensor) for name, tensor in tensors.items() if "." not in name}
        heads = OrderedDict.fromkeys(name.split(".")[0] for name in tensors if "." in name)
        below = {h: tree({name[len(h) + 1 :]: t for name, t in tensors.items() if name.startswith(f"{h}.")}) for h in heads}
        return Persistent(_parameters=OrderedDict(own), _buffers=OrderedDict(none=None), _modules=OrderedDict(below), **state)

    fake_module(monkeypatch, "torch_utils.persistence", _reconstruct_persistent_obj=_reconstruct_persistent_obj)
    root = tree(tensors, _init_args=(), _init_kwargs=arguments)
    save(root, path) if save else path.write_bytes(pickle.dumps({"G_ema": root, "D": None}, protocol))
    monkeypatch.undo()


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


# NVIDIA, TensorFlow


def tensorflow_variables(tensors, orig=False):
    """TensorFlow's variables, by component, from SG2-ADA's tensors: section by section the inverse of what the reader does."""
    out = {"": [("lod", np.float32(0)), ("dlatent_avg", tensors["mapping.w_avg"].numpy())], "mapping": [], "synthesis": []}
    side = max(int(name.split(".")[1][1:]) for name in tensors if name.startswith("synthesis.b"))
    for name, tensor in tensors.items():
        array = tensor.numpy()
        part, *path, last = name.split(".")
        if last in ("resample_filter", "w_avg"):
            continue
        if part == "mapping":
            layer = path[0].replace("fc", "Dense").replace("embed", "LabelEmbed")
            out["mapping"].append((f"{layer}/{last}", array.T.copy() if last == "weight" else array))
            continue
        r, layer = int(path[0][1:]), path[1] if len(path) > 1 else ""
        conv = {"": "Const", "conv0": "Conv0_up", "conv1": "Conv1" if r > 4 else "Conv", "torgb": "ToRGB", "skip": "Skip"}[layer]
        prefix = "ToRGB_lod0" if orig and layer == "torgb" and r == side else f"{r}x{r}/{conv}"
        if len(path) == 3:
            out["synthesis"].append((f"{prefix}/mod_{last}", array.T.copy() if last == "weight" else array - 1))
        elif last == "noise_const":
            number = 0 if r == 4 else 2 * r.bit_length() - 7 + (layer == "conv1")
            out["synthesis"].append((f"noise{number}", array[None, None]))
        elif last == "noise_strength":
            out["synthesis"].append((f"{prefix}/{last}", np.float32(array)))
        elif last == "const":
            out["synthesis"].append((f"{prefix}/const", array[None]))
        elif last == "weight":
            array = array.transpose(2, 3, 1, 0)
            out["synthesis"].append((f"{prefix}/weight", array[::-1, ::-1] if layer == "conv0" else np.asfortranarray(array)))
        else:
            out["synthesis"].append((f"{prefix}/{last}", array))
    return out


def write_tensorflow(monkeypatch, path, variables, version=4, source="", **static):
    class Network:
        pass

    class EasyDict(dict):
        pass

    def network(name, components=()):
        made = Network()
        made.__dict__ = {
            "version": version,
            "name": name or "Gs",
            "static_kwargs": EasyDict(static),
            "components": EasyDict(components),
            "build_module_src": source,
            "build_func_name": "G_main",
            "variables": variables.get(name, []),
        }
        return made

    fake_module(monkeypatch, "dnnlib.tflib.network", Network=Network)
    fake_module(monkeypatch, "dnnlib.util", EasyDict=EasyDict)
    top = network("", {name: network(name) for name in variables if name})
    path.write_bytes(pickle.dumps((network("G"), network("D"), top), 4))
    monkeypatch.undo()


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


def rosinality():
    with np.load(GOLDEN / "stylegan2_rosinality.npz") as arrays:
        return weights("stylegan2_rosinality"), torch.from_numpy(arrays["latent_avg"])


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
