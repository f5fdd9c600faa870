"""`pulse weights inspect` and `convert`: files say what they are, and what is converted is bit for bit the same."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from generators import stylegan1, stylegan2, stylegan3
from generators._checkpoints import read_checkpoint
from pulse_framework.cli import checkpoints
from tests.generators.written import (
    GOLDEN,
    PICKLES,
    rosinality,
    settings,
    tensorflow_variables,
    weights,
    write_persistent,
    write_tensorflow,
)

FACES = Path(stylegan2.__file__).parent / "weights" / "faces-stylegan2-64.safetensors"
LOADERS = {"stylegan2": stylegan2.load, "stylegan3": stylegan3.load}


def metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


def values(text):
    """The `key: value` lines before the blank one."""
    lines = text.split("\n\n")[0].splitlines()
    pairs = [line.split(": ", 1) for line in lines]
    assert len({key for key, _ in pairs}) == len(pairs)
    return dict(pairs)


def assert_same_images(one, other):
    assert one.blocks == other.blocks
    rng = torch.Generator().manual_seed(0)
    latents = {
        block.name: torch.randn(2, *block.shape, generator=rng)
        for block in one.blocks
        if block.name in ("z", "label") or block.name.startswith("noise_")
    }
    assert torch.equal(one(latents), other(latents))


def assert_same_checkpoint(one, other):
    assert (one.family, {*one.tensors}) == (other.family, {*other.tensors})
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        assert torch.equal(tensor, other.tensors[name]), name
    about = {"names", "pixel_range", "w_avg", "licence"} - {*one.architecture}
    assert one.architecture == {key: value for key, value in other.architecture.items() if key not in about}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A file of every kind that holds a StyleGAN2 or 3."""

    def write(kind):
        path = tmp_path / "given"
        if kind in PICKLES:
            path.write_bytes((GOLDEN / f"{kind}.pkl").read_bytes())
        elif kind == "faces":
            path.write_bytes(FACES.read_bytes())
        elif kind == "orig":
            write_persistent(monkeypatch, path, weights("stylegan2_ada_orig"), settings("stylegan2_ada_orig"))
        elif kind == "stylegan3_r":
            write_persistent(monkeypatch, path, weights("stylegan3_r"), settings("stylegan3_r"))
        elif kind == "tensorflow":
            variables = tensorflow_variables(weights("stylegan2_ada_skip"))
            static = {"latent_size": 32, "label_size": 4, "dlatent_size": 48, "resolution": 32, "architecture": "skip"}
            write_tensorflow(monkeypatch, path, variables, **static)
        else:
            tensors, average = rosinality()
            value = {"g_ema": tensors, "latent_avg": average}
            if kind == "psp":
                value = {"state_dict": {f"decoder.{name}": t for name, t in tensors.items()}, "latent_avg": average.expand(8, -1)}
            torch.save(value, path)
        return path

    return write


@pytest.mark.parametrize("kind", [*PICKLES, "faces", "orig", "stylegan3_r", "tensorflow", "rosinality", "psp"])
def test_converted_is_the_same(kind, written, tmp_path, pulse):
    given, out = written(kind), tmp_path / "out.safetensors"
    done = pulse("weights", "convert", given, "-o", out)
    assert (done.status, done.out) == (0, f"{out}\n"), done.err
    one, other = read_checkpoint(given), read_checkpoint(out)
    assert_same_checkpoint(one, other)
    assert other.source_format == "safetensors"
    load = LOADERS[one.family]
    assert_same_images(load(given, fit_samples=100), load(out, fit_samples=100))
    again = tmp_path / "again.safetensors"
    assert pulse("weights", "convert", out, "-o", again).status == 0
    assert metadata(again) == metadata(out)
    assert {path.name for path in tmp_path.iterdir()} == {"given", "out.safetensors", "again.safetensors"}


def test_metadata_has_the_keys_of_our_own_weights(tmp_path, pulse):
    out = tmp_path / "out.safetensors"
    pulse("weights", "convert", GOLDEN / "stylegan2_ada_skip.pkl", "-o", out)
    ours, got = metadata(FACES), metadata(out)
    assert {*ours} - {*got} == {"images_seen"}
    alike = ("family", "names", "w_avg", "pixel_range", "architecture", "conv_clamp", "img_channels")
    assert {key: got[key] for key in alike} == {key: ours[key] for key in alike}
    assert (got["c_dim"], got["z_dim"], json.loads(got["resample_kernel"])) == ("4", "32", [1, 3, 3, 1])
    pulse("weights", "convert", FACES, "-o", out, "--overwrite")
    assert {key: metadata(out)[key].replace(" ", "") for key in ours} == {
        key: text.replace(" ", "") for key, text in ours.items()
    }


