"""What a piece of work adds to memory at its largest: to the process on Linux, to the allocator on CUDA; else nobody knows.

And how the process comes by its memory.
"""

import contextlib
import ctypes
import gc
import sys
from pathlib import Path
from types import TracebackType

import torch

__all__ = ["PeakMemory", "keep_freed", "resident"]

MEGABYTE = 2**20
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Names of settings of mallopt(3), in malloc.h."""


def resident(process: int | str = "self", *, largest: bool = False) -> float | None:
    """Megabytes (of 2^20 bytes) that a process has in memory, as Linux counts them.

    Args:
        process: Its number.
        largest: Ask for the most that it had since it began, or since a ``PeakMemory`` of it began.

    Returns:
        None where the system does not say.

    Raises:
        FileNotFoundError: There is a ``/proc``, but no such process.
    """
    name = "VmHWM" if largest else "VmRSS"
    if not Path("/proc").is_dir():
        return None
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    found = [line.split()[1] for line in lines if line.startswith(f"{name}:")]
    return int(found[0]) / 1024 if found else None


class PeakMemory:
    """Measures the work inside of a ``with``: once it is over, ``added`` and ``kept`` are known.

    On Linux the high-water mark of the resident size is reset before; what is garbage by then, or freed and still held by the
    allocator of the C library, is given back first, so that it does not count as room that was there. Other threads of the
    process count, too. Two of them at once, in one process, disturb each other.

    Args:
        device: Where the work is done: the process for a CPU, the device's own memory for CUDA.

    Attributes:
        added: Megabytes (of 2^20 bytes) by which memory was larger at its largest than at the beginning; None where it cannot
            be measured: on MPS, on other systems than Linux, or where the mark cannot be reset.
        kept: Megabytes by which it is larger at the end, garbage collected; negative if it is smaller, None as ``added``.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.added: float | None = None
        self.kept: float | None = None
        self._before: float | None = None

    def __enter__(self) -> "PeakMemory":
        _settle()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self._before = self._now() if self.device.type != "cpu" or _reset() else None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is None:
            return
        largest = self._now(largest=True)
        _settle()
        now = self._now()
        assert largest is not None, "what was known at the beginning is known at the end"
        assert now is not None, "what was known at the beginning is known at the end"
        self.added, self.kept = max(0.0, largest - self._before), now - self._before

    def _now(self, *, largest: bool = False) -> float | None:
        if self.device.type == "cpu":
            return resident(largest=largest)
        if self.device.type != "cuda":
            return None
        count = torch.cuda.max_memory_allocated if largest else torch.cuda.memory_allocated
        return count(self.device) / MEGABYTE


def keep_freed() -> bool:
    """Keep what is freed in the process from now on, where the next step finds it, instead of giving it back to the system.

    GNU's C library gives large blocks back as soon as they are freed. Every step of a search takes the same blocks once more, and
    the system clears them page by page: on a CPU that can be 40 % of the time of a step. What is kept lies in pieces, so that a
    process needs more at its largest. It holds for the whole process, to its end. Does not change a bit of a result.

    Returns:
        Whether the C library could be told: GNU's can.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallopt"):
        return False
    return bool(library.mallopt(_MMAP_MAX, 0) and library.mallopt(_TRIM_THRESHOLD, -1))


def _settle() -> None:
    """Give back what nobody uses."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def _reset() -> bool:
    """Make the high-water mark what the process has now; whether that could be done."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True
