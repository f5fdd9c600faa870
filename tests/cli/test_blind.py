"""Blind searches from the command line: what the truth is for, and what becomes of the parameters that were found."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from degradations.blur import gaussian_blur
from generators.linear import load
from pulse_framework.cli.compose import build
from pulse_framework.cli.compose import load as load_config
from pulse_framework.cli.restore import prepare
from pulse_framework.images import read_image, write_png

BLIND = ["--degradation", "blind_gaussian_blur"]


@pytest.fixture
def sharp(linear_file, tmp_path):
    """Two pictures that the generator can draw."""
    generator, folder = load(linear_file), tmp_path / "sharp"
    folder.mkdir()
    images = generator({"z": torch.randn(2, 12, generator=torch.Generator().manual_seed(5))}).detach()
    return [write_png(image, folder / f"{k}.png") for k, image in enumerate(images)]


@pytest.fixture
def blurred(pulse, sharp, tmp_path):
    truth = ["degradation.truth={sigma:0.8}", "degradation.unknown.sigma.high=2"]
    assert pulse("degrade", *sharp, "-o", tmp_path / "blurred", *BLIND, *truth).status == 0
    return [tmp_path / "blurred" / path.name for path in sharp]


def test_truth_is_what_degrade_does(blurred, sharp):
    for path, original in zip(blurred, sharp, strict=True):
        y = gaussian_blur(0.8).measure(read_image(original)[None], torch.Generator())[0]
        torch.testing.assert_close(read_image(path), y, rtol=0, atol=1e-6)


def test_parameters_are_found_reported_and_saved(pulse, records, linear, linear_file, blurred, tmp_path):
    out = tmp_path / "out"
    settings = ["search.steps=150", "search.start.draws=64", "search.at_target=false", "prior=gaussian", "objective=l2"]
    done = pulse("upsample", *blurred, "-o", out, *linear, *settings)
    assert done.status == 0
    generator, lines = load(linear_file), records(out)
    assert len(lines) == 2
    for line in lines:
        assert list(line["parameters"]) == list(line["parameter_errors"]) == ["sigma"]
        sigma = line["parameters"]["sigma"]
        assert line["parameter_errors"]["sigma"] == pytest.approx(abs(sigma - 0.8) / 0.8, rel=1e-5)
        assert sigma == pytest.approx(0.8, rel=0.2)
        latents = load_file(out / line["latent"])
        assert sigma == pytest.approx(0.5 + 1.5 * float(torch.special.ndtr(latents["degradation.sigma"])), rel=1e-5)
        image = generator({"z": latents["z"][None]})
        mse = float((gaussian_blur(sigma)(image)[0] - read_image(line["input"])).square().mean())
        assert line["mse"] == pytest.approx(mse, rel=1e-3)


def test_shown_degraded_answers_are_those_of_the_parameters_found(linear, linear_file, sharp, tmp_path):
    settings = ["generator=linear", *linear[2:], "degradation=blind_gaussian_blur", "search.at_target=false"]
    job = prepare(load_config([*settings, f"data.inputs=['{sharp[0]}']", f"output='{tmp_path / 'out'}'"]))
    job(quiet=True)
    ((_, answer, degraded),) = job.writer.rows.values()
    found = load_file(tmp_path / "out" / "0.safetensors")
    sigma = 0.5 + 2.5 * float(torch.special.ndtr(found["degradation.sigma"]))
    torch.testing.assert_close(degraded, gaussian_blur(sigma)(answer[None])[0], rtol=0, atol=1e-5)
    assert (degraded - gaussian_blur(1.75)(answer[None])[0]).abs().max() > 1e-3


@pytest.mark.weights
def test_the_page_about_them_works(pulse, records, tmp_path, monkeypatch):
    """Commands, Python and configuration, in two steps."""
    text = (Path(__file__).parents[2] / "docs/blind.md").read_text()
    monkeypatch.chdir(tmp_path)
    write_png(torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)), tmp_path / "large.png")
    fast = ["search.start.draws=1", "search.steps=2", "trainer.device=cpu"]
    (commands,) = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    for command in commands.splitlines():
        words = shlex.split(command)[1:]
        assert pulse(*words, *(fast if words[0] == "upsample" else [])).status == 0
    (line,) = records("out-blind")
    assert (list(line["parameters"]), list(line["parameter_errors"])) == (["sigma"], ["sigma"])
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    space = {}
    exec(code.replace('"experiment=blind"', f'"experiment=blind", *{fast[:2]}'), space)
    assert 0.5 <= space["found"].results[0].parameters["sigma"] <= 3
    (yaml,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert [block.name for block in build(OmegaConf.create(yaml)).blocks] == ["degradation.radius"]


def test_without_a_truth_there_is_no_error_to_report(pulse, records, linear, sharp, tmp_path):
    assert pulse("upsample", *sharp, "-o", tmp_path / "out", *linear, *BLIND).status == 0
    for line in records(tmp_path / "out"):
        assert "parameter_errors" not in line
        assert 0.5 <= line["parameters"]["sigma"] <= 3


def test_saved_latents_are_rendered_without_the_parameters(pulse, records, linear, sharp, tmp_path):
    assert pulse("upsample", *sharp, "-o", tmp_path / "out", *linear, *BLIND).status == 0
    line = records(tmp_path / "out")[0]
    latents, path = tmp_path / "out" / line["latent"], linear[2]
    done = pulse("render", latents, "-o", tmp_path / "again", "--generator", "linear", path)
    assert done.status == 0
    assert torch.equal(read_image(tmp_path / "again" / f"{latents.stem}.png"), read_image(tmp_path / "out" / line["output"]))


def test_operators_are_refused_before_any_work(pulse, linear, sharp, tmp_path):
    done = pulse("upsample", *sharp, "-o", tmp_path / "out", *linear, *BLIND, "degradation.unknown.sigma.low=0")
    assert done.status == 2
    assert "gaussian_blur sigma: expected a finite number above 0, got 0.0" in done.err
    unknown = ["objective=gaussian", "objective.terms.consistency.sigma=nope"]
    done = pulse("upsample", *sharp, "-o", tmp_path / "out", *linear, *BLIND, *unknown)
    assert done.status == 2
    assert "GaussianLikelihood sigma: expected a number or one of ['sigma'], got 'nope'" in done.err
