r"""StyleGAN1, from the files of PULSE, of lernapparat's port and of NVIDIA.

.. math:: G(w_1, \dots, w_L, n_0, \dots, n_{L-1}), \qquad w = M(z), \quad z \sim N(0, I)
          \qquad \text{or} \qquad w_l = \rho_{0.2}(\sigma v_l + \mu), \quad v_l \sim N(0, I)

M is eight (or any number of) dense layers of leaky ReLU after z is scaled to a mean square of 1; G is the synthesis of
``_stylegan1_synthesis``; :math:`(\mu, \sigma)` is PULSE's Gaussian fit, see ``_gaussian_fit`` (Karras et al., CVPR 2019,
arXiv:1812.04948; Menon et al., CVPR 2020, arXiv:2003.03808).

Weights: ``synthesis.pt``, ``mapping.pt`` and ``gaussian_fit.pt`` of PULSE, or lernapparat's single file, which prefixes the same
tensors with ``g_synthesis.`` and ``g_mapping.``, or NVIDIA's TensorFlow pickle of (G, D, Gs), see ``_stylegan1_layout``; NVIDIA's
FFHQ weights are CC BY-NC 4.0. Resolution and widths are read from the shapes. There is no truncation and no stored noise, as in
PULSE: what a pickle has of them is left out. The network's native range is [-1, 1].

Latent blocks, of the slot ``style``: ``z`` (D,) when there is a mapping; ``w`` (D,) and ``w_plus`` (L, D); ``v`` (D,) and
``v_plus`` (L, D), standard normal, when there is a fit. One v (or w) for all layers is PULSE's tiled latent. Besides, every layer
has a noise map in a slot of its own: ``noise_<k>`` (1, r, r), standard normal, with r = 4, 4, 8, 8, ....
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from generators._checkpoints import read_checkpoint
from generators._gaussian_fit import chart, fit_gaussian
from generators._stylegan1_layout import check_settings, is_tensorflow, tensorflow_to_pulse
from generators._stylegan1_synthesis import Synthesis, layer_names, side
from generators._tensors import check_tensors, read_tensors
from pulse_framework.interfaces import Generator
from pulse_framework.latents import LatentBlock, Latents, Normal, PushForward

__all__ = ["MappingNetwork", "StyleGAN1", "load", "mapping_network", "synthesis_network"]

_RATE = 0.01  # learning-rate multiplier of the mapping network: a factor on its weights and biases


class StyleGAN1(Generator):
    """A StyleGAN1, frozen.

    Args:
        synthesis: G.
        mapping: M; without one there are no blocks ``z``.
        fit: Mean and standard deviation of each entry before M's last activation; without them there are no blocks ``v``.
        noise: ``"random"``: every noise map is a block; ``"none"``: every one is zero.
        zero_noise: Maps that are zero even so, as PULSE has the last one; a negative number counts from the end.

    Raises:
        ValueError: There is neither a mapping nor a fit, their sizes differ, or there is no such noise map.
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        synthesis: Synthesis,
        mapping: "MappingNetwork | None" = None,
        fit: tuple[Float[Tensor, " D"], Float[Tensor, " D"]] | None = None,
        *,
        noise: Literal["random", "none"] = "random",
        zero_noise: Sequence[int] = (),
    ) -> None:
        super().__init__()
        size, count = synthesis.w_dim, len(synthesis.layers)
        if mapping is None and fit is None:
            raise ValueError(
                "StyleGAN1: expected a mapping or a Gaussian fit, got neither; w alone has no distribution to draw from"
            )
        got = ([] if mapping is None else [mapping.w_dim]) + ([] if fit is None else [len(part) for part in fit])
        if set(got) != {size}:
            raise ValueError(
                f"StyleGAN1: expected a mapping and a fit for w of {size} entries, got {got}; use files of one network"
            )
        if any(not -count <= k < count for k in zero_noise):
            raise ValueError(f"StyleGAN1 zero_noise: expected maps from {-count} to {count - 1}, got {list(zero_noise)}")
        self.synthesis, self.mapping = synthesis, mapping
        mean, std = (None, None) if fit is None else (part.detach().clone() for part in fit)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        source = "v" if mapping is None else "z"
        one, each = (size,), (count, size)
        styles = [LatentBlock("w", one, PushForward(source), "style"), LatentBlock("w_plus", each, PushForward(source), "style")]
        if mapping is not None:
            styles.insert(0, LatentBlock("z", (mapping.z_dim,), Normal(), "style"))
        if fit is not None:
            drawn = [LatentBlock("v", one, Normal(), "style"), LatentBlock("v_plus", each, Normal(), "style")]
            styles = drawn + styles if mapping is None else styles + drawn
        zero = {k % count for k in zero_noise} if noise == "random" else set(range(count))
        maps = [LatentBlock(f"noise_{k}", (1, side(k), side(k)), Normal()) for k in range(count) if k not in zero]
        self.blocks = (*styles, *maps)
        self.ladder = () if fit is None else ("v", "v_plus")
        self.image_shape = (3, side(count - 1), side(count - 1))
        self.eval().requires_grad_(False)

    def synthesize(self, latents: Latents) -> Float[Tensor, "N 3 H W"]:
        """Images of a style and the noise maps."""
        noise = [latents.get(f"noise_{k}") for k in range(len(self.synthesis.layers))]
        images: Tensor = self.synthesis(self.lift(latents, "w_plus"), noise)
        return images

    def lift(self, latents: Latents, name: str) -> Float[Tensor, "N *event"]:
        """Every style as ``w_plus``; ``z`` and ``v`` as ``w``; ``v`` as ``v_plus``."""
        if name in latents:
            return latents[name]
        if name == "w":
            if "z" in latents and self.mapping is not None:
                return torch.cat([self.mapping(row) for row in latents["z"].split(1)])
            if "v" in latents:
                return self._chart(latents["v"])
        if name == "w_plus" and "v_plus" in latents:
            return self._chart(latents["v_plus"])
        if name == "w_plus" and latents.keys() & {"z", "w", "v"}:
            return self._repeated(self.lift(latents, "w"))
        if name == "v_plus" and "v" in latents:
            return self._repeated(latents["v"])
        return super().lift(latents, name)

    def _chart(self, v: Tensor) -> Tensor:
        assert self.mean is not None
        assert self.std is not None
        return chart(v, self.mean, self.std)

    def _repeated(self, style: Tensor) -> Tensor:
        return style[:, None].expand(-1, len(self.synthesis.layers), -1)


