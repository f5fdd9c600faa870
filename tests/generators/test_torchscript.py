"""A scripted network is the network it was made from."""

import warnings

import pytest
import torch
from torch import nn

from generators.module import ModuleGenerator
from generators.torchscript import load
from pulse_framework.testing import GeneratorContract


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.ConvTranspose2d(4, 3, 4)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.norm(self.expand(z[:, :, None, None])))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Decoder().eval()


@pytest.fixture
def archive(network, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(network), tmp_path / "decoder.ts")
    return tmp_path / "decoder.ts"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_archive_is_the_network(network, archive, dtype):
    scripted = ModuleGenerator(load(archive), [4]).to(dtype)
    original = ModuleGenerator(network, [4]).to(dtype)
    assert scripted.image_shape == (3, 4, 4)
    assert not any(parameter.requires_grad for parameter in scripted.parameters())
    for seed in range(4):  # the executor optimises the graph after the first calls
        z = torch.randn(2, 4, dtype=dtype, generator=torch.Generator().manual_seed(seed), requires_grad=True)
        ours, theirs = scripted({"z": z}), original({"z": z})
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(
            torch.autograd.grad(ours.square().sum(), z)[0], torch.autograd.grad(theirs.square().sum(), z)[0]
        )


def test_state_dict_is_that_of_the_network(network, archive):
    assert {name: tensor.tolist() for name, tensor in load(archive).state_dict().items()} == {
        name: tensor.tolist() for name, tensor in network.state_dict().items()
    }


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.ts: expected a TorchScript archive, got no such file"):
        load(tmp_path / "absent.ts")


def test_damaged_archive_is_refused(archive):
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"decoder.ts: expected a TorchScript archive, got a file that cannot be read"):
        load(archive)


def test_file_of_tensors_is_refused(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"read files of tensors with generators\.module\.load"):
        load(tmp_path / "w.pt")


class TestContract(GeneratorContract):
    device = "cpu"  # the interpreter does not run meta tensors

    @pytest.fixture(autouse=True)
    def _archive(self, archive):
        self.path = archive

    def make(self):
        return ModuleGenerator(load(self.path), [4])
