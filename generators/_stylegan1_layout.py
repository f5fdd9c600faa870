"""StyleGAN1's weights under the names of PULSE's files: from NVIDIA's TensorFlow variables (version 3), and as one file.

TensorFlow: ``mapping/Dense{i}/{weight, bias}``, ``synthesis/4x4/{Const, Conv}/*``, ``synthesis/{r}x{r}/{Conv0_up, Conv1}/*`` and
``synthesis/ToRGB_lod{k}/*``, where * is ``const`` or ``weight``, ``bias``, ``Noise/weight``, ``StyleMod/{weight, bias}``.
Convolutions are HWIO and dense weights (in, out), none of them flipped or scaled. ``dlatent_avg``, the centre of truncation, and
the stored noise maps ``synthesis/noise{k}`` (1, 1, r, r) of layer k are taken where they are there; the images of smaller sides
(ToRGB of k > 0) are left out, since no image of the whole generator needs them.

One file: the tensors of ``synthesis.pt`` prefixed with ``g_synthesis.``, of ``mapping.pt`` with ``g_mapping.`` (lernapparat's
prefixes), of ``gaussian_fit.pt`` with ``gaussian_fit.``; besides, ``g_mapping.w_avg`` and ``g_synthesis.noise{k}``.

Reference: Karras et al., A Style-Based Generator Architecture for GANs, CVPR 2019, arXiv 1812.04948.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from generators._layouts import check_grown

__all__ = ["Parts", "is_tensorflow", "joined", "split", "tensorflow_to_pulse"]

_NEEDLESS = r"(.*/)?lod|dlatent_avg|synthesis/noise\d+|synthesis/ToRGB_lod[1-9]\d*/(weight|bias)"
_NOISE = r"synthesis/noise\d+"
_PREFIXES = {"synthesis": "g_synthesis.", "mapping": "g_mapping.", "Gaussian fit": "gaussian_fit.", "whole generator": ""}


@dataclass(frozen=True)
class Parts:
    """What one file holds.

    Attributes:
        synthesis: Tensors named as in ``synthesis.pt``.
        mapping: Those of ``mapping.pt``.
        fit: Those of ``gaussian_fit.pt``.
        w_avg: The mean w (D,).
        noise: Stored noise maps, by layer.
    """

    synthesis: dict[str, Tensor]
    mapping: dict[str, Tensor] | None
    fit: dict[str, Tensor] | None
    w_avg: Tensor | None
    noise: dict[int, Tensor]


def split(tensors: Mapping[str, Tensor]) -> Parts:
    """The parts of a file: ``synthesis.pt`` alone, one file of several parts, or TensorFlow's variables.

    Raises:
        ValueError: TensorFlow's variables are not those of a StyleGAN1.
    """
    fit = _within(tensors, "gaussian_fit.")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("gaussian_fit.")}
    tensors = tensorflow_to_pulse(tensors) if is_tensorflow(tensors) else tensors
    mapping = _within(tensors, "g_mapping.")
    if any(name.startswith("g_synthesis.") for name in tensors):
        tensors = {name.replace(".top_epi.", "."): tensor for name, tensor in _within(tensors, "g_synthesis.").items()}
    noise = {int(found[1]): tensor for name, tensor in tensors.items() if (found := re.fullmatch(r"noise(\d{1,3})", name))}
    synthesis = {name: tensor for name, tensor in tensors.items() if not re.fullmatch(r"noise\d{1,3}", name)}
    w_avg = mapping.pop("w_avg", None)
    return Parts(synthesis, mapping or None, fit or None, w_avg, noise)


def joined(files: Sequence[tuple[str, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """The tensors of several files, by the names that they have in one.

    Args:
        files: Path (for errors) and tensors of each, in any order.

    Raises:
        ValueError: One is no part of a StyleGAN1, two are the same part, there is no synthesis, or their w differ in size.
    """
    found: dict[str, str] = {}
    sizes: dict[str, int] = {}
    out: dict[str, Tensor] = {}
    for path, tensors in files:
        kind = _kind(tensors)
        if not kind:
            some = ", ".join(sorted(tensors)[:3])
            raise ValueError(
                f"{path}: expected a synthesis, a mapping or a Gaussian fit of a StyleGAN1, got {some}; leave it out"
            )
        renamed = {_PREFIXES[kind] + name: tensor for name, tensor in tensors.items()}
        if kind in found or renamed.keys() & out.keys():
            raise ValueError(
                f"{path}: expected another part than those of {', '.join(found.values())}, got a {kind}; leave one out"
            )
        found[kind], out = path, out | renamed
        sizes |= {} if (size := _size(tensors)) is None else {path: size}
    if len({"synthesis", "whole generator"} & found.keys()) != 1 or found.keys() >= {"whole generator", "mapping"}:
        raise ValueError(
            f"expected a synthesis with a mapping or a Gaussian fit, or a whole generator with a fit, got {', '.join(found)};"
            " give the files of one network"
        )
    if len(set(sizes.values())) > 1:
        raise ValueError(f"expected files of one network, the same size of w in each, got {sizes}; give those of one")
    return out


def is_tensorflow(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the variables of a TensorFlow StyleGAN1."""
    return "synthesis/4x4/Const/const" in tensors and "synthesis/4x4/Const/StyleMod/weight" in tensors


