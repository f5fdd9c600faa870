"""Decoders of diffusers: the scales of latents and pixels, files, refusals, and a search with one."""

import json
import logging
import sys

import pytest
import torch
from diffusers.models import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file, save_file
from torch import nn

from generators.diffusers_decoder import DiffusersDecoder, load
from pulse_framework import upsample
from pulse_framework.testing import GeneratorContract

GAIN = 3
WEIGHTS = "diffusion_pytorch_model.safetensors"
STATISTICS = {"latents_mean": [0.5, -0.25, 1.0], "latents_std": [2.0, 0.5, 1.5]}


def kl(seed=0, **settings):
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=3,
        **{"scaling_factor": 0.25, **settings},
    )


def tiny(seed=0, **settings):
    """Its weights are so large that images depend on latents, around grey."""
    torch.manual_seed(seed)
    network = AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4),
        decoder_block_out_channels=(4, 4, 4),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
        latent_channels=3,
        **settings,
    )
    layers = [layer for layer in network.decoder.modules() if isinstance(layer, nn.Conv2d)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(GAIN)
            if layer.bias is not None:
                layer.bias.zero_()
        layers[-1].bias.fill_(0.5)
    return network


def draw(generator, count=3):
    rng = torch.Generator().manual_seed(3)
    return torch.randn(count, *generator.blocks[0].shape, generator=rng)


@pytest.fixture(params=[kl, tiny])
def saved(request, tmp_path):
    """How to build a network, and a folder that holds it."""
    request.param().save_pretrained(tmp_path / "vae")
    return request.param, tmp_path / "vae"


@pytest.mark.parametrize(
    ("settings", "scale", "shift"),
    [
        ({}, [4.0] * 3, [0.0] * 3),
        ({"shift_factor": 0.125}, [4.0] * 3, [0.125] * 3),
        (STATISTICS, [8.0, 2.0, 6.0], [0.5, -0.25, 1.0]),
        ({**STATISTICS, "shift_factor": 7.0}, [8.0, 2.0, 6.0], [0.5, -0.25, 1.0]),
    ],
)
def test_latents_are_those_of_the_diffusion_model(settings, scale, shift):
    network = kl(**settings)
    generator = DiffusersDecoder(network, 4).double()
    latent = draw(generator).double()
    z = torch.stack([latent[:, channel] * scale[channel] + shift[channel] for channel in range(3)], 1)
    expected = network.decoder(network.post_quant_conv(z)) / 2 + 0.5
    torch.testing.assert_close(generator({"latent": latent}), expected, rtol=1e-10, atol=1e-10)


def test_tiny_images_are_those_its_layers_make():
    """Before diffusers turned them into [-1, 1]."""
    network = tiny()
    generator = DiffusersDecoder(network, 4).double()
    latent = 5 * draw(generator).double()
    expected = network.decoder.layers(3 * torch.tanh(latent / 3))
    torch.testing.assert_close(generator({"latent": latent}), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("network", "side", "expected"),
    [(kl(), 1, (3, 2, 2)), (kl(out_channels=1), 5, (1, 10, 10)), (tiny(), 3, (3, 12, 12)), (tiny(out_channels=1), 2, (1, 8, 8))],
)
def test_image_shape(network, side, expected):
    generator = DiffusersDecoder(network, side)
    assert generator.image_shape == expected
    assert generator({"latent": draw(generator)})[0].shape == expected


@pytest.mark.parametrize("make", [kl, tiny])
def test_row_has_the_same_bits_alone(make):
    generator = DiffusersDecoder(make(), 4)
    latent = draw(generator, 5)
    together = generator({"latent": latent})
    assert all(torch.equal(generator({"latent": latent[row : row + 1]})[0], together[row]) for row in range(5))


def test_tiling_is_off():
    network = kl(sample_size=4)
    network.enable_tiling()
    generator = DiffusersDecoder(network, 8)
    latent = draw(generator)
    assert torch.equal(generator({"latent": latent}), DiffusersDecoder(kl(), 8)({"latent": latent}))


def same(generator, network):
    """Whether two networks make the same images."""
    other = DiffusersDecoder(network, generator.blocks[0].shape[1])
    latent = draw(generator)
    return torch.equal(generator({"latent": latent}), other({"latent": latent}))


@pytest.mark.parametrize("form", ["folder", "pipeline", "file"])
def test_files_give_back_the_network(saved, form, caplog):
    make, folder = saved
    path = folder.parent if form == "pipeline" else folder
    if form == "file":
        path = (folder / WEIGHTS).rename(folder / "mine.safetensors")
    with caplog.at_level(logging.WARNING):
        generator = load(path, 4)
    assert caplog.records == []
    assert same(generator, make())
    assert not same(generator, make(seed=1))
    assert not any("encoder" in name.split(".") for name in generator.state_dict())
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_warnings_of_the_library_are_back_after_loading(saved):
    logger = logging.getLogger("diffusers.configuration_utils")
    before = list(logger.filters)
    load(saved[1], 4)
    assert logger.filters == before


def test_a_decoder_alone_is_enough(saved):
    make, folder = saved
    tensors = {name: tensor for name, tensor in load_file(folder / WEIGHTS).items() if not name.startswith(("encoder", "quant"))}
    save_file(tensors, folder / WEIGHTS)
    assert same(load(folder, 4), make())


def test_half_precision_becomes_float32(saved):
    make, folder = saved
    save_file({name: tensor.half() for name, tensor in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    generator = load(folder, 4)
    assert {tensor.dtype for tensor in generator.state_dict().values()} == {torch.float32}
    assert same(generator, make().half().float())


def test_names_of_older_files(tmp_path):
    """Stable Diffusion 1 calls the matrices of the attention by other names."""
    kl().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        tensors = {name.replace(f".{new}.", f".{old}."): tensor for name, tensor in tensors.items()}
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in tensors
    save_file(tensors, tmp_path / WEIGHTS)
    assert same(load(tmp_path, 4), kl())


def alter(folder, key, value):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: alter(f, "_class_name", "UNet2DModel"), r"AutoencoderKL or AutoencoderTiny, got 'UNet2DModel'"),
        (lambda f: (f / "config.json").write_text("[]"), "expected the _class_name .*got None"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json: expected JSON"),
        (lambda f: alter(f, "latent_channels", 5), "expected the weights of the Autoencoder.*got what cannot be read"),
        (lambda f: alter(f, "scaling_factor", [1.0, 2.0]), r"expected scaling_factor to be 1 number, got \[1\.0, 2\.0\]"),
        (lambda f: (f / WEIGHTS).write_bytes(b"not tensors, but long enough"), "got what cannot be read"),
    ],
)
def test_other_files_are_refused(saved, change, message):
    change(saved[1])
    with pytest.raises(ValueError, match=message):
        load(saved[1], 4)


@pytest.mark.parametrize(("name", "message"), [("decoder", r"1 missing \['decoder\."), ("extra", r"1 unexpected \['extra'\]")])
def test_other_tensors_are_refused(saved, name, message):
    tensors = load_file(saved[1] / WEIGHTS)
    if name == "extra":
        tensors[name] = torch.zeros(1)
    else:
        del tensors[next(key for key in sorted(tensors) if key.startswith("decoder."))]
    save_file(tensors, saved[1] / WEIGHTS)
    with pytest.raises(ValueError, match=message):
        load(saved[1], 4)


def test_other_formats_are_refused(saved):
    (saved[1] / WEIGHTS).rename(saved[1] / "weights.bin")
    with pytest.raises(ValueError, match=r"weights\.bin: expected a \.safetensors file"):
        load(saved[1] / "weights.bin", 4)
    with pytest.raises(FileNotFoundError, match=r"got no file .*diffusion_pytorch_model\.safetensors"):
        load(saved[1], 4)


def test_names_of_the_hub_are_refused():
    with pytest.raises(FileNotFoundError, match=r"names of the hub are not fetched here: .*`hf download OWNER/NAME"):
        load("owner/name", 64)


def test_other_networks_and_sides_are_refused():
    with pytest.raises(TypeError, match=r"expected AutoencoderKL or AutoencoderTiny, got Identity.*generators\.module"):
        DiffusersDecoder(nn.Identity(), 4)
    with pytest.raises(ValueError, match="expected a side of at least 1, got 0"):
        DiffusersDecoder(kl(), 0)
    with pytest.raises(ValueError, match=r"expected latents_std to be 1 or 3 numbers, got .*1\.0, 2\.0"):
        DiffusersDecoder(kl(latents_std=[1.0, 2.0]), 4)


def test_without_diffusers_the_extra_is_named(saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers.models", None)
    with pytest.raises(ImportError, match=r"expected the package diffusers, got none .*install pulse-latent\[diffusers\]"):
        load(saved[1], 4)


def test_search_reaches_what_the_decoder_drew(saved):
    make, folder = saved
    drawn = DiffusersDecoder(make(), 4)
    x = drawn({"latent": draw(drawn, 1)})[0].clamp(0, 1)
    overrides = [f"generator.path='{folder}'", "generator.side=4", "search.start.draws=8"]
    settings = {"generator": "diffusers_decoder", "degradation": "identity", "seed": 0, "device": "cpu", "overrides": overrides}
    first, last = (upsample(x, steps=steps, **settings) for steps in (1, 100))
    assert last.latents["latent"].shape == (1, 3, 4, 4)
    assert last.psnr_db[0] > first.psnr_db[0] + 6
    assert torch.equal(last.images, drawn(last.latents))


class TestContractOfKL(GeneratorContract):
    def make(self):
        return DiffusersDecoder(kl(**STATISTICS), 4)


class TestContractOfTiny(GeneratorContract):
    def make(self):
        return DiffusersDecoder(tiny(), 4)

    def oracle(self, latents):
        return tiny().double().decoder.layers(3 * torch.tanh(latents["latent"] / 3))
