r"""BigGAN-deep, class-conditional, in the layout of Hugging Face's ``pytorch_model.bin`` and ``config.json``.

.. math:: G(z, e) = \tfrac12 + \tfrac12 \tanh(T \circ \rho \circ N \circ B_n \circ \dots \circ B_1 (A [z; e])), \qquad e = E c,

with c a one-hot class, A a dense layer to 4 x 4 pixels, T a 3 x 3 convolution to the image, :math:`\rho` the positive part, and
blocks of four convolutions, each after a batch norm that the condition [z; e] steers,

.. math:: B(x) = u(x_{\text{first}}) + C_3 \rho N_3 C_2 \rho N_2 C_1 u \rho N_1 C_0 \rho N_0(x), \qquad
          N_k(x) = (1 + S_k [z; e]) \frac{x - \mu_k}{\sqrt{\sigma_k^2 + \epsilon}} + O_k [z; e],

where u repeats pixels in blocks that double the size, and the first of the channels are kept where their number halves. Before
one block stands self-attention (Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019,
arXiv:1809.11096, appendix B).

Spectral norms are divided out, and statistics and steering joined to one factor and one offset for each channel, once at load.
The means and variances belong to a truncation t, the deviation of z, and are interpolated between the truncations that the
file has. The published PyTorch port swaps the two weights of that interpolation; here they are the right way round, and
both agree where t is one of the file's. Rows are computed one by one on a CPU: the same bits alone and in a batch.

Weights: what you bring; a file with the same names, or what ``pulse weights convert`` makes of it. Images are RGB.

Latent blocks: ``z`` (Z,), t times a normal number cut at 2, which is how the authors sample (their appendix E); slot ``class``:
``label`` (K,), one-hot, not searched, and ``class_embedding`` (E,), which a gradient reaches.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from generators._biggan_layout import Architecture, architecture_of, expected_tensors
from generators._checkpoints import read_checkpoint
from generators._stylegan_ops import Linear
from generators._tensors import check_tensors
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, OneHot, PushForward, TruncatedNormal

__all__ = ["BigGAN", "load"]

_BOUND = 2.0


class BigGAN(Generator):
    """A BigGAN-deep, frozen.

    Args:
        tensors: By the names of the ``.bin``, complete.
        architecture: Theirs.
        truncation: t, above 0 and at most 1.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape, or t is out of range.
    """

    def __init__(self, tensors: Mapping[str, Tensor], architecture: Architecture, *, truncation: float = 1.0) -> None:
        super().__init__()
        a = architecture
        if not 0 < truncation <= 1:
            raise ValueError(f"BigGAN truncation: expected a number above 0 and at most 1, got {truncation}")
        check_tensors("BigGAN", expected_tensors(a), tensors)
        tensors = {name: tensor.detach().double() for name, tensor in tensors.items()}
        self.embedding = Linear(tensors["embeddings.weight"])
        own = _within(tensors, "generator.")
        weight, bias = _normal(own, "gen_z"), own["gen_z.bias"]  # in the file by rows, columns and then channels
        self.first = Linear(*(part.unflatten(0, (16, -1)).transpose(0, 1).flatten(0, 1) for part in (weight, bias)))
        self.layers = nn.ModuleList()
        for number, (up, _, after) in enumerate(a.layers):
            if number == a.attention:
                self.layers.append(_Attention(_within(own, f"layers.{len(self.layers)}.")))
            parts = _within(own, f"layers.{len(self.layers)}.")
            self.layers.append(_Block(parts, after * a.width, truncation, a.eps, up=up))
        mean, deviation = _statistics(own, "bn", truncation, a.eps)
        gain = own["bn.weight"] / deviation
        self.register_buffer("gain", gain)
        self.register_buffer("offset", own["bn.bias"] - mean * gain)
        self.to_rgb = _Convolution(_normal(own, "conv_to_rgb")[:3], own["conv_to_rgb.bias"][:3])
        self.blocks = (
            LatentBlock("z", (a.z_dim,), TruncatedNormal(truncation, _BOUND)),
            LatentBlock("label", (a.classes,), OneHot(), "class", searchable=False),
            LatentBlock("class_embedding", (a.embed_dim,), PushForward("label"), "class"),
        )
        self.image_shape = (3, a.side, a.side)
        self.eval().requires_grad_(False)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N 3 H W"]:
        """Images of z and a class."""
        condition = torch.cat([latents["z"], self.lift(latents, "class_embedding")], 1)
        rows = condition.split(1) if condition.device.type == "cpu" else [condition]
        return torch.cat([self._images(row) for row in rows])

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """A ``label`` as ``class_embedding``."""
        if name == "class_embedding" and "label" in latents:
            embedding: Tensor = self.embedding(latents["label"])
            return embedding
        return super().lift(latents, name)

    def _images(self, condition: Tensor) -> Tensor:
        x = self.first(condition).unflatten(1, (-1, 4, 4))
        for layer in self.layers:
            x = layer(x, condition)
        gain, offset = self.get_buffer("gain"), self.get_buffer("offset")
        y: Tensor = self.to_rgb(functional.relu(x * gain[:, None, None] + offset[:, None, None]))
        return (torch.tanh(y) + 1) / 2


class _Convolution(nn.Module):
    """A convolution of odd kernel that keeps the size."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", None if bias is None else bias.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight, self.bias, padding=self.weight.shape[-1] // 2)


