"""Sidecars: ``NAME.degradation.yaml`` beside a picture says how it was made, so that a search can use that very operator.

A sidecar is data of strangers. It is read as plain YAML, without aliases and interpolations, and its ``_target_`` is called only
if that of a configuration would be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from pulse_framework.cli.compose import MARK, ConfigError
from pulse_framework.files import write_atomic

__all__ = ["Recorded", "Sidecars", "asked_for", "read_sidecar", "sidecar_path", "write_sidecar"]

LARGEST = 2**16
"""Bytes of the largest sidecar that is read."""


class Sidecars(StrEnum):
    """What a run does with them.

    ``use``: each input that has one is searched for with its degradation, the others with the configured one. ``ignore``: all
    with the configured one. ``require``: an input without one is in error.
    """

    USE = "use"
    IGNORE = "ignore"
    REQUIRE = "require"


@dataclass(frozen=True)
class Recorded:
    """A degradation that was applied.

    Attributes:
        name: Of its configuration.
        node: The configuration, concrete.
    """

    name: str
    node: DictConfig


def asked_for(degradation: str | None, overrides: Sequence[str]) -> Sidecars | None:
    """What the words of a command ask for; None if they say nothing of the degradation."""
    if degradation == "sidecar":
        return Sidecars.REQUIRE
    keys = [text.lstrip("+~").split("=")[0] for text in overrides]
    named = degradation is not None or any(key == "degradation" or key.startswith("degradation.") for key in keys)
    return Sidecars.IGNORE if named else None


def sidecar_path(picture: Path) -> Path:
    """Where the sidecar of a picture is, or would be."""
    return picture.with_name(f"{picture.stem}.degradation.yaml")


def write_sidecar(picture: Path, recorded: Recorded, *, seed: int, key: str) -> None:
    """Write how a picture was made.

    Args:
        picture: The picture.
        recorded: Its degradation.
        seed: Seed of the run.
        key: Name of the original, which with the seed gives the random stream of the noise.
    """
    content = {
        "file": picture.name,
        "name": recorded.name,
        "degradation": OmegaConf.to_container(recorded.node, resolve=True),
        "seed": seed,
        "key": key,
        "version": version("pulse-latent"),
    }
    text = f"# How {picture.name} was made by `pulse degrade`; `pulse upsample` reads it.\n"
    text += yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    write_atomic(sidecar_path(picture), text.encode())


def read_sidecar(picture: Path) -> Recorded | None:
    """How a picture was made; None if it has no sidecar, or one that belongs to another file beside it.

    Raises:
        ConfigError: The sidecar cannot be read, or is not what ``write_sidecar`` writes.
    """
    path = sidecar_path(picture)
    if not path.exists():
        return None
    try:
        if path.stat().st_size > LARGEST:
            raise _refused(path, f"got more than {LARGEST} bytes")
        text = path.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken | yaml.AnchorToken) for token in yaml.scan(text)):
            raise _refused(path, "got YAML with aliases")
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise _refused(path, f"got: {' '.join(str(error).split())}") from error
    content = content if isinstance(content, dict) else {}
    file, node = content.get("file"), content.get("degradation")
    if isinstance(file, str) and file != picture.name and picture.with_name(Path(file).name).exists():
        return None
    if not isinstance(node, dict) or not isinstance(node.get("_target_"), str):
        raise _refused(path, "got no degradation with a _target_")
    name = content.get("name")
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) < 100:
        raise _refused(path, "got no name of the degradation")
    if why := _not_concrete(node):
        raise _refused(path, f"got {why}")
    return Recorded(name, OmegaConf.create({"degradation": node}).degradation)


def _not_concrete(value: Any) -> str:  # noqa: ANN401
    """What keeps a value from being plain data; empty if nothing does."""
    if isinstance(value, dict):
        if MARK in value:
            return f"a value that is to be drawn ({MARK})"
        if not all(isinstance(key, str) for key in value):
            return "keys that are not text"
        return next(filter(None, map(_not_concrete, value.values())), "")
    if isinstance(value, list):
        return next(filter(None, map(_not_concrete, value)), "")
    if isinstance(value, str) and ("${" in value or value == "???"):
        return f"the value {value!r}, which has to be looked up"
    return "" if value is None or isinstance(value, str | bool | int | float) else f"a {type(value).__name__}"


def _refused(path: Path, got: str) -> ConfigError:
    return ConfigError(f"{path}: expected a degradation as `pulse degrade` records it, {got}; make it anew or remove the file")
