"""The lock file: hashes that no card tells, recorded when a file is first fetched and binding from then on.

``lock.json`` beside the weights maps the name of a card to ``{"sha256", "size", "url"}``. The program never replaces a record:
whoever means another file deletes it. Writers wait for one another, and readers see either the old file or the new one.
"""

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from pulse_framework.weights.card import WeightsError

__all__ = ["Record", "recall", "record"]


@dataclass(frozen=True)
class Record:
    """What was found when a file was first fetched.

    Attributes:
        sha256: Its hash.
        size: Its bytes.
        url: The source it came from, as the card has it; empty if it was in the cache, where somebody had copied it.
    """

    sha256: str
    size: int
    url: str


def recall(file: Path, name: str) -> Record | None:
    """The record of a name, or None.

    Raises:
        WeightsError: The lock file is unreadable.
    """
    return _read(file).get(name)


def record(file: Path, name: str, new: Record) -> tuple[Record, bool]:
    """The record of a name, and whether it is the new one: one that is already there stays.

    Raises:
        WeightsError: The lock file is unreadable.
    """
    from filelock import FileLock

    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        records = _read(file)
        if name in records:
            return records[name], False
        text = json.dumps({key: asdict(value) for key, value in sorted((records | {name: new}).items())}, indent=2)
        draft = file.with_suffix(".new")
        draft.write_text(text + "\n", encoding="utf-8")
        draft.replace(file)
    return new, True


def _read(file: Path) -> dict[str, Record]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        records = {name: Record(**values) for name, values in content.items()}
        if not all(
            re.fullmatch("[0-9a-f]{64}", r.sha256) and type(r.size) is int and isinstance(r.url, str) for r in records.values()
        ):
            raise ValueError("a record that is not a hash, a number of bytes and an address")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise WeightsError(
            f'lock file {file}: expected {{name: {{"sha256", "size", "url"}}}}, got {why}; repair it, or delete it to record anew'
        ) from error
    return records
