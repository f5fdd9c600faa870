"""BigGAN-deep's tensors, by the names in Hugging Face's ``pytorch_model.bin``, and the numbers in its ``config.json``."""

import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["BIGGAN", "Architecture", "architecture_of", "biggan_shapes", "expected_tensors", "read_config"]

BIGGAN = "generator.gen_z.weight_orig"
"""A name that tells the family."""

_CONFIG_BYTES = 1 << 16
_ATTENTION = {"theta": (8, 1), "phi": (8, 1), "g": (2, 1), "o_conv": (1, 2)}  # outputs and inputs, as parts of the channels


@dataclass(frozen=True)
class Architecture:
    """The numbers that make a BigGAN-deep.

    Attributes:
        layers: For each block whether it doubles the size, its input and its output channels in units of ``width``.
        attention: The block before which attention stands.
        z_dim: Entries of z.
        embed_dim: Entries of a class embedding.
        classes: How many there are.
        width: Channels before the last convolution.
        statistics: How many truncations from 0 to 1 the batch norms have means and variances of.
        eps: Added to the variances.
    """

    layers: tuple[tuple[bool, int, int], ...]
    attention: int
    z_dim: int
    embed_dim: int
    classes: int
    width: int
    statistics: int
    eps: float

    @property
    def side(self) -> int:
        """Pixels a side of the image."""
        return 4 << sum(up for up, _, _ in self.layers)


def read_config(path: Path) -> dict[str, Any]:
    """The numbers in the ``config.json`` beside a file; empty if there is none.

    Raises:
        ValueError: It is no JSON of names and values.
    """
    config = path.with_name("config.json")
    if not config.is_file():
        return {}
    try:
        content = json.loads(config.read_bytes()[:_CONFIG_BYTES])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{config}: expected JSON, got what cannot be read ({error}); fetch it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{config}: expected names and values, got {type(content).__name__}; fetch it again")
    return {str(name): value for name, value in content.items()} | {"img_resolution": content.get("output_dim")}


def biggan_shapes(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell of the architecture; which blocks double the size they do not."""
    try:
        embed_dim, classes = tensors["embeddings.weight"].shape
        rows, inputs = tensors[BIGGAN].shape
        statistics, width = tensors["generator.bn.running_means"].shape
    except (KeyError, ValueError) as error:
        raise ValueError(f"BigGAN: expected embeddings, gen_z and bn of a BigGAN-deep, got other tensors ({error})") from error
    attention = next((name.split(".")[2] for name in tensors if name.endswith(".snconv1x1_theta.weight_orig")), "-1")
    del rows
    return {
        "z_dim": inputs - embed_dim,
        "class_embed_dim": embed_dim,
        "num_classes": classes,
        "channel_width": width,
        "n_stats": statistics,
        "attention_layer_position": int(attention) if attention.isdecimal() else -1,
    }


def architecture_of(told: Mapping[str, Any]) -> Architecture:
    """The architecture from plain values, under the names of ``config.json``.

    Raises:
        ValueError: A value is missing or is not one of a network that is built here.
    """
    names = ("attention_layer_position", "z_dim", "class_embed_dim", "num_classes", "channel_width", "n_stats")
    numbers = [told.get(name) for name in names]
    whole = [value for value in numbers if isinstance(value, int) and not isinstance(value, bool)]
    layers, eps = told.get("layers"), told.get("eps", 1e-4)
    if not isinstance(layers, list | tuple) or not layers:
        raise ValueError(
            f"BigGAN: expected the list `layers` of its config.json, got {layers!r}; put config.json beside the weights, or use"
            " what `pulse weights convert` made of both"
        )
    if len(whole) < len(names) or not isinstance(eps, float) or not all(_is_layer(layer) for layer in layers):
        raise ValueError(f"BigGAN: expected the numbers of a BigGAN-deep, got {dict(told)}; use its own config.json")
    blocks = tuple((bool(up), int(before), int(after)) for up, before, after in layers)
    attention, z_dim, embed_dim, classes, width, statistics = whole
    architecture = Architecture(blocks, attention, z_dim, embed_dim, classes, width, statistics, eps)
    if blocks[0][1] != 16 or blocks[-1][2] != 1 or any(a[2] != b[1] for a, b in itertools.pairwise(blocks)):
        raise ValueError(f"BigGAN layers: expected blocks from 16 widths to 1, each taking what the last one gives, got {blocks}")
    if told.get("img_resolution") not in (None, architecture.side):
        raise ValueError(f"BigGAN: expected images of {architecture.side}, as its layers make them, got {told['img_resolution']}")
    return architecture


def expected_tensors(a: Architecture) -> dict[str, Tensor]:
    """Every tensor of the state dict, by name, without memory (on the meta device)."""
    shapes: dict[str, tuple[int, ...]] = {"embeddings.weight": (a.embed_dim, a.classes)}
    condition = a.z_dim + a.embed_dim

    def normal(name: str, *shape: int, bias: bool = False) -> None:
        shapes[f"{name}.weight_orig"], shapes[f"{name}.weight_u"] = shape, shape[:1]
        shapes[f"{name}.weight_v"] = (torch.Size(shape[1:]).numel(),)
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.running_means"] = shapes[f"{name}.running_vars"] = (a.statistics, size)

    normal("generator.gen_z", 256 * a.width, condition, bias=True)
    index = 0
    for number, (_, before, after) in enumerate(a.layers):
        before, after, name = before * a.width, after * a.width, f"generator.layers.{index}"
        if number == a.attention:
            for part, (outputs, inputs) in _ATTENTION.items():
                normal(f"{name}.snconv1x1_{part}", before // outputs, before // inputs, 1, 1)
            shapes[f"{name}.gamma"] = (1,)
            index, name = index + 1, f"generator.layers.{index + 1}"
        middle = before // 4
        kernels = ((middle, before, 1), (middle, middle, 3), (middle, middle, 3), (after, middle, 1))
        for k, (outputs, inputs, size) in enumerate(kernels):
            norm(f"{name}.bn_{k}", inputs)
            normal(f"{name}.bn_{k}.scale", inputs, condition)
            normal(f"{name}.bn_{k}.offset", inputs, condition)
            normal(f"{name}.conv_{k}", outputs, inputs, size, size, bias=True)
        index += 1
    norm("generator.bn", a.width)
    shapes["generator.bn.weight"] = shapes["generator.bn.bias"] = (a.width,)
    normal("generator.conv_to_rgb", a.width, a.width, 3, 3, bias=True)
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _is_layer(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 3:
        return False
    return all(isinstance(part, int) for part in value) and min(value[1:]) > 0
