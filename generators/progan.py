r"""ProGAN, the generator that was grown resolution by resolution, from NVIDIA's TensorFlow pickle.

.. math:: G(z) = (T \circ L_{n} \circ \dots \circ L_1 \circ N(z) + 1) / 2, \qquad L_k(x) = N(\rho_{0.2}(C_k(x) + b_k)), \qquad
          N(x)_{c} = x_{c} \Big/ \sqrt{\langle x_{c'}^2 \rangle_{c'} + 10^{-8}}

with :math:`\langle\cdot\rangle` the mean over the channels at a pixel (or over the entries of z), :math:`\rho_{0.2}` a leaky
ReLU, :math:`C_1` a dense layer to 4 x 4 pixels, each further :math:`C_k` a 3 x 3 convolution, every second of them after a
doubling of the size, and T a 1 x 1 convolution to the image (Karras et al., ICLR 2018, arXiv:1710.10196).

Weights are stored with unit variance and used with a gain over the root of the fan-in: :math:`\sqrt 2`, but :math:`\sqrt 2 / 4`
for :math:`C_1` and 1 for T. That is done once, here, as is the doubling, which with the convolution after it makes one transposed
convolution of stride 2 and 4 x 4 taps: ``Conv0_up``, the default, is trained as such, ``Conv0`` after repeated neighbours. Images
are those of a network grown to its full size (``lod`` 0), for which only the last ``ToRGB`` counts. A CPU does row by row: the
same bits alone and in a batch.

Weights: the (G, D, Gs) that NVIDIA published, CC BY-NC 4.0, or what ``pulse weights convert`` makes of it; sizes and widths are
read from the shapes. No such file has been at hand: the tests hold reader and network against pickles that they write and a
network written out as its variables lie. Networks with labels are refused. The network's native range is [-1, 1].

Latent blocks: ``z`` of shape (Z,), 512 in the published networks, standard normal; N makes its length all but irrelevant.
Optional: ``features_<r>`` (C, r, r), in one slot, what the last layer at r x r pixels gives, in place of which nothing before it
is computed. Normal for want of a closed form: begin from a ``lift``.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from generators._checkpoints import read_checkpoint
from generators._layouts import PROGAN, check_grown, check_settings
from generators._stylegan1_synthesis import doubling, scaled
from generators._tensors import check_tensors
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, Normal

__all__ = ["Network", "ProGAN", "load", "progan_network"]

_EPS = 1e-8
_GAIN = math.sqrt(2)
_NEEDLESS = r"lod|ToRGB_lod[1-9]\d*/(weight|bias)"


class ProGAN(Generator):
    """A ProGAN, frozen.

    Args:
        network: G. It is put in evaluation mode and frozen, in place.
    """

    def __init__(self, network: "Network") -> None:
        super().__init__()
        self.network = network
        shapes = {f"features_{side}": (channels, side, side) for side, (channels, _) in network.cuts.items()}
        features = [LatentBlock(name, shape, Normal(), "features", optional=True) for name, shape in shapes.items()]
        self.blocks = (LatentBlock("z", (network.z_dim,), Normal()), *features)
        self.image_shape = (network.image_channels, network.side, network.side)
        self.eval().requires_grad_(False)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N C H W"]:
        """Images of ``z``, or of what stands in for features."""
        x, side = self._begin(latents)
        return torch.cat([self.network(row, side) for row in _rows(x)]).contiguous()

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """``z``, or features at a smaller side, as features."""
        x, side = self._begin(latents)
        known = {f"features_{other}": other for other in self.network.cuts}
        if name in latents or name not in known or known[name] < side:
            return super().lift(latents, name)
        return torch.cat([self.network.features(row, side, known[name]) for row in _rows(x)]).contiguous()

    def _begin(self, latents: Latents) -> tuple[Tensor, int]:
        """What the network begins with, and at which side: 0 for z."""
        given = next((side for side in self.network.cuts if f"features_{side}" in latents), 0)
        return latents[f"features_{given}" if given else "z"], given


class Network(nn.Module):
    """G, its gains and its output range folded into the weights; float64 until it is cast.

    Args:
        tensors: TensorFlow's variables, complete and of matching shapes, as they are in the file.

    Attributes:
        z_dim: Entries of z.
        image_channels: Of the image.
        side: Pixels a side of the image.
        cuts: For every side but the last the channels of its features, and how many layers come before they are there.
    """

    rgb_weight: Tensor
    rgb_bias: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        tensors = {name: tensor.detach().double() for name, tensor in tensors.items()}
        names = _convolutions(tensors)
        self.z_dim, self.image_channels = len(tensors["4x4/Dense/weight"]), len(tensors["ToRGB_lod0/bias"])
        self.side = int(names[-1].split("x")[0])
        dense = tensors["4x4/Dense/weight"].unflatten(1, (-1, 4, 4)) * (_GAIN / 4 / math.sqrt(self.z_dim))
        layers = [_Layer(dense, tensors["4x4/Dense/bias"], 1)]
        layers += [_layer(tensors, name) for name in names]
        self.layers = nn.ModuleList(layers)
        sides = [4, *(int(name.split("x")[0]) for name in names)]
        self.cuts = {side: (len(layers[at].bias), at + 1) for at, side in enumerate(sides) if side < self.side}
        self.register_buffer("rgb_weight", scaled(tensors["ToRGB_lod0/weight"].permute(3, 2, 0, 1)) / 2)
        self.register_buffer("rgb_bias", (tensors["ToRGB_lod0/bias"] + 1) / 2)

    def forward(self, x: Float[Tensor, "N *event"], begin: int = 0) -> Float[Tensor, "N C H W"]:
        """Images in [0, 1], of z or of the features at a side."""
        return functional.conv2d(self.features(x, begin, self.side), self.rgb_weight, self.rgb_bias)

    def features(self, x: Float[Tensor, "N *event"], begin: int, end: int) -> Float[Tensor, "N C h w"]:
        """From z (0) or the features at a side to those at another."""
        x = x if begin else _normalised(x)[:, :, None, None]
        first = self.cuts[begin][1] if begin else 0
        last = len(self.layers) if end == self.side else self.cuts[end][1]
        for layer in list(self.layers)[first:last]:
            x = layer(x)
        return x


class _Layer(nn.Module):
    """A convolution, transposed if it has a stride, leaky ReLU and N."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, stride: int = 0) -> None:
        super().__init__()
        self.stride = stride
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias.clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.stride:
            x = functional.conv_transpose2d(x, self.weight, self.bias, stride=self.stride, padding=self.stride - 1)
        else:
            x = functional.conv2d(x, self.weight, self.bias, padding=1)
        return _normalised(functional.leaky_relu(x, 0.2))


