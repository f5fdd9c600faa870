"""Checkpoints as their authors write them, from the golden arrays."""

import json
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

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


def rosinality():
    with np.load(GOLDEN / "stylegan2_rosinality.npz") as arrays:
        return weights("stylegan2_rosinality"), torch.from_numpy(arrays["latent_avg"])


def rosinality_state(tensors):
    """What rosinality's port calls the tensors of SG2-ADA's skip architecture, with its axes of 1."""
    sides = [4 << index for index in range(sum(name.endswith("torgb.weight") for name in tensors))]
    places = {"b4.conv1": "conv1", "b4.torgb": "to_rgb1"}
    for block, side in enumerate(sides[1:]):
        places |= {f"b{side}.conv{k}": f"convs.{2 * block + k}" for k in (0, 1)} | {f"b{side}.torgb": f"to_rgbs.{block}"}
    layers = [name for name in places if "conv" in name]
    out = {"input.input": tensors["synthesis.b4.const"][None]}
    for index in range(sum(name.startswith("mapping.fc") for name in tensors) // 2):
        out |= {f"style.{index + 1}.{kind}": tensors[f"mapping.fc{index}.{kind}"] for kind in ("weight", "bias")}
    for ours, theirs in places.items():
        part = f"synthesis.{ours}"
        out |= {f"{theirs}.conv.modulation.{kind}": tensors[f"{part}.affine.{kind}"] for kind in ("weight", "bias")}
        out[f"{theirs}.conv.weight"] = tensors[f"{part}.weight"][None]
        bias = tensors[f"{part}.bias"]
        if "torgb" in ours:
            out[f"{theirs}.bias"] = bias.reshape(1, -1, 1, 1)
        else:
            out |= {f"{theirs}.activate.bias": bias, f"{theirs}.noise.weight": tensors[f"{part}.noise_strength"].reshape(1)}
            out[f"noises.noise_{layers.index(ours)}"] = tensors[f"{part}.noise_const"][None, None]
        kernel = tensors["synthesis.b4.resample_filter"]
        up = {"conv0": "conv.blur.kernel", "torgb": "upsample.kernel"}.get(ours.split(".")[1])
        out |= {f"{theirs}.{up}": 4 * kernel} if up and ours != "b4.torgb" else {}
    return out
