"""``pulse encoder train``, and a run that begins at what it guesses."""

import json

import pytest
import torch
from safetensors import safe_open

WHAT = ["--factor", "4", "--samples", "400", "--steps", "60"]


@pytest.fixture
def trained(pulse, linear, tmp_path):
    path = tmp_path / "encoder.safetensors"
    done = pulse("encoder", "train", "-o", path, *linear, *WHAT)
    return path, done


def test_trains_prints_and_tells(trained):
    path, done = trained
    assert done.status == 0
    assert done.out == f"{path}\n"
    assert "cosine between guess and truth, on 512 pairs held out: z 0." in done.err
    with safe_open(path, "pt") as file:
        card = {key: json.loads(value) for key, value in file.metadata().items() if key != "format"}
    assert card["generator"] == "linear"
    assert card["degradation"]["factor"] == 4
    assert card["training"]["samples"] == 400
    assert 0.3 < card["cosines"]["z"] < 1
    assert card["blocks"] == {"z": [12]}


def test_a_run_begins_at_the_guess(trained, pulse, linear, small, tmp_path, records):
    """Nearer to the measurement than a random start, at the very first iterate."""
    path, _ = trained
    start = ["search/start=encoder", f"search.start.path={path}"]
    options = [*linear[:3], "search.steps=1", "search.start.draws=1"]
    assert pulse("upsample", *small, "-o", tmp_path / "guessed", *options, *start).status == 0
    assert pulse("upsample", *small, "-o", tmp_path / "drawn", *options).status == 0
    guessed, drawn = ({r["input"]: r["mse"] for r in records(tmp_path / name)} for name in ("guessed", "drawn"))
    assert guessed.keys() == drawn.keys()
    assert all(guessed[name] < drawn[name] for name in drawn)


def test_the_same_settings_give_the_same_network(trained, pulse, linear, tmp_path):
    path, _ = trained
    assert pulse("encoder", "train", "-o", tmp_path / "again.safetensors", *linear, *WHAT, "--quiet").err == ""
    with safe_open(path, "pt") as one, safe_open(tmp_path / "again.safetensors", "pt") as other:
        assert all(torch.equal(one.get_tensor(name), other.get_tensor(name)) for name in one.keys())  # noqa: SIM118


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["-o", "encoder.pt"], "expected a name that ends in .safetensors"),
        (["-o", "{folder}/there.safetensors"], "expected a new file, got one that is there"),
        (["-o", "{folder}/new.safetensors"], "expected a factor, got none"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(pulse, linear, tmp_path, change, message):
    (tmp_path / "there.safetensors").write_bytes(b"")
    done = pulse("encoder", "train", *linear, *(text.format(folder=tmp_path) for text in change))
    assert done.status == 2
    assert len(done.error_lines) == 1
    assert message in done.err


def test_an_encoder_must_be_named(pulse, linear, small, tmp_path):
    done = pulse("upsample", *small, "-o", tmp_path / "out", *linear, "search/start=encoder")
    assert done.status == 2
    assert "search.start.path" in done.err


def test_an_encoder_of_something_else_is_refused(trained, pulse, linear, small, tmp_path):
    path, _ = trained
    start = ["search/start=encoder", f"search.start.path={path}"]
    done = pulse(
        "upsample", *small, "-o", tmp_path / "out", *linear, *start, "--degradation", "downscale", "degradation.kernel=box"
    )
    assert done.status == 2, done.err
    assert "expected one trained for this generator, degradation and prior" in done.err