def load(path: str | Path) -> ProGAN:
    """Read a ProGAN, its sizes from the shapes, on the CPU in float32.

    Args:
        path: NVIDIA's pickle, or a ``.safetensors`` of its variables under their own names.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or its tensors are not those of a ProGAN grown to its full size and without labels.
    """
    read = read_checkpoint(path)
    if read.family != "progan":
        raise ValueError(f"{path}: expected a ProGAN, got {read.family or 'other tensors'}; use the generator of that family")
    try:
        check_settings("ProGAN", PROGAN, read.architecture)
        check_grown(read.tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return ProGAN(progan_network(read.tensors, path).float())


def progan_network(tensors: Mapping[str, Tensor], path: str | Path) -> Network:
    """Build G, in float64, from TensorFlow's variables; ``path`` is for errors.

    Raises:
        ValueError: A variable is missing, unexpected or of another shape.
    """
    tensors = {name: tensor for name, tensor in tensors.items() if not re.fullmatch(_NEEDLESS, name)}
    some = ", ".join(sorted(tensors)[:3])
    dense, rgb = tensors.get("4x4/Dense/weight"), tensors.get("ToRGB_lod0/bias")
    if dense is None or rgb is None or dense.ndim != 2 or rgb.ndim != 1:
        raise ValueError(f"{path}: expected 4x4/Dense/weight, ToRGB_lod0/bias, ... of a ProGAN, got {some}; use another file")
    width = dense.shape[1] // 16
    shapes: dict[str, tuple[int, ...]] = {"4x4/Dense/weight": (len(dense), 16 * width), "4x4/Dense/bias": (width,)}
    for name in _convolutions(tensors):
        before, width = width, tensors[f"{name}/bias"].numel() if f"{name}/bias" in tensors else width
        shapes[f"{name}/weight"] = (3, 3, width, before) if name.endswith("_up") else (3, 3, before, width)
        shapes[f"{name}/bias"] = (width,)
    shapes |= {"ToRGB_lod0/weight": (1, 1, width, len(rgb)), "ToRGB_lod0/bias": (len(rgb),)}
    check_tensors(path, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, tensors)
    return Network(tensors)


def _convolutions(tensors: Mapping[str, Tensor]) -> list[str]:
    """The scopes of the 3 x 3 convolutions, in the order in which they are applied."""
    side = max(int(found[1]) for name in ("4x4/", *tensors) if (found := re.match(r"(\d{1,5})x\d+/", name)))
    doubled = [f"{1 << log}x{1 << log}" for log in range(3, side.bit_length())]
    up = "Conv0" if "8x8/Conv0/weight" in tensors else "Conv0_up"
    return ["4x4/Conv", *(f"{block}/{name}" for block in doubled for name in (up, "Conv1"))]


def _layer(tensors: Mapping[str, Tensor], name: str) -> _Layer:
    """A convolution, HWIO in the file, or HWOI where it is the transposed one."""
    weight = tensors[f"{name}/weight"]
    weight = weight.permute(2, 3, 0, 1) if name.endswith("_up") else weight.permute(3, 2, 0, 1)
    weight, bias = scaled(weight, _GAIN), tensors[f"{name}/bias"]
    if name.endswith("_up"):
        return _Layer(doubling(weight), bias, 2)
    return _Layer(doubling(weight.flip(2, 3)), bias, 2) if name.endswith("Conv0") else _Layer(weight, bias)


def _normalised(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + _EPS).rsqrt()


def _rows(x: Tensor) -> Sequence[Tensor]:
    """One by one where that keeps the bits."""
    return x.split(1) if x.device.type == "cpu" else [x]
