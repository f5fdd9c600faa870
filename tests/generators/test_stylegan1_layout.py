"""NVIDIA's TensorFlow pickles of StyleGAN1, as an inverse written here makes them, against the images published."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from generators._checkpoints import read_checkpoint
from generators.stylegan1 import load
from tests.generators.written import GOLDEN, weights, write_tensorflow

OWNERS = {  # PULSE's layer and its epilogue to TensorFlow's scope
    ("4x4", "const"): "Const",
    ("4x4", "epi1"): "Const",
    ("4x4", "bias"): "Const",
    ("4x4", "conv"): "Conv",
    ("4x4", "epi2"): "Conv",
    ("conv0_up",): "Conv0_up",
    ("epi1",): "Conv0_up",
    ("conv1",): "Conv1",
    ("epi2",): "Conv1",
}


def arrays(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file if key != "meta"}


def tensorflow_variables(synthesis, mapping):
    """The variables of Gs: name by name the inverse of what lernapparat's converter did, with what it left out."""
    out = {"": [("lod", np.float32(0)), ("dlatent_avg", np.ones(64, "f4"))], "mapping": [], "synthesis": []}
    out["synthesis"] += [("lod", np.float32(0)), ("ToRGB_lod1/weight", np.ones((1, 1, 9, 3))), ("ToRGB_lod1/bias", np.ones(3))]
    out["synthesis"] += [(f"noise{k}", np.ones((1, 1, 4 << k // 2, 4 << k // 2), "f4")) for k in range(4)]
    for name, tensor in mapping.items():
        array = tensor.numpy()
        out["mapping"].append((name.replace("dense", "Dense").replace(".", "/"), array.T if "weight" in name else array))
    for name, tensor in synthesis.items():
        array, (*path, last) = tensor.numpy(), name.split(".")
        if last == "kernel":
            continue
        if path == ["torgb"]:
            scope = "ToRGB_lod0"
        else:
            _, side, *layer = path
            first = layer[0] if layer else last
            scope = f"{side}/{OWNERS.get((side, first)) or OWNERS[(first,)]}"
            scope += "/Noise" if "noise" in path else "/StyleMod" if "style_mod" in path else ""
        if last == "weight" and array.ndim > 1:
            array = array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
        out["synthesis"].append((f"{scope}/{last}", array))
    return out


@pytest.mark.parametrize("name", ["stylegan1_pulse_32", "stylegan1_pulse_128"])
def test_tensorflow_pickle_gives_the_images_published(monkeypatch, tmp_path, name):
    synthesis, mapping = weights(name), weights("stylegan1_pulse_mapping")
    golden, drawn, side = arrays(name), arrays("stylegan1_pulse_mapping"), int(name.split("_")[-1])
    static = {"resolution": side, "num_channels": 3, "label_size": 0, "fused_scale": "auto", "blur_filter": [1, 2, 1]}
    write_tensorflow(monkeypatch, tmp_path / "g.pkl", tensorflow_variables(synthesis, mapping), 3, **static)
    generator = load(tmp_path / "g.pkl", fit_samples=0)
    noise = {f"noise_{key[6:]}": value for key, value in golden.items() if key.startswith("noise/")}
    image = 2 * generator({"w_plus": golden["w"]} | noise) - 1
    assert float((image - golden["image"]).abs().max() / golden["image"].abs().max()) < 1e-4
    torch.testing.assert_close(generator.lift({"z": drawn["z"]}, "w"), drawn["w"], rtol=1e-4, atol=1e-5)
    torch.save(synthesis, tmp_path / "synthesis.pt")
    torch.save(mapping, tmp_path / "mapping.pt")
    ours, theirs = generator.state_dict(), load(tmp_path / "synthesis.pt", tmp_path / "mapping.pt", fit_samples=0).state_dict()
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())
    assert {*ours} == {*theirs}
    with pytest.raises(ValueError, match="expected no other mapping, since this file holds one"):
        load(tmp_path / "g.pkl", tmp_path / "mapping.pt")


def test_variables_saved_as_safetensors(monkeypatch, tmp_path):
    """What `pulse weights convert` makes of a pickle: tensors under their own names."""
    variables = tensorflow_variables(weights("stylegan1_pulse_32"), weights("stylegan1_pulse_mapping"))
    write_tensorflow(monkeypatch, tmp_path / "g.pkl", variables, 3, resolution=32)
    save_file(read_checkpoint(tmp_path / "g.pkl").tensors, tmp_path / "g.safetensors", {"family": "stylegan1"})
    one, two = (load(tmp_path / name, fit_samples=0).state_dict() for name in ("g.pkl", "g.safetensors"))
    assert all(torch.equal(two[key], value) for key, value in one.items())


def changed(variables, name, value):
    for rows in variables.values():
        rows[:] = [(key, value if key == name else array) for key, array in rows if key != name or value is not None]


@pytest.mark.parametrize(
    ("change", "static", "message"),
    [
        (lambda v: v["mapping"].append(("LabelConcat/weight", np.ones((4, 64)))), {}, "unexpected .'mapping/LabelConcat/weight'"),
        (lambda v: changed(v, "8x8/Conv1/bias", None), {}, r"missing \['synthesis/8x8/Conv1/bias'\], unexpected \[\]"),
        (lambda v: changed(v, "8x8/Conv1/weight", np.ones((9, 9))), {}, "'synthesis/8x8/Conv1/weight' with 4 axes, got 2"),
        (lambda v: changed(v, "8x8/Conv1/bias", np.ones(5)), {}, r"blocks.8x8.conv1.bias': expected shape \(\d+,\), got \(5,\)"),
        (lambda v: changed(v, "lod", np.float32(1.5)), {}, "expected a network grown to its full size"),
        (lambda v: None, {"fused_scale": False}, "made with fused_scale='auto', got False"),
    ],
)
def test_other_tensorflow_pickles_are_refused(monkeypatch, tmp_path, change, static, message):
    variables = tensorflow_variables(weights("stylegan1_pulse_32"), weights("stylegan1_pulse_mapping"))
    change(variables)
    write_tensorflow(monkeypatch, tmp_path / "g.pkl", variables, 3, resolution=32, **static)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path / "g.pkl", fit_samples=0)
    assert str(tmp_path / "g.pkl") in str(error.value)
