"""`pulse weights convert` of PULSE's two or three files: one safetensors, which gives exactly the same images."""

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from generators import stylegan1
from pulse_framework.cli.compose import build, load
from tests.generators.test_stylegan1_layout import tensorflow_variables
from tests.generators.written import weights, write_tensorflow


@pytest.fixture
def given(tmp_path):
    """The three files of one tiny network."""
    tensors = {
        "synthesis": weights("stylegan1_pulse_32"),
        "mapping": weights("stylegan1_pulse_mapping"),
        "gaussian_fit": {"mean": torch.linspace(-1, 1, 64), "std": torch.linspace(0.5, 1, 64)},
    }
    for name, value in tensors.items():
        torch.save(value, tmp_path / f"{name}.pt")
    return {name: tmp_path / f"{name}.pt" for name in tensors}


def configured(path):
    """What `--generator stylegan1` makes of one file."""
    return build(load(["generator=stylegan1", f"generator.synthesis='{path}'", "generator.fit_samples=100"]).generator)


def assert_same_images(one, other):
    assert one.blocks == other.blocks
    rng = torch.Generator().manual_seed(0)
    noise = {b.name: torch.randn(2, *b.shape, generator=rng) for b in one.blocks if b.slot != "style"}
    for block in one.blocks:
        if block.slot == "style":
            latents = noise | {block.name: torch.randn(2, *block.shape, generator=rng)}
            assert torch.equal(one(latents), other(latents)), block.name


@pytest.mark.parametrize(
    "names",
    [
        ("synthesis", "mapping", "gaussian_fit"),
        ("gaussian_fit", "synthesis", "mapping"),
        ("mapping", "synthesis"),
        ("synthesis", "gaussian_fit"),
    ],
)
def test_one_file_gives_the_same_images(names, given, tmp_path, pulse):
    out = tmp_path / "one.safetensors"
    done = pulse("weights", "convert", *(given[name] for name in names), "-o", out)
    assert (done.status, done.out) == (0, f"{out}\n"), done.err
    expected = stylegan1.load(**{name: given[name] for name in names}, fit_samples=100)
    assert_same_images(expected, configured(out))
    with safe_open(out, "pt") as file:
        told, prefixes = file.metadata(), {name.split(".")[0] for name in file.keys()}  # noqa: SIM118
    assert prefixes == {{"synthesis": "g_synthesis", "mapping": "g_mapping"}.get(name, name) for name in names}
    assert (told["family"], told["img_resolution"], told["w_dim"]) == ("stylegan1", "32", "64")
    assert told.get("mapping_layers") == ("8" if "mapping" in names else None)
    again = tmp_path / "again.safetensors"
    assert pulse("weights", "convert", out, "-o", again).status == 0
    with safe_open(again, "pt") as file:
        assert file.metadata() == told
    one, other = load_file(out), load_file(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())


def test_parts_that_were_converted_by_themselves_are_joined_too(given, tmp_path, pulse):
    converted = {name: tmp_path / f"{name}.safetensors" for name in given}
    for name, path in given.items():
        assert pulse("weights", "convert", path, "-o", converted[name]).status == 0
    out = tmp_path / "one.safetensors"
    assert pulse("weights", "convert", *converted.values(), "-o", out).status == 0
    assert_same_images(stylegan1.load(**given), configured(out))


def test_a_fit_joins_a_pickle_and_stays_with_it(given, tmp_path, pulse, monkeypatch):
    variables = tensorflow_variables(weights("stylegan1_pulse_32"), weights("stylegan1_pulse_mapping"))
    write_tensorflow(monkeypatch, tmp_path / "g.pkl", variables, 3, resolution=32)
    out = tmp_path / "one.safetensors"
    assert pulse("weights", "convert", tmp_path / "g.pkl", given["gaussian_fit"], "-o", out).status == 0
    options = {"psi": 0.5, "noise": "stored"}
    pickled = stylegan1.load(tmp_path / "g.pkl", gaussian_fit=given["gaussian_fit"], **options)
    assert_same_images(pickled, stylegan1.load(out, **options))
    with pytest.raises(ValueError, match="expected no other Gaussian fit, since this file holds one"):
        stylegan1.load(out, gaussian_fit=given["gaussian_fit"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("mapping", "gaussian_fit"), "expected a synthesis with a mapping or a Gaussian fit"),
        (("synthesis", "synthesis"), "expected another part than those of"),
        (("synthesis", "other"), "expected a synthesis, a mapping or a Gaussian fit of a StyleGAN1, got layer.weight; leave it"),
        (("synthesis", "small"), "expected files of one network, the same size of w in each"),
        (("synthesis", "none"), "expected a file of weights, got no file"),
    ],
)
def test_files_that_are_no_parts_of_one_are_refused(names, message, given, tmp_path, pulse):
    torch.save({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    torch.save({"mean": torch.zeros(5), "std": torch.ones(5)}, tmp_path / "small.pt")
    out = tmp_path / "one.safetensors"
    done = pulse("weights", "convert", *(tmp_path / f"{name}.pt" for name in names), "-o", out)
    assert (done.status, done.out, len(done.error_lines)) == (2, "", 1)
    assert message in done.err
    assert not out.exists()
