"""Weights on this machine: where they are, whether they are right, and getting those that are not."""

import codecs
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from pulse_framework.home import cache_folder
from pulse_framework.weights.card import Card, WeightsError, read_card
from pulse_framework.weights.lock import Record, recall, record
from pulse_framework.weights.sources import bring, is_remote

__all__ = ["Progress", "cache_path", "fetch", "verify"]

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes in all, as a download goes on."""

_LOG = logging.getLogger(__name__)


def cache_path(card: Card) -> Path:
    """Where the downloaded file of a card is kept; whoever has the file may copy it there."""
    stem = f"{card.name}-{card.sha256[:12]}" if card.sha256 else card.name
    return _folder() / f"{stem}.{card.format}"


def verify(card: Card | str | Path) -> Path:
    """Path of the file of a card, checked, if it is on this machine already; never uses the network.

    Raises:
        WeightsError: The file is absent or is not the one that the card, or the record of the first fetch, describes.
    """
    card = card if isinstance(card, Card) else read_card(card)
    expected = _expected(card)
    path, failures = _at_hand(card, expected, learn=False)
    if path is None:
        raise WeightsError(f"{_wanted(card, expected)}, got {_listed(failures)}; run `pulse weights fetch {card.name}`")
    return path


def fetch(card: Card | str | Path, *, progress: Progress | None = None) -> Path:
    """Path of the file of a card, checked, downloaded first if it is not on this machine.

    A hash that the card does not know is recorded when the file is first fetched (``pulse_framework.weights.lock``), and logged.
    So is a licence for non-commercial use, before each download.

    Args:
        card: A card, or what ``read_card`` takes.
        progress: Told how a download proceeds, where the source can tell (``https://``).

    Raises:
        WeightsError: The file is not here and no source gave it, each failure listed; or ``PULSE_OFFLINE`` forbids asking.
    """
    card = card if isinstance(card, Card) else read_card(card)
    expected = _expected(card)
    path, failures = _at_hand(card, expected, learn=True)
    if path is not None:
        return path
    target = cache_path(card)
    remote = [source for source in card.sources if is_remote(source)]
    if os.environ.get("PULSE_OFFLINE", "0") not in ("", "0"):
        raise WeightsError(
            f"{_wanted(card, expected)}, got {_listed(failures)}, and PULSE_OFFLINE forbids the network; unset it, or get the"
            f" file from {' or '.join(remote) or 'its author'} on another machine and copy it to {target}"
        )

    def report(done: int, total: int) -> None:
        total = expected.size or total or done
        if progress is not None:
            progress(min(done, total), total)

    if remote and card.non_commercial:
        _LOG.warning("weights %s: licence: %s", card.name, _line(card.licence))
    for source in remote:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix=".fetch-", dir=target.parent) as folder:
                file = bring(source, Path(folder), report)
                _learn(card, _check(file, expected), source)
                file.replace(target)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one source, the next may work; all are reported
            failures.append(f"{source}: {_line(error)}")
        else:
            return target
    advice = f"get the file by hand and copy it to {target}"
    if expected.lock:
        advice += f"; or, if its authors replaced it on purpose, delete {card.name!r} from {expected.lock} and fetch again"
    raise WeightsError(f"{_wanted(card, expected)}, got {_listed(failures)}; {advice}")


@dataclass(frozen=True)
class _Expected:
    """What a file must be, as far as it is known; ``lock`` is the file that tells, if the card does not."""

    sha256: str | None
    size: int | None
    lock: Path | None = None


def _expected(card: Card) -> _Expected:
    """What the card says, else what the record of the first fetch says.

    Raises:
        WeightsError: The lock file is unreadable, or its record is of a source that is not the card's.
    """
    known = None if card.sha256 else recall(_lock(), card.name)
    if known is None:
        return _Expected(card.sha256, card.size)
    if known.url and known.url not in card.sources:
        raise WeightsError(
            f"weights {card.name}: expected {_lock()} to have a record of {' or '.join(card.sources)}, got one of {known.url};"
            f" rename the card, or delete {card.name!r} there and {cache_path(card)}"
        )
    return _Expected(known.sha256, known.size, _lock())


def _at_hand(card: Card, expected: _Expected, *, learn: bool) -> tuple[Path | None, list[str]]:
    """The file of a card where it should already be, or what is wrong in each of those places."""
    local = [(source, card.folder / Path(source).expanduser()) for source in card.sources if not is_remote(source)]
    failures = []
    for source, path in [("", cache_path(card)), *local]:
        try:
            found = _check(path, expected)
            if learn:
                _learn(card, found, source)
            elif expected.sha256 is None:
                raise WeightsError(f"expected a hash in the card or in {_lock()}, got none to check it with")
        except FileNotFoundError:
            failures.append(f"{path}: no such file")
        except (OSError, WeightsError) as error:
            failures.append(f"{path}: {_line(error)}")
            _LOG.warning("weights %s: %s is not used: %s", card.name, path, _line(error))
        else:
            return path, []
    return None, failures


def _check(path: Path, expected: _Expected) -> _Expected:
    """What a file is, which has to be what it must be."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512)
        if start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"<") and b"\0" not in start:
            raise WeightsError("expected weights, got an HTML page; open the address in a browser to see what it says")
        if expected.size not in (None, size):
            raise WeightsError(f"expected {expected.size} bytes, got {size}, so the file is incomplete or another one")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if expected.sha256 not in (None, digest):
        raise WeightsError(f"expected SHA-256 {expected.sha256}, got {digest}, so the file is damaged or another one")
    if size == 0:
        raise WeightsError("expected weights, got an empty file")
    return _Expected(digest, size)


def _learn(card: Card, found: _Expected, source: str) -> None:
    """Record the hash of a file, unless the card knows it or a record is there, which must agree."""
    if card.sha256:
        return
    assert found.sha256, found
    assert found.size, found
    kept, new = record(_lock(), card.name, Record(found.sha256, found.size, source))
    if new:
        told = "weights %s: the card knows no hash; SHA-256 %s of this file is recorded in %s and checked from now on"
        _LOG.warning(told, card.name, kept.sha256, _lock())
    elif kept.sha256 != found.sha256:
        raise WeightsError(f"expected SHA-256 {kept.sha256}, just recorded in {_lock()}, got {found.sha256}")


def _folder() -> Path:
    return cache_folder("weights")


def _lock() -> Path:
    return _folder() / "lock.json"


def _wanted(card: Card, expected: _Expected) -> str:
    size = f"a file of {expected.size} bytes" if expected.size else "a file"
    sha256 = f" with SHA-256 {expected.sha256}" if expected.sha256 else " (the hash is not known, the first fetch records it)"
    return f"weights {card.name}: expected {size}{sha256}{f', as recorded in {expected.lock}' if expected.lock else ''}"


def _listed(failures: list[str]) -> str:
    return "; ".join(f"[{index}] {failure}" for index, failure in enumerate(failures, 1))


def _line(error: object) -> str:
    return " ".join(str(error).split())
