"""NVIDIA's TensorFlow pickles of StyleGAN1, as an inverse written here makes them, against the images published.

What PULSE's files have not, the mean w and the stored noise, is tried on them too.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from generators._checkpoints import read_checkpoint
from generators.stylegan1 import StyleGAN1, load, mapping_network, synthesis_network
from pulse_framework.testing import GeneratorContract
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


AVERAGE = np.linspace(-1, 1, 64, dtype="f4")


def stored(k):
    """The noise map of layer k."""
    side = 4 << k // 2
    return np.random.default_rng(k).normal(size=(1, 1, side, side)).astype("f4")


def tensorflow_variables(synthesis, mapping):
    """The variables of Gs: name by name the inverse of what lernapparat's converter did, with what it left out."""
    out = {"": [("lod", np.float32(0)), ("dlatent_avg", AVERAGE)], "mapping": [], "synthesis": []}
    out["synthesis"] += [("lod", np.float32(0)), ("ToRGB_lod1/weight", np.ones((1, 1, 9, 3))), ("ToRGB_lod1/bias", np.ones(3))]
    out["synthesis"] += [(f"noise{k}", stored(k)) for k in range(sum(name.endswith("noise.weight") for name in synthesis))]
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
    assert {*ours} == {*theirs, "styles.w_avg"}
    with pytest.raises(ValueError, match="expected no other mapping, since this file holds one"):
        load(tmp_path / "g.pkl", tmp_path / "mapping.pt")


def test_variables_saved_as_safetensors(monkeypatch, tmp_path):
    """What `pulse weights convert` makes of a pickle: tensors under their own names."""
    variables = tensorflow_variables(weights("stylegan1_pulse_32"), weights("stylegan1_pulse_mapping"))
    write_tensorflow(monkeypatch, tmp_path / "g.pkl", variables, 3, resolution=32)
    save_file(read_checkpoint(tmp_path / "g.pkl").tensors, tmp_path / "g.safetensors", {"family": "stylegan1"})
    one, two = (load(tmp_path / name, fit_samples=0).state_dict() for name in ("g.pkl", "g.safetensors"))
    assert all(torch.equal(two[key], value) for key, value in one.items())


@pytest.fixture
def pickled(monkeypatch, tmp_path):
    """The pickle of a tiny network, some variables of it left out."""

    def write(*without):
        variables = tensorflow_variables(weights("stylegan1_pulse_32"), weights("stylegan1_pulse_mapping"))
        for name in without:
            changed(variables, name, None)
        write_tensorflow(monkeypatch, tmp_path / "g.pkl", variables, 3, resolution=32)
        return tmp_path / "g.pkl"

    return write


@pytest.mark.parametrize("cutoff", [None, 0, 3, 8])
def test_truncation_draws_the_first_rows_of_z_to_the_mean_w(pickled, cutoff):
    """And nothing else: v and w are styles as they are."""
    drawn, rows = arrays("stylegan1_pulse_mapping"), 8 if cutoff is None else cutoff
    generator = load(pickled(), psi=0.7, cutoff=cutoff, noise="none", fit_samples=100)
    drawn_in = torch.from_numpy(AVERAGE) + 0.7 * (drawn["w"] - torch.from_numpy(AVERAGE))
    expected = torch.stack([drawn_in if row < rows else drawn["w"] for row in range(8)], 1)
    torch.testing.assert_close(generator.lift({"z": drawn["z"]}, "w_plus"), expected, rtol=1e-4, atol=1e-5)
    names = [block.name for block in generator.blocks]
    assert names == ["z", *(["w"] if rows == 8 else []), "w_plus", "v", "v_plus", "p_n", "p_n_plus"]
    plain = load(pickled(), noise="none", fit_samples=100)
    for name in ("v", "v_plus", "w_plus"):
        style = {name: torch.ones(2, 64) if name == "v" else torch.ones(2, 8, 64)}
        assert torch.equal(generator(style), plain(style))
    assert torch.equal(load(pickled(), psi=1.0, cutoff=cutoff).lift({"z": drawn["z"]}, "w"), plain.lift({"z": drawn["z"]}, "w"))


def test_psi_of_0_is_the_mean_w(pickled):
    generator = load(pickled(), psi=0.0, noise="none", fit_samples=0)
    torch.testing.assert_close(generator.lift({"z": torch.ones(1, 64)}, "w")[0], torch.from_numpy(AVERAGE))


@pytest.mark.parametrize("zero", [[], [2, -1]])
def test_stored_noise_is_that_of_the_file(pickled, zero):
    style = {"w_plus": torch.ones(2, 8, 64)}
    given = {f"noise_{k}": torch.from_numpy(stored(k)).expand(2, -1, -1, -1) for k in range(8)}
    given |= {f"noise_{k % 8}": torch.zeros_like(given[f"noise_{k % 8}"]) for k in zero}
    kept = load(pickled(), noise="stored", zero_noise=zero, fit_samples=0)
    assert not [block.name for block in kept.blocks if "noise" in block.name]
    torch.testing.assert_close(kept(style), load(pickled(), fit_samples=0)(style | given))
    assert not torch.allclose(kept(style), load(pickled(), noise="none", fit_samples=0)(style))


@pytest.mark.parametrize(
    ("without", "options", "message"),
    [
        ("dlatent_avg", {"psi": 0.7}, "expected a mapping and the mean w, to truncate z, got no mean w"),
        ("noise3", {"noise": "stored"}, "expected 8 stored maps of 4, 4, ..., 32 a side, got"),
        (None, {"psi": 0.7, "cutoff": 9}, "expected 0 to 8 rows of w_plus, got 9"),
    ],
)
def test_what_the_file_has_not_is_refused(pickled, without, options, message):
    path = pickled(*([without] if without else []))
    assert load(path, fit_samples=0).image_shape == (3, 32, 32)
    with pytest.raises(ValueError, match=message) as error:
        load(path, **options)
    assert str(path) in str(error.value)


class TestContractTruncatedAndStored(GeneratorContract):
    lifts = (("z", "w_plus"), ("v", "v_plus"), ("v", "w_plus"), ("v_plus", "w_plus"))

    def make(self):
        weights_of = {
            name: value for name, value in weights("stylegan1_pulse_32").items() if "16x16" not in name and "32x32" not in name
        }
        weights_of["torgb.weight"] = weights_of["torgb.weight"].new_ones(3, 32, 1, 1)
        maps = {k: torch.from_numpy(stored(k)) for k in range(4)}
        fit, w_avg = (torch.zeros(64), torch.ones(64)), torch.from_numpy(AVERAGE)
        networks = synthesis_network(weights_of, "golden"), mapping_network(weights("stylegan1_pulse_mapping"), "golden")
        return StyleGAN1(*networks, fit, w_avg=w_avg, stored=maps, psi=0.7, cutoff=2, noise="stored").float()


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
