"""DCGAN against the same arithmetic written out in float64, with toy weights and with the real ones."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from generators.dcgan import DCGAN, dcgan_network, load
from pulse_framework.testing import GeneratorContract
from pulse_framework.weights import fetch

CARD = "pkg://generators/cards/digiface-dcgan-64.yaml"


def written_out(tensors, z, features=None):
    """The network of Radford et al. layer by layer, batch norm unfolded, in float64, to [0, 1]; of z, or of given features."""
    tensors = {name: tensor.double() for name, tensor in tensors.items()}
    x, last = z.double()[:, :, None, None], max(int(name.split(".")[1]) for name in tensors)
    begin = 0 if features is None else 3 * (features.shape[-1].bit_length() - 2)
    x = x if features is None else features.double()
    for index in range(begin, last + 1, 3):
        x = F.conv_transpose2d(x, tensors[f"main.{index}.weight"], stride=2 if index else 1, padding=1 if index else 0)
        if index < last:
            mean, var, gain, bias = (tensors[f"main.{index + 1}.{n}"] for n in ("running_mean", "running_var", "weight", "bias"))
            x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * gain[:, None, None] + bias[:, None, None]
            x = x.clamp_min(0)
    return (x.tanh() + 1) / 2


def toy_tensors(z_dim=5, widths=(8, 6)):
    torch.manual_seed(0)
    network = dcgan_network(z_dim, widths)
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight, layer.bias, layer.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(layer.running_var, 0.1, 2)
    return {f"main.{name}": tensor.detach() for name, tensor in network.state_dict().items()}


@pytest.fixture
def toy(tmp_path) -> Path:
    path = tmp_path / "toy.pt"
    torch.save({"netG_state_dict": toy_tensors()}, path)
    return path


def test_folded_network_is_the_one_written_out(toy):
    generator, z = load(toy), torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    expected = written_out(toy_tensors(), z)
    assert generator.image_shape == tuple(expected.shape[1:]) == (3, 16, 16)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in generator.modules())
    torch.testing.assert_close(generator({"z": z}).double(), expected, rtol=0, atol=1e-6)


def test_gradient_is_that_of_the_one_written_out(toy):
    z = torch.randn(2, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    ours, theirs = (torch.autograd.grad(x.square().sum(), z)[0] for x in (load(toy)({"z": z}), written_out(toy_tensors(), z)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_unfolded_network_in_float64(toy):
    """The class takes any built network, batch norm and all."""
    network, tensors = dcgan_network(5, (8, 6)), toy_tensors()
    network.load_state_dict({name.removeprefix("main."): tensor for name, tensor in tensors.items()})
    z = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(DCGAN(network.double(), 5, 16)({"z": z}), written_out(tensors, z))


def test_half_precision_file_gives_a_float32_generator(tmp_path):
    tensors = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in toy_tensors().items()}
    torch.save(tensors, tmp_path / "half.pt")
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    image = load(tmp_path / "half.pt", key=None)({"z": z})
    assert image.dtype == torch.float32
    torch.testing.assert_close(image.double(), written_out(tensors, z), rtol=0, atol=1e-6)


def test_loading_draws_no_random_numbers(toy):
    before = torch.get_rng_state()
    load(toy)
    assert torch.equal(before, torch.get_rng_state())


def test_weights_are_frozen(toy):
    generator = load(toy)
    assert not generator.training
    assert [name for name, parameter in generator.named_parameters() if parameter.requires_grad] == []


def damaged(change):
    tensors = toy_tensors()
    change(tensors)
    return {"netG_state_dict": tensors}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": {}}, "expected the entry 'netG_state_dict', got other"),
        ({"netG_state_dict": {"main.0.weight": 1.0}}, "expected tensors alone, got other things at main.0.weight"),
        (
            {"netG_state_dict": {"conv.weight": torch.zeros(1)}},
            "expected main.0.weight, main.3.weight, ... of a DCGAN, got conv.weight",
        ),
        (damaged(lambda t: t.pop("main.4.bias")), "missing main.4.bias, unexpected none"),
        (damaged(lambda t: t.update(extra=torch.zeros(1))), "missing none, unexpected extra"),
        (damaged(lambda t: t.update({"main.1.bias": torch.zeros(7)})), r"'main.1.bias': expected shape \(8,\), got \(7,\)"),
        (
            damaged(lambda t: t.update({"main.3.weight": torch.zeros(8, 6, 3, 3)})),
            r"expected shape \(8, 6, 4, 4\), got \(8, 6, 3, 3\)",
        ),
        (
            damaged(lambda t: t.update({"main.6.weight": torch.zeros(6, 1, 4, 4)})),
            r"expected shape \(6, 3, 4, 4\), got \(6, 1, 4, 4\)",
        ),
    ],
)
def test_other_contents_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path / "bad.pt")
    assert str(tmp_path / "bad.pt") in str(error.value)


@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_damaged_files_are_refused(toy, keep):
    toy.write_bytes(toy.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"expected a torch\.save file of tensors, got one that cannot be read"):
        load(toy)


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        load(tmp_path / "absent.pt")


class Trap:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(tmp_path):
    torch.save({"netG_state_dict": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        load(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "trap.pt", weights_only=False)  # the trap does work on the careless
    assert (tmp_path / "sprung").exists()


@pytest.mark.weights
def test_real_weights_are_the_network_written_out():
    path = fetch(CARD)
    tensors = torch.load(path, weights_only=True, map_location="cpu")["netG_state_dict"]
    generator, z = load(path), torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    assert generator.image_shape == (3, 64, 64)
    torch.testing.assert_close(generator({"z": z}).double(), written_out(tensors, z), rtol=0, atol=1e-5)


@pytest.mark.weights
def test_real_weights_give_the_same_bits_alone_and_in_a_batch():
    generator, z = load(fetch(CARD)), torch.randn(8, 100, generator=torch.Generator().manual_seed(0))
    batch = generator({"z": z})
    assert all(torch.equal(generator({"z": row[None]})[0], image) for row, image in zip(z, batch, strict=True))


class TestContract(GeneratorContract):
    def make(self):
        tensors = toy_tensors()
        network = dcgan_network(5, (8, 6))
        network.load_state_dict({name.removeprefix("main."): tensor for name, tensor in tensors.items()})
        return DCGAN(network, 5, 16)

    def oracle(self, latents):
        features = next((value for name, value in latents.items() if name.startswith("features_")), None)
        return written_out(toy_tensors(), latents["z"], features)
