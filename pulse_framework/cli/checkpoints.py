"""Commands about a checkpoint as a file: what is in it, and the same weights as one safetensors that describes itself.

The reader is whatever ``configs/checkpoint/any.yaml`` names; nothing in a file is ever run. What a file says of itself is text
of strangers: it is escaped before it is shown.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
import typer
from omegaconf import OmegaConf
from safetensors.torch import save
from torch import Tensor

from pulse_framework.cli.compose import ConfigError, build, configs_folder
from pulse_framework.cli.options import planning, say
from pulse_framework.files import write_atomic

__all__ = ["convert_checkpoint", "inspect_checkpoint"]

AVERAGES = ("w_avg", "dlatent_avg")  # the last part of the name of the mean latent
BUFFERS = (  # that of whatever else is not trained
    *AVERAGES,
    "lod",
    "noise_const",
    "resample_filter",
    "kernel",
    "magnitude_ema",
    "up_filter",
    "down_filter",
    "transform",
    "freqs",
    "phases",
)
NAMES = {"stylegan1": "as in the original file", "stylegan2": "SG2-ADA state dict", "stylegan3": "StyleGAN3 state dict"}

File = Annotated[Path, typer.Argument(help="A checkpoint of any format that the project reads.")]
Files = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="A checkpoint of any format that the project reads; or all parts of one.")
]


class Checkpoint(Protocol):
    """What the configured reader returns."""

    tensors: dict[str, Tensor]
    architecture: dict[str, Any]
    family: str
    source_format: str


def inspect_checkpoint(
    file: File, layers: Annotated[bool, typer.Option("--layers", help="Name and shape of every tensor as well.")] = False
) -> None:
    """Print what a checkpoint holds, without running anything in it."""
    with planning():
        found = _read(file)
    lines = [f"{_shown(key)}: {_shown(value)}" for key, value in _summary(found).items()]
    if layers:
        lines += ["", *(f"{_shown(name)}: {list(tensor.shape)}" for name, tensor in sorted(found.tensors.items()))]
    sys.stdout.write("\n".join(lines) + "\n")


def convert_checkpoint(
    files: Files,
    output: Annotated[Path, typer.Option("-o", "--output", help="The .safetensors file to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there.")] = False,
) -> None:
    """Write a checkpoint as one safetensors whose metadata tells the architecture, and print where it is.

    Of a checkpoint in several files, such as synthesis.pt, mapping.pt and gaussian_fit.pt of PULSE, name all.
    """
    shown = ", ".join(map(str, files))
    with planning():
        if output.suffix != ".safetensors":
            raise ConfigError(f"--output {output}: expected a name that ends in .safetensors, got another; add it")
        if not output.parent.is_dir():
            raise ConfigError(f"--output {output}: expected its folder to be there, got none; make {output.parent} first")
        if output.is_dir() or (output.exists() and not overwrite):
            cure = "name a file in it" if output.is_dir() else "give --overwrite or another name"
            raise ConfigError(f"--output {output}: expected a new file, got one that is there; {cure}")
        found = _read(*files)
        if not found.family:
            raise ConfigError(f"{shown}: expected a generator of a known family, got other tensors; inspect it with --layers")
        _write(output, shown, found)
    sys.stdout.write(f"{output}\n")
    if found.architecture.get("licence") is None:
        say(f"pulse: the licence of {shown} is not in the file; the terms of those who published it still hold")


def _read(path: Path, *more: Path) -> Checkpoint:
    """The checkpoint in a file, or in several, by the configured reader."""
    if missing := [file for file in (path, *more) if not file.is_file()]:
        raise ConfigError(f"{missing[0]}: expected a file of weights, got no file; check the path")
    settings = OmegaConf.to_container(OmegaConf.load(configs_folder() / "checkpoint" / "any.yaml"))
    assert isinstance(settings, dict)
    reader = {key: value for key, value in settings.items() if key != "path"} | {"_partial_": True}
    found: Checkpoint = build(OmegaConf.create(reader))(path=path, **({"more": more} if more else {}))
    return found


def _summary(found: Checkpoint) -> dict[str, Any]:
    """Every line that is printed, in order; the architecture by name, since metadata has no order."""
    told, tensors = found.architecture, found.tensors
    head = {
        "family": found.family or "unknown",
        "source_format": found.source_format,
        "resolution": told.get("img_resolution", "unknown"),
        "licence": told.get("licence") or "unknown",
    }
    own = {str(key): value for key, value in sorted(told.items())}
    counts = {
        "parameters": sum(tensor.numel() for name, tensor in tensors.items() if not _is_buffer(name)),
        "tensors": len(tensors),
    }
    return (
        head | {key: value for key, value in own.items() if key not in head and key not in counts} | counts | _statistics(tensors)
    )


def _statistics(tensors: dict[str, Tensor]) -> dict[str, str]:
    """Length of the mean latent, and the range of the factors of noise; only what is there."""
    averages = [tensor for name, tensor in tensors.items() if _last(name) in AVERAGES]
    strengths = [
        tensor.flatten()
        for name, tensor in tensors.items()
        if _last(name) == "noise_strength" or name.endswith((".noise.weight", "/Noise/weight"))
    ]
    out = {"w_avg_norm": f"{float(averages[0].double().norm()):.6g}"} if averages else {}
    if strengths:
        least, most = torch.cat(strengths).aminmax()
        out["noise_strengths"] = f"{float(least):.6g} to {float(most):.6g}"
    return out


def _write(path: Path, source: str, found: Checkpoint) -> None:
    """Write a checkpoint, whole or not at all, once the reader has found the same in it.

    Raises:
        ValueError: What is read back is not what was written.
    """
    content = save({name: tensor.contiguous() for name, tensor in found.tensors.items()}, _metadata(found))

    def check(written: Path) -> None:
        if other := _difference(found, _read(written)):
            raise ConfigError(f"{source}: expected to read back what was written, got another {other}; report this file")

    write_atomic(path, content, check)


def _metadata(found: Checkpoint) -> dict[str, str]:
    """The architecture, and what the tensors are, as text; numbers and lists as in JSON, and the word none."""
    about: dict[str, object] = {
        "family": found.family,
        "names": NAMES.get(found.family, "as in the original file"),
        "pixel_range": [-1, 1],
    }
    about |= dict([("w_avg", name) for name in found.tensors if _last(name) in AVERAGES][:1])
    kept = {key: value for key, value in found.architecture.items() if not _is_table(value)}
    return {str(key): _coded(value) for key, value in {**about, **kept}.items()}


def _coded(value: object) -> str:
    """Text that the reader turns into the same value again."""
    if value is None:
        return "none"
    if isinstance(value, str) and value.lower() != "none":
        try:
            json.loads(value)
        except (ValueError, RecursionError):
            return value
    return json.dumps(value, separators=(",", ":"))


def _difference(one: Checkpoint, other: Checkpoint) -> str:
    """The first thing in which the second differs from the first; empty if there is none."""
    if one.family != other.family:
        return "family"
    if one.tensors.keys() != other.tensors.keys():
        return "set of tensors"
    for name, tensor in one.tensors.items():
        if tensor.dtype != other.tensors[name].dtype or tensor.shape != other.tensors[name].shape:
            return f"kind of tensor {_shown(name)}"
        if not torch.equal(_bytes(tensor), _bytes(other.tensors[name])):
            return f"tensor {_shown(name)}"
    changed = (
        key for key, value in one.architecture.items() if key not in other.architecture or other.architecture[key] != value
    )
    return next((_shown(key) for key in changed), "")


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def _is_table(value: object) -> bool:
    """Whether a value is one by side, such as ``channels``, which JSON has not and the shapes tell again."""
    return isinstance(value, dict) and not all(isinstance(key, str) for key in value)


def _is_buffer(name: str) -> bool:
    last = _last(name)
    return last in BUFFERS or (last.startswith("noise") and last.removeprefix("noise").isdecimal())


def _last(name: str) -> str:
    return name.replace("/", ".").rsplit(".", 1)[-1]


def _shown(value: object) -> str:
    """One line of what a file says, no control characters in it."""
    if isinstance(value, str):
        return value if value.isprintable() else json.dumps(value)
    return "none" if value is None else json.dumps(value, default=str)
