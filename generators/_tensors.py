"""Reading named tensors from weights files: what the loaders of the plug-ins have in common.

No code in a file is executed: ``.safetensors`` holds none, and everything else goes through ``torch.load(weights_only=True)``.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

__all__ = ["check_tensors", "read_tensors"]


def read_tensors(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """Name to tensor, on the CPU.

    Args:
        path: A ``.safetensors`` file, or one that ``torch.save`` wrote.
        key: The entry of a ``torch.save`` file that holds the tensors; None when they are at the top.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or of another kind, has no such entry, or holds anything but tensors there.
    """
    path = Path(path)
    kind = "safetensors" if path.suffix == ".safetensors" else "torch.save"
    try:
        content: Any = load_file(path) if kind == "safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file makes the readers fail in every way there is
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{path}: expected a {kind} file of tensors, got one that cannot be read ({why}); fetch it again"
        ) from error
    if key is not None:
        if not isinstance(content, Mapping) or key not in content:
            got = _names(content) if isinstance(content, Mapping) else type(content).__name__
            raise ValueError(f"{path}: expected the entry {key!r}, got {got}; set `key` to the entry that holds the tensors")
        content = content[key]
    where = f"{path}, entry {key!r}" if key is not None else str(path)
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{where}: expected names and tensors, got {type(content).__name__}; set `key` to the entry that holds them"
        )
    if other := [name for name, value in content.items() if not isinstance(value, Tensor)]:
        raise ValueError(
            f"{where}: expected tensors alone, got other things at {_names(other)}; set `key` to the entry that holds them"
        )
    return dict(content)


def check_tensors(path: str | Path, expected: Mapping[str, Tensor], got: Mapping[str, Tensor]) -> None:
    """Refuse tensors that are not exactly the ones a network has, by name and shape.

    Raises:
        ValueError: A tensor is missing, unexpected or of another shape.
    """
    missing, extra = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    if missing or extra:
        raise ValueError(
            f"{path}: expected the {len(expected)} tensors of the network, got {len(got)}: missing {_names(missing)}, unexpected"
            f" {_names(extra)}; use the weights of this architecture, or the architecture of these weights"
        )
    for name, tensor in expected.items():
        if tensor.shape != got[name].shape:
            raise ValueError(
                f"{path}, tensor {name!r}: expected shape {tuple(tensor.shape)}, got {tuple(got[name].shape)}; use the weights of"
                " this architecture, or the architecture of these weights"
            )


def _names(names: Iterable[object]) -> str:
    """A few names, for an error."""
    texts = list(map(str, names))
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "") or "none"
