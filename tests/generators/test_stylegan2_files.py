"""Files of StyleGAN2: what they give, how the architecture is read from them, what is refused, and our own weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from generators._gaussian_fit import fit_gaussian
from generators._stylegan2_architecture import architecture_of, expected_tensors, random_tensors
from generators.stylegan2 import StyleGAN2, load
from pulse_framework.weights import fetch
from tests.generators.small_stylegan2 import CLASSES, GOLDEN, TINY, drawn, near, random, read
from tests.generators.test_stylegan2 import tiny

CARD = "pkg://generators/cards/faces-stylegan2-64.yaml"


@pytest.mark.parametrize("name", ["stylegan2_ada_skip.pkl", "stylegan2_ada_resnet.pkl"])
def test_pickles_give_the_images_published(name):
    golden = read(Path(name).stem)[2]
    given = {key: golden[key] for key in ("w_plus", "label") if key in golden}
    near(2 * load(GOLDEN / name, noise="stored", fit_samples=0)(given) - 1, golden["image"], 1e-5)


def test_rosinality_file_gives_the_image_published(tmp_path):
    with np.load(GOLDEN / "stylegan2_rosinality.npz") as file:
        weights = {key.removeprefix("weights/"): torch.from_numpy(file[key]) for key in file if key.startswith("weights/")}
        w_plus, image = torch.from_numpy(file["w_plus"]), file["image"]
        torch.save({"g_ema": weights, "latent_avg": torch.from_numpy(file["latent_avg"])}, tmp_path / "g.pt")
    near(2 * load(tmp_path / "g.pt", noise="stored")({"w_plus": w_plus}) - 1, torch.from_numpy(image), 1e-5)


def test_fit_takes_labels_as_equally_likely(tmp_path):
    save_file(random_tensors(CLASSES), tmp_path / "g.safetensors")
    styles = load(tmp_path / "g.safetensors").styles
    w = styles.mapping(random(20_000, 5, seed=9), torch.eye(3)[torch.arange(20_000) % 3])
    inverse = F.leaky_relu(w, 5.0)
    assert ((styles.mean - inverse.mean(0)).abs() < 0.05 * inverse.std(0)).all()
    torch.testing.assert_close(styles.std, inverse.std(0), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        ({"mapping.fc1.bias": None}, {}, "missing mapping.fc1.bias"),
        ({"synthesis.b8.skip.weight": torch.zeros(5, 6, 1, 1)}, {}, "unexpected synthesis.b8.skip.weight"),
        ({"synthesis.b4.const": torch.zeros(6, 4, 5)}, {}, r"'synthesis.b4.const': expected shape \(6, 4, 4\), got \(6, 4, 5\)"),
        ({"mapping.w_avg": None}, {"psi": 0.5}, "missing mapping.w_avg"),
        ({"synthesis.b4.conv1.noise_const": None}, {"noise": "stored"}, "missing synthesis.b4.conv1.noise_const"),
        ({}, {"cutoff": 7}, "cutoff: expected 0 to 6 rows of w_plus, got 7"),
        ({}, {"zero_noise": [5]}, r"zero_noise: expected maps from -5 to 4, got \[5\]"),
        ({}, {"fit": (torch.zeros(8), torch.ones(8))}, r"expected a Gaussian fit of 7 entries, got \[\(8,\), \(8,\)\]"),
    ],
)
def test_what_does_not_fit_is_refused(change, settings, message):
    tensors = {name: value for name, value in (random_tensors(TINY) | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        StyleGAN2(tensors, TINY, **settings)


def test_what_is_not_used_may_be_missing():
    tensors = {name: value for name, value in random_tensors(TINY).items() if not name.endswith(("w_avg", "noise_const"))}
    generator = StyleGAN2(tensors, TINY)
    latents = drawn(generator, "z")
    assert torch.equal(generator(latents), tiny()(latents))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"img_resolution": 24}, "a power of two from 8 on, got 24"),
        ({"architecture": "dense"}, "skip, resnet, orig, got 'dense'"),
        ({"activation": "relu"}, "expected the activation lrelu, got 'relu'"),
        ({"z_dim": None}, "expected a number for 'z_dim', got None"),
    ],
)
def test_other_architectures_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        architecture_of({"img_resolution": 16, "z_dim": 5, "w_dim": 7, "channels": {4: 6, 8: 5, 16: 4}} | change)


def test_architecture_is_read_whether_by_formula_or_by_channels():
    values = {"img_resolution": 16, "z_dim": 5, "w_dim": 7, "mapping_layers": 2}
    assert architecture_of(values | {"channels": {"4": 6, "8": 5, "16": 4}}) == TINY
    assert architecture_of(values | {"channel_base": 64, "channel_max": 6}).channels == (6, 6, 4)
    assert expected_tensors(TINY).keys() == random_tensors(TINY).keys()


def test_a_file_says_what_it_is(tmp_path):
    save_file(random_tensors(TINY), tmp_path / "g.safetensors")
    save_file({"mean": torch.zeros(7), "std": torch.ones(7)}, tmp_path / "fit.safetensors")
    generator = load(tmp_path / "g.safetensors", tmp_path / "fit.safetensors", zero_noise=[0])
    latents = drawn(generator, "z")
    assert torch.equal(generator(latents), tiny(zero_noise=[0])(latents))
    assert torch.equal(generator.styles.std, torch.ones(7))
    assert {block.name for block in load(tmp_path / "g.safetensors", fit_samples=0).blocks}.isdisjoint({"v", "v_plus"})
    torch.testing.assert_close(
        load(tmp_path / "g.safetensors").styles.mean, fit_gaussian(generator.styles.mapping, 5, 10_000).mean
    )


def test_files_of_something_else_are_refused(tmp_path):
    save_file({"mean": torch.zeros(7), "std": torch.ones(7)}, tmp_path / "fit.safetensors")
    with pytest.raises(ValueError, match=r"fit.safetensors: expected a StyleGAN2, got gaussian-fit"):
        load(tmp_path / "fit.safetensors")
    tensors = random_tensors(TINY) | {"synthesis.b16.conv1.bias": torch.zeros(5)}
    save_file(tensors, tmp_path / "g.safetensors")
    with pytest.raises(ValueError, match=r"g.safetensors: StyleGAN2, tensor 'synthesis.b16.conv1.bias': expected shape \(4,\)"):
        load(tmp_path / "g.safetensors")
    save_file(random_tensors(TINY), tmp_path / "g.safetensors")
    save_file({"mean": torch.zeros(6), "std": torch.ones(7)}, tmp_path / "fit.safetensors")
    with pytest.raises(ValueError, match=r"'mean': expected shape \(7,\), got \(6,\)"):
        load(tmp_path / "g.safetensors", tmp_path / "fit.safetensors")


@pytest.fixture(scope="module")
def faces():
    return load(fetch(CARD), fit_samples=10_000)


@pytest.mark.weights
def test_own_weights_come_with_the_package(faces):
    names = [block.name for block in faces.blocks]
    assert faces.image_shape == (3, 64, 64)
    assert names[:5] == ["z", "w", "w_plus", "v", "v_plus"]
    assert [block.shape for block in faces.blocks[:5]] == [(128,), (128,), (10, 128), (128,), (10, 128)]
    image = faces(drawn(faces, "z", count=8))
    assert image.mean((0, 2, 3)).tolist() == pytest.approx([0.4, 0.35, 0.3], abs=0.12)
    assert 0.1 < image.std() < 0.4
    assert (image.clamp(0, 1) - image).abs().mean() < 0.02


@pytest.mark.weights
@pytest.mark.parametrize("threads", [1, 2])
def test_own_weights_give_the_same_bits_alone_and_in_a_batch(faces, threads):
    torch.set_num_threads(threads)
    try:
        latents = drawn(faces, "v_plus", count=8)
        answers = []
        for rows in (1, 2, 3, 8):
            given = {name: value[:rows].clone().requires_grad_() for name, value in latents.items()}
            image = faces(given)
            gradients = torch.autograd.grad(image.square().flatten(1).mean(1).sum(), list(given.values()))
            answers.append([value[0] for value in (image, *gradients)])
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(*pair) for answer in answers for pair in zip(answer, answers[0], strict=True))
