"""Files that are there whole or not at all."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

__all__ = ["remove_parts", "write_atomic"]


def write_atomic(path: Path, content: bytes, check: Callable[[Path], None] | None = None) -> None:
    """Write a file under another name, and give it its own once it is on the disk.

    Args:
        path: Where to; a file that is there is replaced.
        content: All of it.
        check: May look at what was written, and refuse by raising.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(part)
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder, to which nobody else writes now."""
    for part in folder.glob(f".{'[0-9a-f]' * 32}.part"):
        part.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """See to it that a new name is on the disk too, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
