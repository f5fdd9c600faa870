r"""DCGAN: transposed convolutions from a latent vector to an image.

.. math:: G(z) = (\tanh(C_n \circ \rho B_{n-1} C_{n-1} \circ \dots \circ \rho B_1 C_1(z)) + 1) / 2

with :math:`C_i` transposed convolutions with 4 x 4 kernels (the first takes the vector to 4 x 4 pixels, each other doubles the
size), :math:`B_i` batch norm and :math:`\rho` the ReLU (Radford, Metz and Chintala, ICLR 2016, arXiv:1511.06434).

Weights: ``cards/digiface-dcgan-64.yaml`` (MIT), 64 x 64, z in R^100. The network's native range is [-1, 1].
Latent blocks: ``z`` of shape (D,), standard normal. Optional: ``features_<r>`` (C, r, r), in one slot, what the ReLU at r x r
pixels gives, in place of which nothing before it is computed. Normal for want of a closed form: begin from a ``lift``.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from generators._tensors import check_tensors, read_tensors
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, Normal

__all__ = ["DCGAN", "dcgan_network", "load"]


class DCGAN(Generator):
    """A DCGAN, frozen.

    Args:
        network: Takes (N, D, 1, 1) to RGB images (N, 3, H, W) in [-1, 1]. It is put in evaluation mode and frozen, in place.
            Where it is a sequence, such as ``dcgan_network``, what its ReLUs give are blocks.
        z_dim: D.
        image_size: H and W, in pixels.
    """

    def __init__(self, network: nn.Module, z_dim: int = 100, image_size: int = 64) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.eval()
        self._ends: dict[str, int] = {}
        features = []
        for shape, end in _cuts(network, z_dim):
            name = f"features_{shape[-1]}"
            self._ends[name] = end
            features.append(LatentBlock(name, shape, Normal(), "features", optional=True))
        self.blocks = (LatentBlock("z", (z_dim,), Normal()), *features)
        self.image_shape = (3, image_size, image_size)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N 3 H W"]:
        """Images of ``z``, or of what stands in for features."""
        name = next((name for name in self._ends if name in latents), None)
        if name is None:
            x: Tensor = self.network(latents["z"][:, :, None, None])
        else:
            assert isinstance(self.network, nn.Sequential)
            x = self.network[self._ends[name] :](latents[name])
        return (x + 1) / 2

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """``z``, or features at a smaller side, as features."""
        if name in latents or name not in self._ends:
            return super().lift(latents, name)
        given = next((other for other in self._ends if other in latents), None)
        begin = 0 if given is None else self._ends[given]
        if begin > self._ends[name]:
            return super().lift(latents, name)
        assert isinstance(self.network, nn.Sequential)
        x: Tensor = latents["z"][:, :, None, None] if given is None else latents[given]
        return self.network[begin : self._ends[name]](x).contiguous()


def _cuts(network: nn.Module, z_dim: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Shape behind every ReLU of a sequence, and how many layers that is."""
    like = next(network.parameters(), torch.empty(0))
    x = torch.zeros(1, z_dim, 1, 1, dtype=like.dtype, device=like.device)
    for end, layer in enumerate(network if isinstance(network, nn.Sequential) else (), 1):
        with torch.no_grad():
            x = layer(x)
        if isinstance(layer, nn.ReLU):
            yield tuple(x.shape[1:]), end


def dcgan_network(z_dim: int = 100, widths: Sequence[int] = (512, 256, 128, 64)) -> nn.Sequential:
    """An untrained DCGAN generator for RGB images of ``4 * 2**len(widths)`` pixels a side.

    Args:
        z_dim: Channels of the input, (N, z_dim, 1, 1).
        widths: Channels after each transposed convolution but the last.
    """
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(zip((z_dim, *widths), widths, strict=False)):
        stride, padding = (1, 0) if index == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1, bias=False), nn.Tanh())


def load(path: str | Path, key: str | None = "netG_state_dict") -> DCGAN:
    """Read a DCGAN, its widths taken from the shapes in the file, on the CPU in float32.

    Args:
        path: A file that ``torch.save`` wrote; its tensors are named ``main.0.weight`` and so on, as in PyTorch's DCGAN example.
        key: The entry of the file that holds the tensors; None when they are at the top.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or its tensors are not those of a DCGAN.
    """
    tensors = read_tensors(path, key)
    widths: list[int] = []
    while (weight := tensors.get(f"main.{3 * len(widths)}.weight")) is not None and weight.ndim == 4:
        widths.append(weight.shape[1])
    if len(widths) < 2:
        some = ", ".join(sorted(tensors)[:3])
        raise ValueError(f"{path}: expected main.0.weight, main.3.weight, ... of a DCGAN, got {some}; use another loader or file")
    z_dim = tensors["main.0.weight"].shape[0]
    with torch.device("meta"):  # neither memory nor random numbers are spent on weights that the file replaces
        network = dcgan_network(z_dim, widths[:-1])
    check_tensors(path, {f"main.{name}": tensor for name, tensor in network.state_dict().items()}, tensors)
    network.load_state_dict({name.removeprefix("main."): tensor for name, tensor in tensors.items()}, assign=True)
    return DCGAN(_folded(network.float().eval()), z_dim, 2 ** (len(widths) + 1))


def _folded(network: nn.Sequential) -> nn.Sequential:
    """The same function without batch norm, each folded into the convolution before it, laid out channels last: faster."""
    layers: list[nn.Module] = []
    for layer in network:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = layers.pop()
            assert isinstance(convolution, nn.ConvTranspose2d)
            layers.append(fuse_conv_bn_eval(convolution, layer, transpose=True))
        else:
            layers.append(layer)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
