"""Cards: a YAML file named after the weights.

Its keys are those of ``Card`` without ``name`` and ``folder``; ``notes`` and ``framing`` are optional.
"""

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_framework.weights import sources

__all__ = ["Card", "WeightsError", "read_card"]


class WeightsError(ValueError):
    """A card or a weights file is not what it should be. The message is one line: where, expected, got, what to do."""


@dataclass(frozen=True)
class Card:
    """What is known of one weights file.

    Attributes:
        name: The card's file name without its suffix.
        sources: Where to get the file, best first; see ``pulse_framework.weights.sources``.
        sha256: Hash of the file, 64 lower-case hexadecimal digits; None if unknown to us, and then the first fetch records it.
        size: Bytes; None if unknown to us.
        format: What kind of file it is, as a file suffix (``pt``, ``safetensors``, ``pkl``).
        architecture: The network, in words.
        licence: SPDX identifier, or words where there is none.
        citation: Whom to cite for the weights and for what they were trained on.
        resolution: (height, width) of the images generated, in pixels.
        alignment: How faces (or other subjects) lie in the images generated, which photos must match.
        notes: Warnings and limits.
        framing: The alignment in numbers, arguments of ``pulse_framework.faces.Framing`` (``by``, ``scale``, ``down``); None if
            unknown.
        folder: Where relative sources start.
    """

    name: str
    sources: tuple[str, ...]
    sha256: str | None
    size: int | None
    format: str
    architecture: str
    licence: str
    citation: str
    resolution: tuple[int, int]
    alignment: str
    notes: str = ""
    framing: dict[str, Any] | None = None
    folder: Path = Path()

    @property
    def non_commercial(self) -> bool:
        """Whether the licence, in its words or its identifier, allows non-commercial use only."""
        return bool(re.search(r"non-?commercial|\bNC\b", self.licence, re.IGNORECASE))


def read_card(path: str | Path) -> Card:
    """Read a card.

    Args:
        path: A file, or ``pkg://package/path`` for a file inside an installed package (which is found, not imported).

    Raises:
        WeightsError: The card is missing, is not YAML, or has an unknown, missing or malformed key.
    """
    import yaml

    path = _locate(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise WeightsError(f"card {path}: expected a readable YAML file, got {why}; check the path and the file") from error
    given = set(content) if isinstance(content, dict) else set()
    if wrong := sorted(map(str, given - set(_KINDS))):
        raise WeightsError(f"card {path}: expected keys among {sorted(_KINDS)}, got {wrong}; remove or rename them")
    if missing := sorted(set(_KINDS) - given - {"notes", "framing"}):
        raise WeightsError(f"card {path}: expected the keys {sorted(_KINDS)}, got none of {missing}; add them")
    for key, value in content.items():
        wanted, accepts = _KINDS[key]
        if not accepts(value):
            raise WeightsError(f"card {path}, key {key!r}: expected {wanted}, got {value!r}; correct it")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    return Card(path.stem, folder=path.parent, **values)


def _locate(path: str | Path) -> Path:
    """The file that a path or ``pkg://package/path`` means."""
    if not str(path).startswith("pkg://"):
        return Path(path).expanduser()
    package, _, inside = str(path).removeprefix("pkg://").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations or not inside:
        raise WeightsError(
            f"card {path}: expected pkg://package/path of an installed package, got {package!r}; correct the address"
        )
    return Path(spec.submodule_search_locations[0], inside)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_framing(value: object) -> bool:
    if not isinstance(value, dict) or not {"by"} <= set(value) <= {"by", "scale", "down"}:
        return False
    return value["by"] in ("ffhq", "centre") and all(type(value[key]) in (int, float) for key in value if key != "by")


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and bool(re.fullmatch("[0-9a-f]{64}", value))


def _are_sources(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_text(source) and sources.is_source(source) for source in value)


_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "sources": ("a list of paths and of https://, hf:// and pypi: addresses", _are_sources),
    "sha256": ("64 lower-case hexadecimal digits, in quotes, or null", lambda v: v is None or _is_hash(v)),
    "size": ("a number of bytes, or null", lambda v: v is None or _is_count(v)),
    "format": ("a file suffix without its dot", lambda v: _is_text(v) and v.isalnum()),
    "architecture": ("text", _is_text),
    "licence": ("text", _is_text),
    "citation": ("text", _is_text),
    "resolution": ("[height, width] in pixels", lambda v: isinstance(v, list) and len(v) == 2 and all(map(_is_count, v))),
    "alignment": ("text", _is_text),
    "notes": ("text", _is_text),
    "framing": ('"by" and, if they are not 1 and 0, the numbers "scale" and "down"', _is_framing),
}
