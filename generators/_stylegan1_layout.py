"""StyleGAN1's weights under the names of PULSE's files, from the variables of NVIDIA's TensorFlow networks (version 3).

Variables are ``mapping/Dense{i}/{weight, bias}``, ``synthesis/4x4/{Const, Conv}/*``, ``synthesis/{r}x{r}/{Conv0_up, Conv1}/*``
and ``synthesis/ToRGB_lod{k}/*``, where * is ``const`` or ``weight``, ``bias``, ``Noise/weight``, ``StyleMod/{weight, bias}``.
Convolutions are HWIO and dense weights (in, out), none of them flipped or scaled. Left out, since no image of the whole generator
needs them: the stored noise maps ``synthesis/noise{k}``, the images of smaller sides (ToRGB of k > 0), and ``dlatent_avg``, the
centre of a truncation that ``StyleGAN1`` does not do, as PULSE does not.

Reference: Karras et al., A Style-Based Generator Architecture for GANs, CVPR 2019, arXiv 1812.04948.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["check_settings", "is_tensorflow", "tensorflow_to_pulse"]

_NEEDLESS = r"(.*/)?lod|dlatent_avg|synthesis/noise\d+|synthesis/ToRGB_lod[1-9]\d*/(weight|bias)"
_SETTINGS: dict[str, object] = {  # a network that was told otherwise computes something else from the same tensors
    "fused_scale": "auto",
    "blur_filter": [1, 2, 1],
    "mapping_lrmul": 0.01,
    "mapping_nonlinearity": "lrelu",
    "nonlinearity": "lrelu",
    "mapping_use_wscale": True,
    "use_wscale": True,
    "normalize_latents": True,
    "use_pixel_norm": False,
    "use_instance_norm": True,
}


def is_tensorflow(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are the variables of a TensorFlow StyleGAN1."""
    return "synthesis/4x4/Const/const" in tensors and "synthesis/4x4/Const/StyleMod/weight" in tensors


def tensorflow_to_pulse(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of ``synthesis.pt`` prefixed with ``g_synthesis.``, those of ``mapping.pt`` with ``g_mapping.``.

    Raises:
        ValueError: A variable is missing or unexpected, has another number of axes, or the network was still growing.
    """
    if growing := [name for name, tensor in tensors.items() if name.split("/")[-1] == "lod" and bool((tensor != 0).any())]:
        raise ValueError(f"expected a network grown to its full size, {growing[0]!r} to be 0, got more; use a later snapshot")
    kept = {name for name in tensors if not re.fullmatch(_NEEDLESS, name)}
    names = _names(kept)
    if kept != set(names):
        missing, extra = sorted(set(names) - kept)[:3], sorted(kept - set(names))[:3]
        raise ValueError(
            f"expected the {len(names)} variables of a StyleGAN1 without labels, got {len(kept)}: missing {missing}, unexpected"
            f" {extra}; use the weights of a whole generator"
        )
    out = {target: _in_our_order(tensors[source], source) for source, target in names.items()}
    taps = torch.tensor([1.0, 2.0, 1.0]) / 4
    ups = [name for name in out if name.endswith(".conv0_up.weight")]
    return out | {name.replace("weight", "intermediate.kernel"): torch.outer(taps, taps)[None, None].clone() for name in ups}


def check_settings(told: object) -> None:
    """Refuse a network whose arguments (``static_kwargs``) make it another one than that of the paper.

    Raises:
        ValueError: An argument differs.
    """
    for name, expected in _SETTINGS.items():
        if isinstance(told, Mapping) and name in told and told[name] != expected:
            raise ValueError(
                f"expected a StyleGAN1 made with {name}={expected!r}, got {str(told[name])[:80]}; use one of the paper's form"
            )


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
