"""Files of latents: how they are written, and what they say of the run that made them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from pulse_framework.files import write_atomic

__all__ = ["DAMAGED", "fingerprint_of", "write_latents"]

DAMAGED = "damaged"
"""In place of a fingerprint: the file of latents is cut short, as a power cut may leave it."""


def write_latents(path: Path, latents: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write one item's latent blocks, without N, as safetensors."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in latents.items()}
    write_atomic(path, _settled(save(tensors, dict(metadata))))


def _settled(content: bytes) -> bytes:
    """The same safetensors file with its metadata in order, which the library leaves to chance."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    ordered = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def fingerprint_of(path: Path, picture: Path | None = None) -> str | None:
    """The fingerprint that a latents file carries; None where there is none, or the picture is not the one that it names."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if picture is not None and hashlib.sha256(picture.read_bytes()).hexdigest() != metadata.get("picture"):
            return None
    except OSError:
        return None
    except SafetensorError:
        return DAMAGED
    return metadata.get("fingerprint")