class MappingNetwork(nn.Module):
    """M: z to w.

    Args:
        weights: Of the dense layers, (out, in), with all gains.
        biases: Of the dense layers, with all gains.
    """

    def __init__(self, weights: Sequence[Tensor], biases: Sequence[Tensor]) -> None:
        super().__init__()
        self.z_dim, self.w_dim, self.depth = weights[0].shape[1], weights[-1].shape[0], len(weights)
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            self.register_buffer(f"weight{index}", weight)
            self.register_buffer(f"bias{index}", bias)

    def forward(self, z: Float[Tensor, "N Z"]) -> Float[Tensor, "N D"]:
        """The w of every z."""
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for index in range(self.depth):
            x = functional.leaky_relu(
                functional.linear(x, self.get_buffer(f"weight{index}"), self.get_buffer(f"bias{index}")), 0.2
            )
        return x


def load(
    synthesis: str | Path,
    mapping: str | Path | None = None,
    gaussian_fit: str | Path | None = None,
    *,
    noise: Literal["random", "none"] = "random",
    zero_noise: Sequence[int] = (),
    fit_samples: int = 100_000,
) -> StyleGAN1:
    """Read a StyleGAN1, on the CPU in float32.

    Args:
        synthesis: PULSE's ``synthesis.pt``; or lernapparat's single file or NVIDIA's pickle, which hold the mapping too.
        mapping: PULSE's ``mapping.pt``.
        gaussian_fit: PULSE's ``gaussian_fit.pt``: ``mean`` and ``std``.
        noise: See ``StyleGAN1``.
        zero_noise: See ``StyleGAN1``.
        fit_samples: Without a file of it, the Gaussian is fitted to so many samples of the mapping; 0 makes no fit.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file cannot be read, or its tensors are not those of a StyleGAN1.
    """
    tensors = _read(synthesis)
    dense: Mapping[str, Tensor] | None = None
    if any(name.startswith("g_synthesis.") for name in tensors):
        if mapping is not None:
            raise ValueError(f"{synthesis}: expected no other mapping, since this file holds one, got {mapping}; leave it out")
        mapping, dense = synthesis, _within(tensors, "g_mapping.")
        tensors = {name.replace(".top_epi.", "."): tensor for name, tensor in _within(tensors, "g_synthesis.").items()}
    elif mapping is not None:
        dense = _read(mapping)
    network = synthesis_network(tensors, synthesis)
    mapper = None if dense is None else mapping_network(dense, mapping or synthesis).float()
    fit = None
    if gaussian_fit is not None:
        fitted = read_tensors(gaussian_fit)
        check_tensors(gaussian_fit, {name: torch.empty(network.w_dim, device="meta") for name in ("mean", "std")}, fitted)
        fit = fitted["mean"], fitted["std"]
    elif mapper is not None and fit_samples:
        fit = fit_gaussian(mapper, mapper.z_dim, fit_samples)
    return StyleGAN1(network, mapper, fit, noise=noise, zero_noise=zero_noise).float()


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


def _read(path: str | Path) -> dict[str, Tensor]:
    """The tensors of any file, under lernapparat's names if they were TensorFlow's."""
    read = read_checkpoint(path)
    if not is_tensorflow(read.tensors):
        return read.tensors
    try:
        check_settings(read.extra.get("static_kwargs"))
        return tensorflow_to_pulse(read.tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
