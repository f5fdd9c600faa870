"""``pulse sample`` and ``render``, and that every picture says that it is synthetic."""

import json
import re
from itertools import pairwise

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from generators.linear import load
from pulse_framework.images import read_image


def test_sample_and_render(pulse, pulse_process, linear, linear_file, tmp_path):
    done = pulse("sample", "-n", 3, "-o", tmp_path / "s", *linear)
    assert done.status == 0
    assert done.out.splitlines() == [str(tmp_path / "s" / f"sample_000{i}.png") for i in range(3)]
    latents = [load_file(tmp_path / "s" / f"sample_000{i}.safetensors")["z"] for i in range(3)]
    assert not torch.equal(latents[0], latents[1])
    pulse("sample", "-n", 1, "-o", tmp_path / "s1", *linear, "--seed", 0)
    assert torch.equal(load_file(tmp_path / "s1" / "sample_0000.safetensors")["z"], latents[0])
    pulse("sample", "-n", 1, "-o", tmp_path / "s2", *linear, "--seed", 1)
    assert not torch.equal(load_file(tmp_path / "s2" / "sample_0000.safetensors")["z"], latents[0])
    files = [tmp_path / "s" / f"sample_000{i}.safetensors" for i in range(3)]
    drawn = pulse("render", *files, "-o", tmp_path / "r", *linear[2:3])
    assert drawn.status == 0
    for i in range(3):
        assert torch.equal(*(read_image(tmp_path / folder / f"sample_000{i}.png") for folder in "rs"))
    assert pulse("render", *files, "-o", tmp_path / "r", *linear[2:3]).status == 2
    assert pulse("render", *files[:2], "-o", tmp_path / "b", "--between", 5, *linear[2:3]).status == 0
    steps = [load_file(tmp_path / "b" / f"between_0{i}.safetensors")["z"] for i in range(5)]
    assert torch.allclose(steps[0], latents[0], atol=1e-5)
    assert torch.allclose(steps[-1], latents[1], atol=1e-5)
    assert [float(step.norm()) for step in steps] == pytest.approx([12**0.5] * 5, rel=1e-5)
    assert len({round(float((a - b).norm()), 4) for a, b in pairwise(steps)}) == 1
    generator = load(linear_file)
    assert torch.allclose(
        read_image(tmp_path / "b" / "between_02.png"), generator({"z": steps[2][None]})[0].clamp(0, 1), atol=0.51 / 255
    )
    real = pulse_process("render", "s/sample_0001.safetensors", "-o", "far", *linear[2:3], cwd=tmp_path)
    assert (real.status, real.out, real.err) == (0, "far/sample_0001.png\n", "")


def test_sample_and_render_with_a_prior_for_each_block(pulse, linear, tmp_path):
    prior = ["~prior", "+prior.z={_target_:pulse_framework.priors.SpherePrior,radius:2.0}"]
    assert pulse("sample", "-n", 2, "-o", tmp_path / "s", *linear, *prior).status == 0
    files = sorted((tmp_path / "s").glob("*.safetensors"))
    assert [float(load_file(file)["z"].norm()) for file in files] == pytest.approx([2, 2])
    assert pulse("render", *files, "-o", tmp_path / "b", "--between", 3, *linear[2:3], *prior).status == 0
    assert float(load_file(tmp_path / "b" / "between_01.safetensors")["z"].norm()) == pytest.approx(2)
    unknown = ["~prior", "+prior.nope={_target_:pulse_framework.priors.SpherePrior}"]
    done = pulse("sample", "-o", tmp_path / "n", *linear, *unknown)
    assert (done.status, len(done.error_lines), "nope" in done.err) == (2, 1, True)


def test_rendered_latents_of_a_search_are_its_images(pulse, small, linear, tmp_path):
    for precision in ("32-true", "64-true"):
        out = tmp_path / precision
        pulse("upsample", small[0], "-o", out, *linear, "--precision", precision)
        assert pulse("render", out / "in00.safetensors", "-o", out / "again", *linear[2:3]).status == 0
        assert torch.equal(read_image(out / "again" / "in00.png"), read_image(out / "in00.png"))


def test_render_refuses(pulse, linear, tmp_path):
    pulse("sample", "-n", 2, "-o", tmp_path / "s", *linear)
    file = tmp_path / "s" / "sample_0000.safetensors"
    cases = [
        [tmp_path / "s" / "sample_0000.png", *linear[2:3]],
        [tmp_path / "missing.safetensors", *linear[2:3]],
        [file, "--between", 3, *linear[2:3]],
        [file, file, *linear[2:3]],
        [file, "--generator", "nope"],
        [file],
    ]
    for case in cases:
        done = pulse("render", *case, "-o", tmp_path / "r")
        assert (done.status, len(done.error_lines)) == (2, 1), case
    assert not (tmp_path / "r").exists()


def test_every_picture_says_that_it_is_synthetic(pulse, small, linear, tmp_path):
    """Answers and their mean, random images, images of latents, and overviews."""

    def said(path):
        with Image.open(path) as image:
            image.load()
            text = image.text
        (term,) = re.findall(r"digitalsourcetype/(\w+)<", text["XML:com.adobe.xmp"])
        return term, text["Generator"], text.get("Seed")

    path = next(option for option in linear if option.startswith("generator.path"))
    assert pulse("upsample", small[0], "-o", tmp_path / "up", *linear, "--samples", 2, "--seed", 5).status == 0
    for name in ("in00_0.png", "in00_1.png", "in00_mean.png", "in00_std.png"):
        assert said(tmp_path / "up" / name) == ("trainedAlgorithmicMedia", "linear", "5")
    assert said(tmp_path / "up" / "grid.png") == ("compositeWithTrainedAlgorithmicMedia", "linear", None)  # it has the input
    assert pulse("sample", "-n", 2, "-o", tmp_path / "drawn", "--generator", "linear", "--seed", 6, path).status == 0
    for name in ("sample_0001.png", "grid.png"):
        assert said(tmp_path / "drawn" / name) == ("trainedAlgorithmicMedia", "linear", "6")
    latents = sorted((tmp_path / "drawn").glob("*.safetensors"))
    assert pulse("render", latents[0], "-o", tmp_path / "made", path).status == 0
    assert said(tmp_path / "made" / "sample_0000.png") == ("trainedAlgorithmicMedia", "linear", "6")
    assert pulse("render", *latents, "--between", 2, "-o", tmp_path / "way", path).status == 0
    assert said(tmp_path / "way" / "between_01.png") == ("trainedAlgorithmicMedia", "linear", None)
    with Image.open(tmp_path / "up" / "in00_1.png") as image:
        settings = json.loads(image.text["Settings"])
    assert (settings["search"]["steps"], settings["search"]["samples"]) == (8, 2)
    assert settings["generator"]["path"] == path.split("/")[-1].strip("'")


def test_the_warning_of_faces_is_said_once(pulse, small, linear, tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))
    faces, warning = (
        ["--steps", 1, "search.start.draws=1", "--device", "cpu"],
        "people who do not exist and cannot identify anyone",
    )
    said = [
        pulse("upsample", small[0], "-o", tmp_path / "no faces", *linear).err,
        pulse("upsample", small[0], "-o", tmp_path / "quiet", *faces, "--quiet").err,
        pulse("upsample", small[0], "-o", tmp_path / "first", *faces).err,
        pulse("upsample", small[0], "-o", tmp_path / "second", *faces).err,
        pulse("sample", "-n", 1, "-o", tmp_path / "third", "--device", "cpu").err,
    ]
    assert [text.count(warning) for text in said] == [0, 0, 1, 0, 0]
