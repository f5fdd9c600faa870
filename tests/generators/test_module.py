"""Networks as generators: pixel ranges, channels, the part of the output that is the image, and weights from files."""

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from generators.module import ModuleGenerator, load
from pulse_framework.latents import Uniform
from pulse_framework.testing import GeneratorContract

Z = torch.tensor([[0.0, 1.0, -1.0, 0.5], [0.25, -0.5, 0.75, -0.25]])


def as_image():
    """z itself, as a grey image of 2 x 2 pixels."""
    return nn.Unflatten(1, (1, 2, 2))


class Wrapped(nn.Module):
    """Returns something that holds the image."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, z):
        return self.wrap(z.reshape(-1, 1, 2, 2))


@pytest.mark.parametrize(
    ("pixel_range", "expected"), [((-1, 1), (Z + 1) / 2), ((0.0, 1.0), Z), ((0, 255), Z / 255), ((-2.0, 0.0), Z / 2 + 1)]
)
def test_pixel_range(pixel_range, expected):
    generator = ModuleGenerator(as_image(), [4], pixel_range)
    torch.testing.assert_close(generator({"z": Z}), expected.reshape(2, 1, 2, 2))


def test_grey_is_repeated_to_rgb():
    generator = ModuleGenerator(as_image(), [4], (0, 1), channels=3)
    assert generator.image_shape == (3, 2, 2)
    x = generator({"z": Z})
    assert all(torch.equal(x[:, channel], Z.reshape(2, 2, 2)) for channel in range(3))


@pytest.mark.parametrize(
    ("wrap", "output"),
    [
        (lambda x: (0, x), 1),
        (lambda x: [x, None], 0),
        (lambda x: {"image": x, "other": -x}, "image"),
        (lambda x: SimpleNamespace(sample=x), "sample"),
    ],
)
def test_output_picks_the_image(wrap, output):
    assert torch.equal(ModuleGenerator(Wrapped(wrap), [4], (0, 1), output=output)({"z": Z}), Z.reshape(2, 1, 2, 2))


def test_block_is_as_declared():
    (block,) = ModuleGenerator(nn.Sequential(nn.Flatten(), as_image()), [2, 2], native=Uniform(0.0, 1.0)).blocks
    assert (block.name, block.shape, block.native) == ("z", (2, 2), Uniform(0.0, 1.0))


def test_network_is_frozen_and_batch_norm_uses_its_running_statistics():
    norm = nn.BatchNorm1d(4)
    norm.running_mean += 1
    generator = ModuleGenerator(nn.Sequential(norm, as_image()), [4], (0, 1))
    torch.testing.assert_close(generator({"z": Z}), ((Z - 1) / (1 + norm.eps) ** 0.5).reshape(2, 1, 2, 2))
    assert torch.equal(norm.running_mean, torch.ones(4))
    assert norm.num_batches_tracked == 0
    assert not any(parameter.requires_grad for parameter in generator.parameters())


def test_construction_draws_no_random_numbers():
    network, before = as_image(), torch.get_rng_state()
    ModuleGenerator(network, [4])
    assert torch.equal(before, torch.get_rng_state())


def test_float64_network_is_measured_in_float64():
    network = nn.Sequential(nn.Linear(4, 4).double(), as_image())
    assert ModuleGenerator(network, [4]).image_shape == (1, 2, 2)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (as_image(), {"latent_shape": [5]}, r"takes z of shape \(2, 5\) .* got RuntimeError"),
        (nn.Identity(), {}, r"images of shape \(2, C, H, W\) .* got shape \(2, 4\)"),
        (Wrapped(lambda x: x[:1]), {}, r"got shape \(1, 1, 2, 2\)"),
        (Wrapped(lambda x: (x, x)), {}, "got tuple; .*name the images with output"),
        (Wrapped(lambda x: (x, x)), {"output": 2}, "returns images as 2, got IndexError"),
        (Wrapped(lambda x: {"a": x}), {"output": "sample"}, "returns images as 'sample', got KeyError"),
        (Wrapped(lambda x: x), {"output": "sample"}, "returns images as 'sample', got AttributeError"),
        (Wrapped(lambda x: x.expand(-1, 2, -1, -1)), {"channels": 3}, "expected 3 or 1 channels, got 2"),
        (as_image(), {"pixel_range": (1, -1)}, r"black < white, got \(1, -1\)"),
    ],
)
def test_what_is_not_a_decoder_is_refused(network, options, message):
    with pytest.raises(ValueError, match=message):
        ModuleGenerator(network, **{"latent_shape": [4], **options})


def decoder(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 4), as_image())


@pytest.mark.parametrize(("name", "key"), [("w.safetensors", None), ("w.pt", None), ("w.pt", "decoder")])
def test_weights_come_from_the_file(tmp_path, name, key):
    state = decoder(1).state_dict()
    if name.endswith("safetensors"):
        save_file(state, tmp_path / name)
    else:
        torch.save({key: state, "step": 3} if key else state, tmp_path / name)
    generator = load(decoder(0), [4], tmp_path / name, key, (0, 1))
    assert torch.equal(generator({"z": Z}), decoder(1)(Z))


def test_without_a_file_the_network_keeps_its_weights():
    assert torch.equal(load(decoder(0), [4], pixel_range=(0, 1))({"z": Z}), decoder(0)(Z))


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ({"0.weight": torch.zeros(4, 4)}, None, "expected the 2 tensors of the network, got 1: missing 0.bias"),
        ({"0.weight": torch.zeros(4, 3), "0.bias": torch.zeros(4)}, None, r"'0.weight': expected shape \(4, 4\), got \(4, 3\)"),
        ({"decoder": {"0.weight": torch.zeros(4, 4)}}, None, "expected tensors alone, got other things at decoder; set `key`"),
        ({"decoder": {}}, "encoder", "expected the entry 'encoder', got decoder"),
        ({"decoder": 3}, "decoder", "entry 'decoder': expected names and tensors, got int"),
        (torch.zeros(3), None, "expected names and tensors, got Tensor"),
        (torch.zeros(3), "decoder", "expected the entry 'decoder', got Tensor"),
    ],
)
def test_weights_of_another_network_are_refused(tmp_path, content, key, message):
    torch.save(content, tmp_path / "w.pt")
    network = decoder(0)
    with pytest.raises(ValueError, match=message):
        load(network, [4], tmp_path / "w.pt", key)
    assert torch.equal(network[0].weight, decoder(0)[0].weight)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
def test_files_of_another_kind_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"not tensors, but long enough to hold a header")
    with pytest.raises(
        ValueError, match=r"w\.\w+: expected a (safetensors|torch.save) file of tensors, got one that cannot be read"
    ):
        load(decoder(0), [4], tmp_path / name)
    with pytest.raises(FileNotFoundError, match="absent"):
        load(decoder(0), [4], tmp_path / f"absent-{name}")


class TestContract(GeneratorContract):
    def make(self):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 12), nn.Tanh(), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 3, 1))
        return ModuleGenerator(network, [4])


class TestContractOfGrey(GeneratorContract):
    def make(self):
        return ModuleGenerator(as_image(), [4], (0, 1), channels=3, native=Uniform(0.0, 1.0))

    def oracle(self, latents):
        return latents["z"].reshape(-1, 1, 2, 2).expand(-1, 3, -1, -1)