def test_each_file_of_pulse_is_converted_by_itself(tmp_path, pulse):
    tensors = {"synthesis": weights("stylegan1_pulse_32"), "mapping": weights("stylegan1_pulse_mapping")}
    tensors["gaussian_fit"] = {"mean": torch.linspace(-1, 1, 64), "std": torch.linspace(0.5, 1, 64)}
    given = {name: tmp_path / f"{name}.pt" for name in tensors}
    converted = {name: tmp_path / f"{name}.safetensors" for name in tensors}
    for name, path in given.items():
        torch.save(tensors[name], path)
        assert pulse("weights", "convert", path, "-o", converted[name]).status == 0
        assert_same_checkpoint(read_checkpoint(path), read_checkpoint(converted[name]))
    assert_same_images(stylegan1.load(**given), stylegan1.load(**converted))
    single = {f"g_synthesis.{name}": tensor for name, tensor in tensors["synthesis"].items()}
    single |= {f"g_mapping.{name}": tensor for name, tensor in tensors["mapping"].items()}
    torch.save(single, tmp_path / "single.pt")
    assert pulse("weights", "convert", tmp_path / "single.pt", "-o", tmp_path / "single.safetensors").status == 0
    one, other = (stylegan1.load(tmp_path / f"single.{kind}", fit_samples=100) for kind in ("pt", "safetensors"))
    assert_same_images(one, other)


@pytest.mark.parametrize("family", ["stylegan1", "progan"])
def test_older_tensorflow_networks_keep_their_names(family, tmp_path, pulse, monkeypatch):
    variables = {"": [("lod", np.float32(0))], "synthesis": [("4x4/Const/const", np.ones((1, 8, 4, 4), np.float32))]}
    if family == "stylegan1":
        variables["mapping"] = [("Dense0/weight", np.ones((4, 4), np.float32))]
    write_tensorflow(monkeypatch, tmp_path / "a.pkl", variables, version=3, resolution=8, latent_size=4)
    out = tmp_path / "a.safetensors"
    assert pulse("weights", "convert", tmp_path / "a.pkl", "-o", out).status == 0
    one, other = read_checkpoint(tmp_path / "a.pkl"), read_checkpoint(out)
    assert one.family == family
    assert_same_checkpoint(one, other)
    assert values(pulse("weights", "inspect", out).out)["resolution"] == "8"


def test_inspect_says_what_is_there(pulse):
    done = pulse("weights", "inspect", FACES)
    assert (done.status, done.err) == (0, "")
    assert "\n\n" not in done.out
    told = values(done.out)
    assert list(told)[:4] == ["family", "source_format", "resolution", "licence"]
    assert [*list(told)[:4], *sorted(list(told)[4:-4]), *list(told)[-4:]] == list(told)
    tensors = load_file(FACES)
    assert (told["family"], told["source_format"], told["resolution"], told["licence"]) == (
        "stylegan2",
        "safetensors",
        "64",
        "unknown",
    )
    assert (told["parameters"], told["tensors"], told["conv_clamp"]) == ("748440", str(len(tensors)), "none")  # its card
    assert float(told["w_avg_norm"]) == pytest.approx(float(tensors["mapping.w_avg"].norm()), rel=1e-5)
    strengths = [float(tensor) for name, tensor in tensors.items() if name.endswith("noise_strength")]
    least, most = map(float, told["noise_strengths"].split(" to "))
    assert (least, most) == pytest.approx((min(strengths), max(strengths)), rel=1e-5)


def test_inspect_lists_layers_after_a_blank_line(pulse):
    done = pulse("weights", "inspect", GOLDEN / "stylegan3_t.pkl", "--layers")
    head, layers = done.out.rstrip("\n").split("\n\n")
    assert head + "\n" == pulse("weights", "inspect", GOLDEN / "stylegan3_t.pkl").out
    expected = {name: str(list(tensor.shape)) for name, tensor in weights("stylegan3_t").items()}
    assert [line.split(": ") for line in layers.splitlines()] == [[name, expected[name]] for name in sorted(expected)]
    assert values(done.out)["source_format"] == "nvidia-torch"
    assert "noise_strengths" not in values(done.out)


