"""BigGAN-deep against images of Hugging Face's port (pytorch-pretrained-biggan 0.1.1, run once in float64), and its files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from generators._biggan_layout import Architecture, architecture_of, expected_tensors
from generators._checkpoints import read_checkpoint
from generators.biggan import BigGAN, load
from pulse_framework.cli.app import app
from pulse_framework.latents import TruncatedNormal
from pulse_framework.testing import GeneratorContract

GOLDEN = Path(__file__).parent.parent / "golden" / "biggan_deep.npz"
LAYERS = ((True, 16, 8), (False, 8, 4), (True, 4, 2), (True, 2, 1))
TINY = Architecture(LAYERS, attention=3, z_dim=6, embed_dim=6, classes=5, width=4, statistics=5, eps=1e-4)
CONFIG = {
    "output_dim": 32,
    "z_dim": 6,
    "class_embed_dim": 6,
    "channel_width": 4,
    "num_classes": 5,
    "layers": [list(layer) for layer in LAYERS],
    "attention_layer_position": 3,
    "eps": 1e-4,
    "n_stats": 5,
}


def weights():
    """Every tensor, from one stream in the order of names; the golden images are of these."""
    rng, out = torch.Generator().manual_seed(0), {}
    for name, like in sorted(expected_tensors(TINY).items()):
        value = torch.randn(like.shape, generator=rng, dtype=torch.float64)
        if name.endswith("running_vars"):
            value = value.abs() + 0.5
        elif name in ("generator.bn.weight", "generator.bn.bias"):
            value = value / 10
        out[name] = value
    for name in [name for name in out if name.endswith("weight_u")]:  # of the largest singular value, as after a training
        u, _, v = torch.linalg.svd(out[name.replace("_u", "_orig")].flatten(1), full_matrices=False)
        out[name], out[name.replace("_u", "_v")] = u[:, 0], v[0]
    return out


class TestBigGAN(GeneratorContract):
    def make(self):
        return BigGAN(weights(), TINY).float()


class TestBigGANWithoutAttention(GeneratorContract):
    lifts = (("label", "class_embedding"),)

    def make(self):
        plain = Architecture(((True, 16, 4), (False, 4, 1)), -1, 3, 3, 2, 4, 2, 1e-4)
        rng = torch.Generator().manual_seed(0)
        tensors = {name: torch.rand(like.shape, generator=rng) + 0.1 for name, like in expected_tensors(plain).items()}
        tensors["generator.bn.weight"] /= 10
        return BigGAN(tensors, plain, truncation=0.3).float()


@pytest.mark.parametrize("truncation", [1.0, 0.5])
def test_images_are_those_of_the_published_port(truncation):
    with np.load(GOLDEN) as file:
        z, label, image = (torch.from_numpy(file[name]) for name in ("z", "label", f"image_{truncation}"))
    generator = BigGAN(weights(), TINY, truncation=truncation)
    torch.testing.assert_close(2 * generator({"z": z, "label": label}) - 1, image, rtol=0, atol=1e-9)
    single = generator.float()({"z": z.float(), "label": label.float()})
    torch.testing.assert_close(2 * single - 1, image.float(), rtol=0, atol=1e-4)


def test_statistics_between_two_truncations():
    """At t = 0.3, with statistics at 0.25 and 0.5, a fifth of the way."""
    tensors = weights()
    between = dict(tensors)
    for name in (name for name in tensors if ".running_" in name):
        between[name] = tensors[name].clone()
        between[name][1] = 0.8 * tensors[name][1] + 0.2 * tensors[name][2]
    latents = {"z": torch.randn(1, 6).double(), "label": torch.eye(5).double()[:1]}
    expected = BigGAN(between, TINY, truncation=0.25)(latents)
    torch.testing.assert_close(BigGAN(tensors, TINY, truncation=0.3)(latents), expected)


def test_a_truncation_of_the_file_is_not_missed_by_rounding():
    """0.4 of 51 statistics is number 20, though 0.4 / (1 / 50) is not 20 in floating point."""
    many = Architecture(((True, 16, 1),), -1, 3, 3, 2, 4, 51, 1e-4)
    rng = torch.Generator().manual_seed(0)
    tensors = {name: torch.rand(like.shape, generator=rng) + 0.1 for name, like in expected_tensors(many).items()}
    generator = BigGAN(tensors, many, truncation=0.4)
    deviation = (tensors["generator.bn.running_vars"][20].double() + 1e-4).sqrt()
    torch.testing.assert_close(generator.get_buffer("gain"), tensors["generator.bn.weight"].double() / deviation)


def test_truncated_normal_has_its_moments():
    """Variance of a normal cut at b: 1 - 2 b phi(b) / (2 Phi(b) - 1)."""
    sample = TruncatedNormal(0.5, 2.0).sample((40_000,), torch.Generator().manual_seed(0)) / 0.5
    phi, inside = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    assert sample.abs().max() <= 2
    assert float(sample.mean()) == pytest.approx(0, abs=0.02)
    assert float(sample.var()) == pytest.approx(1 - 4 * phi / inside, abs=0.02)
    assert BigGAN(weights(), TINY, truncation=0.5).blocks[0].native == TruncatedNormal(0.5, 2.0)


@pytest.fixture
def folder(tmp_path):
    torch.save({name: tensor.float() for name, tensor in weights().items()}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_files_of_hugging_face(folder):
    latents = {"z": torch.randn(2, 6), "label": torch.eye(5)[:2]}
    image = load(folder)(latents)
    torch.testing.assert_close(image, BigGAN(weights(), TINY).float()(latents), rtol=0, atol=1e-4)
    assert torch.equal(load(folder / "pytorch_model.bin")(latents), image)
    found = CliRunner().invoke(
        app, ["weights", "convert", str(folder / "pytorch_model.bin"), "-o", str(folder / "one.safetensors")]
    )
    assert found.exit_code == 0, found.output
    (folder / "config.json").unlink()
    assert torch.equal(load(folder / "one.safetensors")(latents), image)
    assert architecture_of(read_checkpoint(folder / "one.safetensors").architecture) == TINY


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "expected the list `layers` of its config.json, got None; put config.json beside the weights"),
        ({"z_dim": 7}, "expected z_dim to be 7, as the file says, got tensors that make it 6"),
        ({"layers": [[True, 16, 8], [False, 4, 1]]}, "each taking what the last one gives"),
        ({"layers": "all"}, "expected the list `layers`"),
        ({"layers": [[True, 16, 8], [False, 8, 4], [True, 4, 1]], "output_dim": 16}, "missing none, unexpected generator.layers"),
        ({"output_dim": 64}, "expected images of 32, as its layers make them, got 64"),
        ({"eps": "small"}, "expected the numbers of a BigGAN-deep"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(folder, change, message):
    (folder / "config.json").unlink() if change is None else (folder / "config.json").write_text(json.dumps(CONFIG | change))
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_bad_files_are_refused(folder):
    for text, message in (("{", "config.json: expected JSON"), ("[1]", "expected names and values, got list")):
        (folder / "config.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            load(folder)
    torch.save({"generator.gen_z.weight_orig": torch.zeros(2, 2)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="expected embeddings, gen_z and bn of a BigGAN-deep"):
        load(folder)
    torch.save({"linear.weight": torch.zeros(2, 2)}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="expected a BigGAN-deep, got other tensors"):
        load(folder)
    for t in (0, 1.1):
        with pytest.raises(ValueError, match="above 0 and at most 1"):
            BigGAN(weights(), TINY, truncation=t)
