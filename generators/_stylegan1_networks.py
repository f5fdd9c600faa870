r"""StyleGAN1's two networks from tensors named as in PULSE's files: the mapping M, and which tensors the synthesis G has.

.. math:: M(z) = \rho_{0.2}(A_n \cdots \rho_{0.2}(A_1 N(z) + a_1) \cdots + a_n), \qquad
          N(z) = z / \sqrt{\langle z^2 \rangle + 10^{-8}}

with as many dense layers as the file has, eight in NVIDIA's. Their weights are stored with unit variance over the learning-rate
multiplier, see ``_RATE``; the gains are put in once, when they are read (Karras et al., CVPR 2019, arXiv:1812.04948).
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from generators._stylegan1_synthesis import Synthesis, layer_names
from generators._stylegan_ops import Linear
from generators._tensors import check_tensors

__all__ = ["MappingNetwork", "mapping_network", "synthesis_network"]

_RATE = 0.01  # learning-rate multiplier of the mapping network: a factor on its weights and biases


class MappingNetwork(nn.Module):
    """M: z to w.

    Args:
        weights: Of the dense layers, (out, in), with all gains.
        biases: Of the dense layers, with all gains.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.z_dim, self.w_dim = weights[0].shape[1], weights[-1].shape[0]
        self.layers = nn.ModuleList(Linear(weight, bias) for weight, bias in zip(weights, biases, strict=True))

    def forward(self, z: Float[Tensor, "N Z"]) -> Float[Tensor, "N D"]:
        """The w of every z."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = functional.leaky_relu(layer(x), 0.2)
        return x


def synthesis_network(tensors: Mapping[str, Tensor], path: str | Path) -> Synthesis:
    """Build G, in float64, from tensors named as in ``synthesis.pt``; ``path`` is for errors.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape.
    """
    count, widths = 0, []
    while (name := layer_names(count)[1] + ".noise.weight") in tensors:
        widths.append(tensors[name].numel())
        count += 1
    style = tensors.get(layer_names(0)[1] + ".style_mod.lin.weight")
    if count < 2 or style is None or style.ndim != 2:
        some = ", ".join(sorted(tensors)[:3])
        raise ValueError(
            f"{path}: expected torgb.weight, blocks.4x4.const, ... of a StyleGAN1, got {some}; use another loader or file"
        )
    check_tensors(path, _expected(widths + widths[-1:] * (count % 2), style.shape[1]), tensors)
    return Synthesis(tensors, count)


def mapping_network(tensors: Mapping[str, Tensor], path: str | Path) -> MappingNetwork:
    """Build M, in float64, from tensors named as in ``mapping.pt``: ``dense0.weight`` and so on; ``path`` is for errors.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape.
    """
    shapes = [tensor.shape for name, tensor in tensors.items() if name.endswith(".weight") and tensor.ndim == 2]
    if "dense0.weight" not in tensors or not shapes:
        some = ", ".join(sorted(tensors)[:3])
        raise ValueError(f"{path}: expected dense0.weight, dense0.bias, ... of a mapping network, got {some}; use another file")
    expected: dict[str, Tensor] = {}
    for index in range(len(shapes)):
        out, before = shapes[0][0], tensors["dense0.weight"].shape[1] if index == 0 else shapes[0][0]
        expected[f"dense{index}.weight"] = torch.empty(out, before, device="meta")
        expected[f"dense{index}.bias"] = torch.empty(out, device="meta")
    check_tensors(path, expected, tensors)
    weights = [tensors[f"dense{index}.weight"].detach().double() for index in range(len(shapes))]
    biases = [tensors[f"dense{index}.bias"].detach().double() * _RATE for index in range(len(shapes))]
    return MappingNetwork([weight * (_RATE * math.sqrt(2 / weight.shape[1])) for weight in weights], biases)


def _expected(widths: Sequence[int], w_dim: int) -> dict[str, Tensor]:
    """Every tensor of a synthesis network with so many channels after each layer; they take no memory."""
    shapes: dict[str, tuple[int, ...]] = {"torgb.weight": (3, widths[-1], 1, 1), "torgb.bias": (3,)}
    for layer, (before, width) in enumerate(zip((0, *widths), widths, strict=False)):
        convolution, epilogue = layer_names(layer)
        shapes[f"{convolution}.bias"] = (width,)
        if layer == 0:
            shapes[f"{convolution}.const"] = (1, width, 4, 4)
        else:
            shapes[f"{convolution}.weight"] = (width, before, 3, 3)
        if layer > 0 and layer % 2 == 0:
            shapes[f"{convolution}.intermediate.kernel"] = (1, 1, 3, 3)
        shapes[f"{epilogue}.noise.weight"] = (width,)
        shapes[f"{epilogue}.style_mod.lin.weight"] = (2 * width, w_dim)
        shapes[f"{epilogue}.style_mod.lin.bias"] = (2 * width,)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