class _Norm(nn.Module):
    """A batch norm steered by the condition: one factor and one offset for each channel."""

    base: Tensor
    mean: Tensor

    def __init__(self, tensors: Mapping[str, Tensor], name: str, truncation: float, eps: float) -> None:
        super().__init__()
        mean, deviation = _statistics(tensors, name, truncation, eps)
        self.register_buffer("base", 1 / deviation)
        self.register_buffer("mean", mean)
        self.scale = Linear(_normal(tensors, f"{name}.scale") / deviation[:, None])
        self.shift = Linear(_normal(tensors, f"{name}.offset"))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain = self.base + self.scale(condition)
        offset = self.shift(condition) - self.mean * gain
        return x * gain[:, :, None, None] + offset[:, :, None, None]


class _Block(nn.Module):
    """Four convolutions beside a way past them."""

    def __init__(self, tensors: Mapping[str, Tensor], channels: int, truncation: float, eps: float, *, up: bool) -> None:
        super().__init__()
        self.channels, self.up = channels, up
        self.norms = nn.ModuleList(_Norm(tensors, f"bn_{k}", truncation, eps) for k in range(4))
        names = [f"conv_{k}" for k in range(4)]
        self.convolutions = nn.ModuleList(_Convolution(_normal(tensors, name), tensors[f"{name}.bias"]) for name in names)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = x
        for k, (norm, convolution) in enumerate(zip(self.norms, self.convolutions, strict=True)):
            y = functional.relu(norm(y, condition))
            y = convolution(_twice(y) if self.up and k == 1 else y)
        x = x[:, : self.channels]
        return y + (_twice(x) if self.up else x)


class _Attention(nn.Module):
    """Each pixel adds what it finds at pixels of half the size (Zhang et al., ICML 2019, arXiv:1805.08318)."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        weights = {part: _normal(tensors, f"snconv1x1_{part}") for part in ("theta", "phi", "g", "o_conv")}
        self.theta, self.phi, self.g = (_Convolution(weights[part]) for part in ("theta", "phi", "g"))
        self.back = _Convolution(weights["o_conv"] * tensors["gamma"])

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        del condition
        phi, g = (functional.max_pool2d(part(x), 2).flatten(2) for part in (self.phi, self.g))
        weights = (self.theta(x).flatten(2).mT @ phi).softmax(2)
        found: Tensor = self.back((g @ weights.mT).unflatten(2, x.shape[2:]))
        return x + found


def load(path: str | Path, *, truncation: float = 1.0) -> BigGAN:
    """Read a BigGAN-deep, on the CPU in float32; nothing in the file is run.

    Args:
        path: ``pytorch_model.bin`` with ``config.json`` beside it, the folder of both, or a converted ``.safetensors``.
        truncation: See ``BigGAN``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be read, its tensors are not those that it says, or t is out of range.
    """
    path = Path(path) / "pytorch_model.bin" if Path(path).is_dir() else Path(path)
    read = read_checkpoint(path)
    if read.family != "biggan":
        raise ValueError(
            f"{path}: expected a BigGAN-deep, got {read.family or 'other tensors'}; use the generator of that family"
        )
    try:
        return BigGAN(read.tensors, architecture_of(read.architecture), truncation=truncation).float()
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _normal(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    """A weight over its largest singular value, as the vectors in the file estimate it."""
    weight, u, v = (tensors[f"{name}.weight_{part}"] for part in ("orig", "u", "v"))
    return weight / (u @ weight.flatten(1) @ v)


def _statistics(tensors: Mapping[str, Tensor], name: str, truncation: float, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and deviation at a truncation, between those of the truncations 0, 1 / (count - 1), ..., 1."""
    means, variances = tensors[f"{name}.running_means"], tensors[f"{name}.running_vars"]
    where = truncation * (len(means) - 1)
    where = float(round(where)) if abs(where - round(where)) < 1e-6 else where
    low, high = math.floor(where), math.ceil(where)
    mean, variance = (part[low].lerp(part[high], where - low) for part in (means, variances))
    return mean, (variance + eps).sqrt()


def _twice(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="nearest")
