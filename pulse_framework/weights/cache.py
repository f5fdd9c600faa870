"""Weights on this machine: where they are, whether they are right, and getting those that are not."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from pulse_framework.weights.card import Card, WeightsError, read_card
from pulse_framework.weights.sources import bring, is_remote

__all__ = ["Progress", "cache_path", "fetch", "verify"]

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, as a download goes on."""

_LOG = logging.getLogger(__name__)


def cache_path(card: Card) -> Path:
    """Where the downloaded file of a card is kept; whoever has the file may copy it there."""
    import platformdirs

    home = os.environ.get("PULSE_HOME")
    root = Path(home).expanduser() if home else platformdirs.user_cache_path("pulse", appauthor=False)
    return root / "weights" / f"{card.name}-{card.sha256[:12]}.{card.format}"


def verify(card: Card | str | Path) -> Path:
    """Path of the file of a card, checked, if it is on this machine already; never uses the network.

    Raises:
        WeightsError: The file is absent or is not the one the card describes.
    """
    card = card if isinstance(card, Card) else read_card(card)
    path, failures = _at_hand(card)
    if path is None:
        raise WeightsError(f"{_wanted(card)}, got {_listed(failures)}; run `pulse weights fetch {card.name}`")
    return path


def fetch(card: Card | str | Path, *, progress: Progress | None = None) -> Path:
    """Path of the file of a card, checked, downloaded first if it is not on this machine.

    Args:
        card: A card, or what ``read_card`` takes.
        progress: Told how a download proceeds, where the source can tell (``https://``).

    Raises:
        WeightsError: The file is not here and no source gave it, each failure listed; or ``PULSE_OFFLINE`` forbids asking.
    """
    card = card if isinstance(card, Card) else read_card(card)
    path, failures = _at_hand(card)
    if path is not None:
        return path
    target = cache_path(card)
    remote = [source for source in card.sources if is_remote(source)]
    if os.environ.get("PULSE_OFFLINE", "0") not in ("", "0"):
        raise WeightsError(
            f"{_wanted(card)}, got {_listed(failures)}, and PULSE_OFFLINE forbids the network; unset it, or get the file from"
            f" {' or '.join(remote) or 'its author'} on another machine and copy it to {target}"
        )

    def report(done: int) -> None:
        if progress is not None:
            progress(min(done, card.size), card.size)

    for source in remote:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".fetch-", dir=target.parent) as folder:
                file = bring(source, Path(folder), report)
                _check(file, card)
                file.replace(target)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one source, the next may work; all are reported
            failures.append(f"{source}: {_line(error)}")
        else:
            return target
    raise WeightsError(f"{_wanted(card)}, got {_listed(failures)}; get the file by hand and copy it to {target}")


def _at_hand(card: Card) -> tuple[Path | None, list[str]]:
    """The file of a card where it should already be, or what is wrong in each of those places."""
    local = [card.folder / Path(source).expanduser() for source in card.sources if not is_remote(source)]
    failures = []
    for path in [cache_path(card), *local]:
        try:
            _check(path, card)
        except FileNotFoundError:
            failures.append(f"{path}: no such file")
        except (OSError, WeightsError) as error:
            failures.append(f"{path}: {_line(error)}")
            _LOG.warning("weights %s: %s is not used: %s", card.name, path, _line(error))
        else:
            return path, []
    return None, failures


def _check(path: Path, card: Card) -> None:
    size = path.stat().st_size
    if size != card.size:
        raise WeightsError(f"expected {card.size} bytes, got {size}, so the file is incomplete or another one")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != card.sha256:
        raise WeightsError(f"expected SHA-256 {card.sha256}, got {digest}, so the file is damaged or another one")


def _wanted(card: Card) -> str:
    return f"weights {card.name}: expected a file of {card.size} bytes with SHA-256 {card.sha256}"


def _listed(failures: list[str]) -> str:
    return "; ".join(f"[{index}] {failure}" for index, failure in enumerate(failures, 1))


def _line(error: object) -> str:
    return " ".join(str(error).split())
