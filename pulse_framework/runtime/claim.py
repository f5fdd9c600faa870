"""One run at a time in a folder: two would strike one another's records."""

from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["Claim"]


class Claim:
    """A folder held by this process; the system lets go of it when the process ends, however it ends.

    Args:
        folder: It is there.

    Raises:
        ValueError: Another run holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = FileLock(folder / ".running")
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise ValueError(
                f"output {folder}: expected a folder that no other run writes to, got one that is in use; wait for that run, or "
                "choose another folder"
            ) from None

    def release(self) -> None:
        """Let go of the folder, and leave no file behind."""
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