def tensorflow_to_pulse(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of ``synthesis.pt`` prefixed with ``g_synthesis.``, those of ``mapping.pt`` with ``g_mapping.``; mean w and noise.

    Raises:
        ValueError: A variable is missing or unexpected, has another number of axes, or the network was still growing.
    """
    check_grown(tensors)
    kept = {name for name in tensors if not re.fullmatch(_NEEDLESS, name)}
    names = _names(kept)
    if kept != set(names):
        missing, extra = sorted(set(names) - kept)[:3], sorted(kept - set(names))[:3]
        raise ValueError(
            f"expected the {len(names)} variables of a StyleGAN1 without labels, got {len(kept)}: missing {missing}, unexpected"
            f" {extra}; use the weights of a whole generator"
        )
    out = {target: _in_our_order(tensors[source], source) for source, target in names.items()}
    besides = {name: name.replace("synthesis/", "g_synthesis.") for name in tensors if re.fullmatch(_NOISE, name)}
    besides |= {"dlatent_avg": "g_mapping.w_avg"} if "dlatent_avg" in tensors else {}
    out |= {target: tensors[source] for source, target in besides.items()}
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    ups = [name for name in out if name.endswith(".conv0_up.weight")]
    return out | {name.replace("weight", "intermediate.kernel"): torch.outer(taps, taps)[None, None].clone() for name in ups}


def _names(kept: set[str]) -> dict[str, str]:
    """Their name to ours, of every variable of a network of this depth and size."""
    dense = sum(bool(re.fullmatch(r"mapping/Dense\d+/weight", name)) for name in kept)
    layers = {f"mapping/Dense{index}": f"g_mapping.dense{index}" for index in range(dense)}
    layers["synthesis/ToRGB_lod0"] = "g_synthesis.torgb"
    side = max([int(found[1]) for name in kept if (found := re.match(r"synthesis/(\d{1,5})x\d+/", name))], default=4)
    for log in range(2, side.bit_length()):
        source, block = f"synthesis/{1 << log}x{1 << log}", f"g_synthesis.blocks.{1 << log}x{1 << log}"
        convs = (
            {"Conv0_up": f"{block}.conv0_up", "Conv1": f"{block}.conv1"} if log > 2 else {"Const": block, "Conv": f"{block}.conv"}
        )
        for number, (conv, target) in enumerate(convs.items(), 1):
            layers[f"{source}/{conv}"] = target
            layers[f"{source}/{conv}/Noise"] = f"{block}.epi{number}.noise"
            layers[f"{source}/{conv}/StyleMod"] = f"{block}.epi{number}.style_mod.lin"
    names: dict[str, str] = {}
    for source, target in layers.items():
        parts = (
            ("const", "bias") if source.endswith("/Const") else ("weight",) if source.endswith("/Noise") else ("weight", "bias")
        )
        names |= {f"{source}/{part}": f"{target}.{part}" for part in parts}
    return names


def _in_our_order(tensor: Tensor, source: str) -> Tensor:
    """A variable in PyTorch's order of axes."""
    *_, owner, last = source.split("/")
    if last == "const":
        rank = 4
    elif last == "bias" or owner == "Noise":
        rank = 1
    else:
        rank = 2 if owner == "StyleMod" or owner.startswith("Dense") else 4
    if tensor.ndim != rank:
        raise ValueError(f"expected the variable {source!r} with {rank} axes, got {tensor.ndim}; use StyleGAN1's weights")
    if last == "const" or rank == 1:
        return tensor
    return (tensor.mT if rank == 2 else tensor.permute(3, 2, 0, 1)).contiguous()


def _kind(tensors: Mapping[str, Tensor]) -> str:
    """Which part of a StyleGAN1 a file holds; empty if none."""
    if {*tensors} == {"mean", "std"}:
        return "Gaussian fit"
    if is_tensorflow(tensors) or any(name.startswith("g_synthesis.") for name in tensors):
        return "whole generator"
    return "synthesis" if "torgb.weight" in tensors else "mapping" if "dense0.weight" in tensors else ""


def _size(tensors: Mapping[str, Tensor]) -> int | None:
    """Entries of the w of a part, as far as its shapes tell."""
    for name, tensor in tensors.items():
        if name.endswith(("4x4.epi1.style_mod.lin.weight", "4x4/Const/StyleMod/weight")) and tensor.ndim == 2:
            return tensor.shape[0 if "/" in name else 1]
        if name in ("mean", "dense0.bias"):
            return tensor.numel()
    return None


def _within(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
