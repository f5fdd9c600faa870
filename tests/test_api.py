"""The search in one call."""

import numpy as np
import pytest
import torch
from PIL import Image

import pulse_framework
from degradations.downscale import Downscale
from generators.linear import LinearGenerator
from pulse_framework import Status, upsample, upsample_all
from pulse_framework.cli.compose import ConfigError, build, load
from pulse_framework.interfaces import LinearDegradation

SHORT = {"overrides": ["search.steps=5", "search.start.draws=2"], "device": "cpu"}


@pytest.fixture(scope="module")
def generator():
    rng = torch.Generator().manual_seed(0)
    return LinearGenerator(0.1 * torch.randn(3, 16, 16, 5, generator=rng), torch.full((3, 16, 16), 0.5))


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(60, 200, (4, 4, 3), np.uint8)


@pytest.mark.weights
def test_the_one_line_of_the_readme():
    done = pulse_framework.upsample(np.full((8, 8, 3), 120, np.uint8), generator="digiface-dcgan-64", factor=8, steps=3)
    assert done.images.shape == (1, 3, 64, 64)
    assert done.latents["z"].shape == (1, 100)
    assert done.statuses in ([Status.BEST_EFFORT], [Status.CONVERGED])
    assert len(done.psnr_db) == len(done.results) == 1


def test_every_kind_of_image_gives_the_same_answer(generator, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "y.png")
    given = [
        tmp_path / "y.png",
        str(tmp_path / "y.png"),
        Image.fromarray(pixels),
        pixels,
        pixels.astype(np.float32) / 255,
        torch.from_numpy(pixels).movedim(-1, 0),
        torch.from_numpy(pixels).movedim(-1, 0).float() / 255,
    ]
    answers = upsample_all(given, generator=generator, keys=["y"] * len(given), **SHORT)
    for answer in answers[1:]:
        assert torch.equal(answer.images, answers[0].images)
    assert torch.equal(upsample(given[0], generator=generator, keys=["y"], **SHORT).images, answers[0].images)


def test_the_answer_is_what_it_says(generator, pixels):
    done = upsample(pixels, generator=generator, factor=4, samples=3, **SHORT)
    assert done.images.shape == (3, 3, 16, 16)
    assert torch.allclose(generator(done.latents), done.images, atol=1e-6)
    y = torch.from_numpy(pixels).movedim(-1, 0) / 255
    mse = (Downscale(4)(done.images) - y).square().flatten(1).mean(1)
    assert torch.allclose(-10 * mse.log10(), torch.tensor(done.psnr_db), atol=1e-3)
    assert done.psnr_db == sorted(done.psnr_db, reverse=True)


def test_mixed_sizes_keep_their_order(generator):
    sides = (4, 8, 4, 2, 8)
    images = [torch.full((3, side, side), 0.3 + 0.1 * i) for i, side in enumerate(sides)]
    together = upsample_all(images, generator=generator, **SHORT)
    for i, image in enumerate(images):
        alone = upsample(image, generator=generator, keys=[str(i)], **SHORT)
        assert torch.equal(alone.images, together[i].images)
    assert upsample_all([], generator=generator) == []


def test_seeds(generator, pixels):
    zero, unsaid, one = (upsample(pixels, generator=generator, **SHORT, **seed) for seed in ({"seed": 0}, {}, {"seed": 1}))
    assert torch.equal(zero.images, unsaid.images)
    assert not torch.equal(zero.images, one.images)


def test_objects_in_the_place_of_names(generator, pixels):
    plan = build(load(SHORT["overrides"]).search)
    by_name = upsample(pixels, generator=generator, **SHORT)
    by_object = upsample(pixels, generator=generator, degradation=Downscale(4), search=plan, device="cpu")
    assert torch.equal(by_name.images, by_object.images)


def test_grey_generators_and_grey_images():
    rng = torch.Generator().manual_seed(0)
    grey = LinearGenerator(0.1 * torch.randn(1, 8, 8, 3, generator=rng), torch.full((1, 8, 8), 0.5))
    assert upsample(np.full((4, 4, 3), 90, np.uint8), generator=grey, **SHORT).images.shape == (1, 1, 8, 8)
    colour = LinearGenerator(0.1 * torch.randn(3, 8, 8, 3, generator=rng), torch.full((3, 8, 8), 0.5))
    assert upsample(torch.full((1, 4, 4), 0.4), generator=colour, **SHORT).images.shape == (1, 3, 8, 8)


def test_double(generator):
    double = LinearGenerator(generator.matrix.double(), generator.mean.double())
    done = upsample(torch.full((3, 4, 4), 0.4, dtype=torch.float64), generator=double, **SHORT)
    assert done.images.dtype == torch.float64


def test_mistakes(generator, pixels):
    plan = build(load().search)
    cases = [
        ({"generator": "nope"}, ConfigError, "digiface-dcgan-64"),
        ({"generator": generator, "overrides": ["search.nope=1"]}, ConfigError, "search.nope"),
        ({"generator": generator, "factor": 3}, ValueError, "leave the factor out"),
        ({"generator": generator, "factor": 4, "degradation": Downscale(4)}, ValueError, "factor"),
        ({"generator": generator, "search": plan, "seed": 3}, ValueError, "inside the plan"),
        ({"generator": generator, "search": plan, "steps": 3}, ValueError, "inside the plan"),
        ({"generator": generator, "samples": 0}, ValueError, "at least 1"),
        ({"generator": generator, "device": "toaster"}, ValueError, "device"),
        ({"generator": generator, "keys": []}, ValueError, "keys"),
        ({"generator": generator, "nope": 1}, TypeError, "nope"),
    ]
    for settings, kind, text in cases:
        with pytest.raises(kind, match=text):
            upsample(pixels, **settings)
    for image, kind, text in (
        (torch.rand(3, 16, 16), ValueError, "pulse degrade"),
        (torch.rand(3, 1, 1), ValueError, "at least 2 x 2"),
        ("no/such.png", ValueError, "no such file"),
        (7, TypeError, "expected a path"),
        (torch.full((3, 4, 4), torch.nan), ValueError, "finite"),
    ):
        with pytest.raises(kind, match=text):
            upsample(image, generator=generator)


class Sums(LinearDegradation):
    """No picture: a row of sums."""

    def measurement_shape(self, image_shape):
        return (1, image_shape[2])

    def forward(self, x):
        return x.sum((1, 2))[:, None]

    def adjoint(self, y, image_shape):
        return y[:, None].expand(-1, *image_shape)


def test_measurements_that_are_no_pictures(generator):
    y = Sums()(generator({"z": torch.ones(1, 5)}))[0]
    done = upsample(y, generator=generator, degradation=Sums(), **SHORT)
    mse = (Sums()(done.images)[0] - y).square().mean()
    assert done.psnr_db[0] == pytest.approx(float(-10 * mse.log10()), abs=1e-3)
    for wrong in (y[0], y.T, y.int(), np.zeros((4, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"expected a tensor of floats of shape \(1, 16\)"):
            upsample(wrong, generator=generator, degradation=Sums(), **SHORT)
