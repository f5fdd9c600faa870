"""StyleGAN2's weights under the names of SG2-ADA, from the names that others give them; and the architecture that shapes tell.

SG2-ADA (the state dict of NVIDIA's PyTorch networks, both codebases): ``mapping.{w_avg, embed.*, fc{i}.*}`` and
``synthesis.b{r}.{const, resample_filter, conv0.*, conv1.*, torgb.*, skip.*}`` for r = 4, 8, ..., the side of the image.

rosinality: block r is ``convs.{i}`` and ``convs.{i+1}`` with i = 2 log2(r) - 6, ``to_rgbs.{log2(r) - 3}`` and noise maps i + 1,
i + 2; block 4 is ``input``, ``conv1``, ``to_rgb1`` and noise map 0. Convolution weights have a leading axis of 1, and both store
the weights of an up-convolution the same way round.

TensorFlow: convolutions are HWIO, those that upsample flipped in space; dense weights are (in, out); ``mod_bias`` lacks the 1
that it starts from; noise map k belongs to b4.conv1 (k = 0), b{r}.conv0 (2 log2(r) - 5) or b{r}.conv1 (2 log2(r) - 4).

Reference: Karras et al., Analyzing and Improving the Image Quality of StyleGAN, CVPR 2020, arXiv 1912.04958.
"""

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = [
    "PROGAN",
    "STYLEGAN1",
    "check_grown",
    "check_settings",
    "progan_shapes",
    "rosinality_to_ada",
    "stylegan1_shapes",
    "stylegan2_shapes",
    "stylegan3_shapes",
    "tensorflow_to_ada",
]

