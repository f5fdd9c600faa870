"""What an engine tells of the searches under way."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["Progress", "Snapshot"]


@dataclass(frozen=True)
class Snapshot:
    """The best iterate so far of a search under way.

    Attributes:
        key: Name of the image searched for.
        index: Its place in the queue.
        restart: Which start this is.
        step: Iterates evaluated so far.
        image: G of it, shape (C, H, W), on the device of the search; copy what is to be kept.
    """

    key: str
    index: int
    restart: int
    step: int
    image: Tensor


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        active: Searches under way.
        finished: Searches that are over.
        evaluations: Iterates evaluated so far, over all searches.
        psnr_db: Mean consistency of the best iterates under way, in dB; NaN while none is finite.
        rounds: Steps that the slots have taken together, since the engine was made.
        snapshots: The searches under way as they are at this look; to be read before the call returns.
    """

    active: int
    finished: int
    evaluations: int
    psnr_db: float
    rounds: int = 0
    snapshots: Iterable[Snapshot] = ()
