"""Reading the checkpoints of StyleGANs, whoever wrote them, without running anything in them.

The format is told by the content of the file, never by its name; the architecture by what the file says of itself or, where it
says nothing, by the shapes of its tensors. Tensors are float32, on the CPU, of their own memory. Discriminators and optimisers
are skipped undecoded. A StyleGAN2 gets SG2-ADA's names (`generators._layouts`) from every source; all others keep their own.

| written by | what it is | `source_format` |
| --- | --- | --- |
| NVIDIA, PyTorch (StyleGAN2-ADA, StyleGAN3) | pickle of persistent objects; ``G_ema`` is taken | nvidia-torch |
| NVIDIA, TensorFlow (ProGAN, StyleGAN, StyleGAN2, StyleGAN2-ADA) | pickle of (G, D, Gs); Gs is taken | nvidia-tensorflow |
| rosinality, converted and snapshots | ``torch.save`` of {g_ema, latent_avg?, args?, ...} | rosinality |
| pSp, e4e | ``torch.save`` of {state_dict, latent_avg, opts}; ``decoder.`` is taken | psp |
| PULSE, lernapparat, Hugging Face (BigGAN, beside its ``config.json``); any other | ``torch.save`` of names and tensors | torch |
| anyone | safetensors; metadata gives the architecture | safetensors |

``torch.save`` is read in its zip and its legacy form.
"""

import json
import mmap
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from generators._biggan_layout import BIGGAN, biggan_shapes, read_config
from generators._layouts import (
    PROGAN,
    STYLEGAN1,
    progan_shapes,
    rosinality_to_ada,
    stylegan1_shapes,
    stylegan2_shapes,
    stylegan3_shapes,
    tensorflow_to_ada,
)
from generators._nvidia import CHECKPOINTS, Module, Network, Plain, arguments, plain, static_arguments, variables, walk
from generators._pickle import load
from generators._storages import Budget, LazyTensor, Storage, decode, is_legacy, load_legacy, storage_id
from generators._stylegan1_layout import joined

__all__ = ["Checkpoint", "read_checkpoint"]


@dataclass(frozen=True)
class Checkpoint:
    """A generator's weights and what is known of them.

    Attributes:
        tensors: Name to tensor.
        architecture: Plain values, such as ``z_dim``, ``w_dim``, ``img_resolution`` and ``mapping_layers``.
        family: "stylegan1", "stylegan2", "stylegan3", "progan", "biggan", "gaussian-fit", or "" when the names tell none.
        source_format: As in the table above.
        extra: What else the file says: settings of the training, attributes of each module (``attributes``, by dotted name).
    """

    tensors: dict[str, Tensor]
    architecture: dict[str, Plain]
    family: str
    source_format: str
    extra: dict[str, Plain] = field(default_factory=dict)


def read_checkpoint(path: str | Path, more: Sequence[str | Path] = ()) -> Checkpoint:
    """The generator in a file of any format above.

    Args:
        path: The file.
        more: Further files of a StyleGAN1 that comes in parts, see ``_stylegan1_layout.joined``; what the first says holds.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file is damaged, of another kind, or holds what weights do not need; or several are not parts of one.
    """
    first, *others = [_read_file(Path(file)) for file in (path, *more)]
    if not others:
        return first
    pairs = zip((path, *more), (first, *others), strict=True)
    tensors = joined([(str(file), part.tensors) for file, part in pairs])
    told: dict[str, Plain] = {}
    for part in (*reversed(others), first):
        told |= part.architecture
    known = Checkpoint(tensors, stylegan1_shapes(tensors), "stylegan1", first.source_format)
    return _told(known, told | {"names": "of several files, a prefix for each"}, first.extra)


def _read_file(path: Path) -> Checkpoint:
    """The generator, or a part of one, in a file."""
    try:
        read = _read(path)
        beside = read_config(path) if read.family == "biggan" and read.source_format == "torch" else {}
        return _told(read, plain(beside), {}) if beside else read  # type: ignore[arg-type]
    except (RuntimeError, SafetensorError, zipfile.BadZipFile, EOFError, UnicodeError, struct.error) as error:
        why = " ".join(str(error).split())[:300]
        raise ValueError(f"{path}: expected a file of weights, got one that cannot be read ({why}); fetch it again") from error
    except ValueError as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())[:600]}") from error