BLOCKS = 12
KERNEL = (1.0, 3.0, 3.0, 1.0)
Shapes = dict[str, object]
STYLEGAN1: Shapes = {  # TensorFlow's arguments: a network that was told otherwise computes something else from the same tensors
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
PROGAN: Shapes = {
    "c_dim": 0,
    "normalize_latents": True,
    "use_wscale": True,
    "use_pixelnorm": True,
    "pixelnorm_epsilon": 1e-8,
    "use_leakyrelu": True,
}


def rosinality_to_ada(tensors: Mapping[str, Tensor], latent_avg: Tensor | None = None) -> dict[str, Tensor]:
    """SG2-ADA's names for rosinality's ``g_ema``. Noise maps and the mean latent are there if the file has them."""
    count = sum(name.startswith("to_rgbs.") and name.endswith(".conv.weight") for name in tensors)
    if count > BLOCKS:
        raise ValueError(f"expected at most {BLOCKS} blocks, got {count}; use the weights of a StyleGAN2")
    names = {"input.input": "synthesis.b4.const"}
    for index in range(1, 1 + sum(bool(re.fullmatch(r"style\.\d+\.weight", name)) for name in tensors)):
        names |= {f"style.{index}.{part}": f"mapping.fc{index - 1}.{part}" for part in ("weight", "bias")}
    layers = {"conv1": "synthesis.b4.conv1", "to_rgb1": "synthesis.b4.torgb"}
    for index in range(count):
        block = f"synthesis.b{8 << index}"
        layers |= {f"convs.{2 * index}": f"{block}.conv0", f"convs.{2 * index + 1}": f"{block}.conv1"}
        layers[f"to_rgbs.{index}"] = f"{block}.torgb"
    for source, target in layers.items():
        names[f"{source}.conv.weight"] = f"{target}.weight"
        names |= {f"{source}.conv.modulation.{part}": f"{target}.affine.{part}" for part in ("weight", "bias")}
        if target.endswith("torgb"):
            names[f"{source}.bias"] = f"{target}.bias"
        else:
            names |= {f"{source}.activate.bias": f"{target}.bias", f"{source}.noise.weight": f"{target}.noise_strength"}
    for index in range(2 * count + 1):
        if f"noises.noise_{index}" in tensors:
            names[f"noises.noise_{index}"] = f"synthesis.b{4 << (index + 1) // 2}.conv{index % 2 ^ 1}.noise_const"
    kernels = [tensor for name, tensor in tensors.items() if name.endswith((".blur.kernel", ".upsample.kernel"))]
    taps = kernels[0] / 4 if kernels else _taps(KERNEL)
    if any(kernel.shape != taps.shape or not torch.equal(kernel / 4, taps) for kernel in kernels):
        raise ValueError("expected one upsampling filter throughout, got several: not a StyleGAN2; use a generator's weights")
    _check_names({name for name in tensors if not name.endswith(".kernel")}, set(names))
    out = {target: _without_ones(tensors[source], target) for source, target in names.items()}
    return _with_filters(out | ({} if latent_avg is None else {"mapping.w_avg": latent_avg}), taps)


def tensorflow_to_ada(tensors: Mapping[str, Tensor], kernel: Sequence[float] = KERNEL) -> dict[str, Tensor]:
    """SG2-ADA's names for the variables of NVIDIA's TensorFlow StyleGAN2 or StyleGAN2-ADA (network version 4)."""
    side = max([int(found[1]) for name in tensors if (found := re.match(r"synthesis/(\d{1,5})x\d+/", name))], default=4)
    last = f"synthesis/{side}x{side}/ToRGB/"  # the 'orig' architecture has an image at each side, of which the last is used
    tensors = {
        name.replace("synthesis/ToRGB_lod0/", last): tensor for name, tensor in tensors.items() if name.split("/")[-1] != "lod"
    }
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("synthesis/ToRGB_lod")}
    names = {"dlatent_avg": "mapping.w_avg", "synthesis/4x4/Const/const": "synthesis.b4.const"}
    dense = sum(bool(re.fullmatch(r"mapping/Dense\d+/weight", name)) for name in tensors)
    layers = {f"mapping/Dense{index}": f"mapping.fc{index}" for index in range(dense)}
    layers |= {"mapping/LabelEmbed": "mapping.embed"} if "mapping/LabelEmbed/weight" in tensors else {}
    for log in range(2, side.bit_length()):
        source, block = f"synthesis/{1 << log}x{1 << log}", f"synthesis.b{1 << log}"
        convs = {f"{source}/Conv0_up": "conv0", f"{source}/Conv1": "conv1"} if log > 2 else {f"{source}/Conv": "conv1"}
        for number, (conv, name) in enumerate(convs.items(), max(2 * log - 5, 0)):
            layers[conv] = f"{block}.{name}"
            names[f"{conv}/noise_strength"] = f"{block}.{name}.noise_strength"
            names[f"synthesis/noise{number}"] = f"{block}.{name}.noise_const"
        if f"{source}/Skip/weight" in tensors:
            names[f"{source}/Skip/weight"] = f"{block}.skip.weight"
        if f"{source}/ToRGB/weight" in tensors:
            layers[f"{source}/ToRGB"] = f"{block}.torgb"
    for source, target in layers.items():
        names |= {f"{source}/{part}": f"{target}.{part}" for part in ("weight", "bias")}
        if target.startswith("synthesis"):
            names |= {f"{source}/mod_{part}": f"{target}.affine.{part}" for part in ("weight", "bias")}
    _check_names(set(tensors), set(names))
    out = {target: _from_tensorflow(tensors[source], source, target) for source, target in names.items()}
    return _with_filters(out, _taps(kernel))


def _without_ones(tensor: Tensor, target: str) -> Tensor:
    """A tensor of rosinality's without its axes of 1."""
    if target.endswith(".noise_strength"):
        shape: Sequence[int] = ()
    elif target.endswith((".noise_const", ".const")):
        shape = tensor.shape[-2:] if target.endswith(".noise_const") else tensor.shape[1:]
    elif target.endswith(".bias"):
        shape = (tensor.numel(),)
    else:
        shape = tensor.shape[-4:] if tensor.ndim == 5 else tensor.shape
    if math.prod(shape) != tensor.numel():
        raise ValueError(
            f"expected {target!r} as one of the axes {tuple(shape)}, got {tuple(tensor.shape)}; use StyleGAN2's weights"
        )
    return tensor.reshape(tuple(shape))