def test_the_licence_is_shown_and_handed_on(tmp_path, pulse):
    given, out = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(load_file(FACES), given, metadata(FACES) | {"licence": "CC BY-NC 4.0"})
    assert values(pulse("weights", "inspect", given).out)["licence"] == "CC BY-NC 4.0"
    done = pulse("weights", "convert", given, "-o", out)
    assert (done.err, metadata(out)["licence"]) == ("", "CC BY-NC 4.0")
    assert "licence" in pulse("weights", "convert", FACES, "-o", out, "--overwrite").err


@pytest.mark.parametrize(
    "value", [None, True, 1, 0.1, 2**2.1, [1, 2.5], "skip", "none", "None", "1", "true", '"a"', "", {"a": [None]}]
)
def test_metadata_is_read_back_as_it_was(value, tmp_path):
    path = tmp_path / "a"
    save_file({"mean": torch.zeros(2), "std": torch.ones(2)}, path, {"key": checkpoints._coded(value)})
    got = read_checkpoint(path).architecture["key"]
    assert got == value
    assert type(got) is type(value)


def test_words_of_a_file_cannot_forge_lines(tmp_path, pulse):
    path = tmp_path / "a.safetensors"
    evil = {"licence": "MIT\nfamily: other", "a\nlicence: b": "\x1b[2J", "source_format": "forged", "parameters": "1"}
    save_file(load_file(FACES), path, metadata(FACES) | evil)
    done = pulse("weights", "inspect", path)
    assert done.status == 0
    assert "\x1b" not in done.out
    told = values(done.out)
    assert (told["family"], told["source_format"], told["parameters"]) == ("stylegan2", "safetensors", "748440")
    assert told["licence"] == '"MIT\\nfamily: other"'


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("out.pt", (), "expected a name that ends in .safetensors"),
        ("there.safetensors", (), "expected a new file, got one that is there; give --overwrite"),
        ("folder.safetensors", ("--overwrite",), "expected a new file, got one that is there; name a file in it"),
        ("none/out.safetensors", (), "expected its folder to be there"),
    ],
)
def test_outputs_that_are_refused(output, options, message, tmp_path, pulse):
    (tmp_path / "there.safetensors").write_text("kept")
    (tmp_path / "folder.safetensors").mkdir()
    done = pulse("weights", "convert", FACES, "-o", tmp_path / output, *options)
    assert (done.status, done.out, len(done.error_lines)) == (2, "", 1)
    assert message in done.err
    assert (tmp_path / "there.safetensors").read_text() == "kept"
    assert len([*tmp_path.iterdir()]) == 2


def test_a_file_that_runs_something_is_refused_and_nothing_is_written(tmp_path, pulse):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"G_ema": Evil()}))
    (tmp_path / "text").write_text("not weights, for sure")
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    out = tmp_path / "out.safetensors"
    for name, message in (("evil.pkl", "evil.pkl"), ("text", "got a file that begins with"), ("none", "got no file")):
        for arguments in (("inspect", tmp_path / name), ("convert", tmp_path / name, "-o", out)):
            done = pulse("weights", *arguments)
            assert (done.status, done.out, len(done.error_lines)) == (2, "", 1)
            assert message in done.err
    assert values(pulse("weights", "inspect", tmp_path / "other.pt").out)["family"] == "unknown"
    done = pulse("weights", "convert", tmp_path / "other.pt", "-o", out)
    assert done.status == 2
    assert "known family" in done.err
    assert {path.name for path in tmp_path.iterdir()} == {"evil.pkl", "text", "other.pt"}


@pytest.mark.parametrize("fault", ["tensor", "architecture"])
def test_what_is_not_read_back_gets_no_name(fault, tmp_path, pulse, monkeypatch):
    out = tmp_path / "out.safetensors"
    out.write_text("kept")
    if fault == "tensor":
        monkeypatch.setattr(checkpoints, "save", _damaged(checkpoints.save))
    else:
        monkeypatch.setattr(checkpoints, "_coded", lambda value: "0.02" if value == 0.01 else _coded(value))
    done = pulse("weights", "convert", FACES, "-o", out, "--overwrite")
    assert (done.status, len(done.error_lines)) == (2, 1)
    assert ("tensor" if fault == "tensor" else "mapping_lr_multiplier") in done.err
    assert out.read_text() == "kept"
    assert [*tmp_path.iterdir()] == [out]


_coded = checkpoints._coded


def _damaged(save):
    return lambda tensors, told: save(tensors, told)[:-1] + b"\x01"