def _read(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        head = file.read(16)
        if len(head) < 16:
            raise ValueError(f"expected a file of weights, got {len(head)} bytes; fetch it again")
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    budget = Budget(4 * len(content) + (1 << 16))
    if head.startswith(b"PK\x03\x04"):
        return _from_torch(_load_zip(path, content), budget)
    if is_legacy(content):
        return _from_torch(load_legacy(content, CHECKPOINTS), budget)
    if head.startswith(b"\x80"):
        return _from_pickle(load(content, CHECKPOINTS)[0], budget)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= len(content) - 8:
        return _from_safetensors(path)
    if head.lstrip().startswith(b"<"):
        raise ValueError("expected a file of weights, got a web page: the download was refused or moved; fetch it by hand")
    raise ValueError(f"expected a pickle, a torch.save file or safetensors, got a file that begins with {head!r}; fetch it again")


def _load_zip(path: Path, content: memoryview) -> object:
    """The value of a ``torch.save`` archive, its tensors lazy."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    roots = [name.removesuffix("data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1 or len(entries) != len(archive.infolist()):
        raise ValueError("expected a torch.save archive with one data.pkl, got another archive; use the weights' own file")
    if f"{roots[0]}constants.pkl" in entries:
        raise ValueError("expected weights, got a TorchScript archive, which is a program; use the weights it was made from")

    def entry(name: str) -> memoryview:
        """A view of an entry, which is stored as it is: a header of 30 bytes, the name, an extra field, the bytes."""
        info = entries.get(roots[0] + name)
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ValueError(f"expected the uncompressed entry {name[:64]!r} in the archive, got none; fetch it or save it again")
        header = content[info.header_offset : info.header_offset + 30]
        begin = info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        if header[:4] != b"PK\x03\x04" or begin + info.file_size > len(content):
            raise ValueError(
                f"expected {info.file_size} bytes in the entry {name[:64]!r}, got fewer: cut short; fetch the file again"
            )
        return content[begin : begin + info.file_size]

    def persistent(value: object) -> Storage:
        dtype, key, numel = storage_id(value)
        return Storage(dtype, numel, lambda: entry(f"data/{key}"))

    if f"{roots[0]}byteorder" in entries and entry("byteorder") != b"little":
        raise ValueError("expected a file from a little-endian machine, got another; save it again on a little-endian one")
    return load(entry("data.pkl"), CHECKPOINTS, persistent)[0]


def _from_pickle(value: object, budget: Budget) -> Checkpoint:
    match value:
        case {"G_ema": Module() as module, **rest}:
            others = {str(name): item for name, item in rest.items() if name not in ("G", "D", "augment_pipe")}
            return _from_module(module, budget, {name: plain(item) for name, item in others.items()})
        case (_, _, Network() as network):
            return _from_network(network, budget)
    raise ValueError(
        "expected NVIDIA's G_ema or (G, D, Gs) in the pickle, got neither; save the generator's state dict and use that"
    )


def _from_torch(value: object, budget: Budget) -> Checkpoint:
    match value:
        case Module() as module:
            return _from_module(module, budget, {})
        case {"G_ema": Module()}:
            return _from_pickle(value, budget)
        case {"g_ema": dict(tensors), **rest}:
            kept: dict[str, Plain] = {name: plain(rest[name]) for name in ("args", "ada_aug_p", "iter") if name in rest}
            return _from_rosinality(_decoded(tensors, budget), rest.get("latent_avg"), budget, "rosinality", kept)
        case {"state_dict": dict(tensors), **rest} if any(str(name).startswith("decoder.") for name in tensors):
            tensors = {str(name): item for name, item in tensors.items() if str(name).startswith("decoder.")}
            decoder = {name.removeprefix("decoder."): item for name, item in _decoded(tensors, budget).items()}
            kept = {"opts": plain(rest["opts"])} if "opts" in rest else {}
            return _from_rosinality(decoder, rest.get("latent_avg"), budget, "psp", kept)
        case dict(tensors) if tensors and all(isinstance(item, LazyTensor) for item in tensors.values()):
            if "conv1.conv.modulation.weight" in tensors:
                return _from_rosinality(_decoded(tensors, budget), None, budget, "rosinality", {})
            return _known(_decoded(tensors, budget), "torch")
    got = ", ".join(str(key)[:40] for key in list(value)[:8]) if isinstance(value, dict) else type(value).__name__
    raise ValueError(
        f"expected a generator's tensors, or g_ema or state_dict that holds them, got {got}; save the generator alone"
    )


def _from_rosinality(
    tensors: dict[str, Tensor], latent_avg: object, budget: Budget, source: str, extra: dict[str, Plain]
) -> Checkpoint:
    average = None if latent_avg is None else decode(latent_avg, budget)
    if average is not None and average.ndim > 1:  # pSp repeats it for each layer
        average = average.reshape(-1, average.shape[-1])
        if not bool((average == average[0]).all()):
            raise ValueError("expected latent_avg to be one latent, got different ones for each layer; save their mean instead")
        average = average[0].clone()
    renamed = rosinality_to_ada(tensors, average)
    defaults = {"mapping_lr_multiplier": 0.01, "conv_clamp": None, "num_fp16_res": 0}
    return Checkpoint(renamed, stylegan2_shapes(renamed) | defaults, "stylegan2", source, extra)


def _from_module(root: Module, budget: Budget, extra: dict[str, Plain]) -> Checkpoint:
    lazy, attributes = walk(root)
    known = _known({name: decode(tensor, budget) for name, tensor in lazy.items()}, "nvidia-torch")
    if known.family not in ("stylegan2", "stylegan3"):
        raise ValueError(
            "expected the tensors of a StyleGAN2 or StyleGAN3 in G_ema, got others; save its state dict and use that"
        )
    return _told(known, arguments(attributes, known.family), extra | {"attributes": attributes})


def _from_network(network: Network, budget: Budget) -> Checkpoint:
    tensors = {name: decode(value, budget) for name, value in variables(network).items()}
    version, told, kwargs = static_arguments(network)
    extra: dict[str, Plain] = {"version": version, "static_kwargs": kwargs}
    if version < 4:
        family = "stylegan1" if any(name.startswith("mapping/") for name in tensors) else "progan"
        settings = kwargs if isinstance(kwargs, dict) else {}
        told |= {name: settings[name] for name in (STYLEGAN1 if family == "stylegan1" else PROGAN) if name in settings}
        shapes = progan_shapes(tensors) if family == "progan" else {}
        return _told(Checkpoint(tensors, shapes, family, "nvidia-tensorflow"), told, extra)
    kernel = told.get("resample_kernel", [1, 3, 3, 1])
    if not isinstance(kernel, list) or not kernel or not all(isinstance(tap, int | float) for tap in kernel):
        raise ValueError("expected resample_kernel to be a list of numbers, got something else; fetch the file again")
    renamed = tensorflow_to_ada(tensors, kernel)
    known = Checkpoint(renamed, stylegan2_shapes(renamed), "stylegan2", "nvidia-tensorflow")
    return _told(known, {"mapping_lr_multiplier": 0.01, "conv_clamp": None, "num_fp16_res": 0} | told, extra)


def _from_safetensors(path: Path) -> Checkpoint:
    with safe_open(path, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    told = {name: _value(text) for name, text in metadata.items()}
    family, known = told.pop("family", ""), _known({name: _float32(tensor) for name, tensor in tensors.items()}, "safetensors")
    if known.family and family and known.family != family:
        raise ValueError(f"expected a {family}, as the metadata says, got the tensors of a {known.family}; correct one of them")
    return _told(replace(known, family=known.family or str(family)), told, {})


def _known(tensors: dict[str, Tensor], source: str) -> Checkpoint:
    """Family and architecture by names and shapes."""
    if "synthesis.b4.conv1.weight" in tensors:
        return Checkpoint(tensors, stylegan2_shapes(tensors), "stylegan2", source)
    if any(name.startswith("synthesis.L0_") for name in tensors):
        return Checkpoint(tensors, stylegan3_shapes(tensors), "stylegan3", source)
    if BIGGAN in tensors:
        return Checkpoint(tensors, biggan_shapes(tensors), "biggan", source)
    if "4x4/Dense/weight" in tensors:
        return Checkpoint(tensors, progan_shapes(tensors), "progan", source)
    if any(name.endswith((".epi1.style_mod.lin.weight", "dense0.weight")) for name in tensors):
        return Checkpoint(tensors, stylegan1_shapes(tensors), "stylegan1", source)
    return Checkpoint(tensors, {}, "gaussian-fit" if {*tensors} == {"mean", "std"} else "", source)


def _told(known: Checkpoint, told: Mapping[str, Plain], extra: dict[str, Plain]) -> Checkpoint:
    """A checkpoint with what the file says of itself, which must not disagree with its tensors."""
    for name, value in known.architecture.items():
        if name in told and name not in ("channel_base", "channel_max", "channels") and told[name] != value:
            raise ValueError(
                f"expected {name} to be {str(told[name])[:80]}, as the file says, got tensors that make it {str(value)[:80]};"
                " the file is damaged or mislabelled: fetch it again"
            )
    return replace(known, architecture={**known.architecture, **told}, extra=extra)


def _decoded(tensors: Mapping[object, object], budget: Budget) -> dict[str, Tensor]:
    """The tensors of a state dict, whose names must be text."""
    if other := [name for name in tensors if not isinstance(name, str)]:
        raise ValueError(f"expected names of tensors, got {other[0]!r}; use a file of weights")
    return {str(name): decode(tensor, budget) for name, tensor in tensors.items()}


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def _value(text: str) -> Plain:
    """Safetensors' metadata is text: numbers and lists as in JSON, and the word none."""
    try:
        return None if text.lower() == "none" else plain(json.loads(text))
    except (ValueError, RecursionError):
        return text