def _from_tensorflow(tensor: Tensor, source: str, target: str) -> Tensor:
    """A variable in PyTorch's order of axes."""
    kind = "const" if target.endswith("const") else source.rsplit("/", 1)[-1]
    rank = {"const": 4, "mod_weight": 2, "weight": 2 if target.startswith("mapping") else 4}.get(kind, tensor.ndim)
    if tensor.ndim != rank:
        raise ValueError(f"expected the variable {source!r} with {rank} axes, got {tensor.ndim}; use StyleGAN2's weights")
    if kind == "const":
        return (tensor[0, 0] if target.endswith("noise_const") else tensor[0]).contiguous()
    if kind.endswith("weight") and rank == 2:
        return tensor.mT.contiguous()
    if kind == "weight":
        return (tensor.flip(0, 1) if "/Conv0_up/" in source else tensor).permute(3, 2, 0, 1).contiguous()
    return tensor + 1 if kind == "mod_bias" else tensor


def stylegan2_shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """What the shapes of SG2-ADA's tensors tell of the architecture."""
    sides = sorted({int(found[1]) for name in tensors if (found := re.match(r"synthesis\.b(\d{1,5})\.conv1\.weight$", name))})
    if not sides or sides != [4 << index for index in range(len(sides))] or f"synthesis.b{sides[-1]}.torgb.weight" not in tensors:
        raise ValueError(
            f"expected blocks of side 4, 8, ... and an image at the last, got {sides}; use the weights of a whole network"
        )
    channels = {side: _dim(tensors, f"synthesis.b{side}.conv1.weight", 0) for side in sides}
    w_dim = _dim(tensors, "synthesis.b4.conv1.affine.weight", 1)
    rgb = sum(f"synthesis.b{side}.torgb.weight" in tensors for side in sides)
    skips = any(".skip." in name for name in tensors)
    last, most = channels[sides[-1]], max(channels.values())
    known = all(min(last * sides[-1] // side, most) == count for side, count in channels.items())
    filters = [tensor for name, tensor in tensors.items() if name.endswith("resample_filter") and tensor.ndim == 2]
    return {
        **_mapping_shapes(tensors, w_dim),
        "img_resolution": sides[-1],
        "img_channels": _dim(tensors, f"synthesis.b{sides[-1]}.torgb.weight", 0),
        "num_ws": 2 * len(sides),
        "architecture": "resnet" if skips else "skip" if rgb == len(sides) else "orig",
        "channels": channels,
        **({"channel_base": last * sides[-1], "channel_max": most} if known else {}),
        **({"resample_kernel": _kernel(filters[0])} if filters else {}),
    }


def stylegan3_shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """What the names and shapes of a StyleGAN3's tensors tell of the architecture; its filters' design they do not."""
    layers = sorted(
        (int(found[1]), int(found[2]), name)
        for name in tensors
        if (found := re.match(r"synthesis\.L(\d{1,5})_(\d{1,5})_\d+\.weight$", name))
    )
    if not layers or [index for index, _, _ in layers] != list(range(len(layers))):
        raise ValueError("expected the layers L0, L1, ... of a StyleGAN3, got others; use the weights of a whole network")
    return {
        **_mapping_shapes(tensors, _dim(tensors, "synthesis.input.affine.weight", 1)),
        "img_resolution": layers[-1][1],
        "img_channels": _dim(tensors, layers[-1][2], 0),
        "num_layers": len(layers) - 1,
        "num_ws": len(layers) + 1,
        "conv_kernel": _dim(tensors, layers[0][2], 2),
    }


def stylegan1_shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """What the shapes of a StyleGAN1's tensors tell, under PULSE's names with any prefix; only what is there."""
    out: Shapes = {}
    for name, tensor in tensors.items():
        if name.endswith("style_mod.lin.weight") and tensor.ndim == 2:
            out["w_dim"] = tensor.shape[1]
        elif name.endswith("dense0.weight") and tensor.ndim == 2:
            out["z_dim"] = tensor.shape[1]
        elif name.endswith("torgb.weight"):
            out["img_channels"] = tensor.shape[0]
    sides = [int(found[1]) for name in tensors if (found := re.search(r"blocks\.(\d{1,5})x\d+\.", name))]
    dense = sum(bool(re.search(r"dense\d+\.weight$", name)) for name in tensors)
    out |= {"img_resolution": max(sides)} if sides else {}
    return out | ({"mapping_layers": dense} if dense else {})


def progan_shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    """What the shapes of a ProGAN's variables tell; only what is there."""
    sides = [int(found[1]) for name in tensors if (found := re.match(r"(\d{1,5})x\d+/", name))]
    rgb = tensors.get("ToRGB_lod0/bias")
    out: dict[str, object] = {"img_resolution": max(sides)} if sides else {}
    return out if rgb is None else out | {"img_channels": rgb.numel()}


def check_settings(kind: str, expected: Mapping[str, object], told: Mapping[str, object]) -> None:
    """Refuse a TensorFlow network whose arguments make it another one than that of the paper.

    Raises:
        ValueError: An argument differs.
    """
    for name, value in expected.items():
        if name in told and told[name] != value:
            raise ValueError(
                f"expected a {kind} made with {name}={value!r}, got {str(told[name])[:80]}; use one of the paper's form"
            )


def check_grown(tensors: Mapping[str, Tensor]) -> None:
    """Refuse a TensorFlow network that was still growing.

    Raises:
        ValueError: The variable ``lod``, of the network or a part of it, is not 0.
    """
    if growing := [name for name, tensor in tensors.items() if name.split("/")[-1] == "lod" and bool((tensor != 0).any())]:
        raise ValueError(f"expected a network grown to its full size, {growing[0]!r} to be 0, got more; use a later snapshot")


def _mapping_shapes(tensors: Mapping[str, Tensor], w_dim: int) -> Shapes:
    embed, first = "mapping.embed.weight" in tensors, "mapping.fc0.weight" in tensors
    return {
        "z_dim": _dim(tensors, "mapping.fc0.weight", 1) - w_dim * embed if first else w_dim,
        "c_dim": _dim(tensors, "mapping.embed.weight", 1) if embed else 0,
        "w_dim": w_dim,
        "mapping_layers": sum(bool(re.match(r"mapping\.fc\d+\.weight$", name)) for name in tensors),
    }


def _kernel(taps: Tensor) -> list[float]:
    """The kernel of which a separable filter is the outer product, its smallest tap 1."""
    kernel = taps.double().sum(0)
    kernel = kernel / kernel.abs()[kernel != 0].min() if bool((kernel != 0).any()) else kernel
    return [round(tap, 4) for tap in kernel.tolist()]


def _with_filters(tensors: dict[str, Tensor], taps: Tensor) -> dict[str, Tensor]:
    """The filter's buffer in every block and convolution, as SG2-ADA's state dict has it."""
    owners = {name.rsplit(".", 1)[0] for name in tensors if re.search(r"\.(conv[01]|skip)\.weight$", name)}
    owners |= {owner.rsplit(".", 1)[0] for owner in owners}
    return tensors | {f"{owner}.resample_filter": taps.clone() for owner in sorted(owners)}


def _check_names(got: set[str], expected: set[str]) -> None:
    if got != expected:
        missing, extra = sorted(expected - got)[:3], sorted(got - expected)[:3]
        raise ValueError(
            f"expected the {len(expected)} tensors of a StyleGAN2, got {len(got)}: missing {missing}, unexpected {extra}; use the"
            " weights of a whole generator"
        )


def _taps(kernel: Sequence[float]) -> Tensor:
    """The filter in two dimensions, of sum 1."""
    taps = torch.tensor([float(tap) for tap in kernel])
    return torch.outer(taps, taps) / taps.sum() ** 2


def _dim(tensors: Mapping[str, Tensor], name: str, dim: int) -> int:
    if name not in tensors or tensors[name].ndim <= dim:
        raise ValueError(f"expected the tensor {name!r} with more than {dim} axes, got none; use the weights of a whole network")
    return tensors[name].shape[dim]
