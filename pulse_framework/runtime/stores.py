"""Inputs and output folders that are URLs (``s3://``, ``gs://``, ``https://``, ...), by fsspec.

Object stores have no rename and no lock, so a run works in a folder of this machine, where both are: inputs are copied there, and
what is made is sent to the store as the run goes on.
"""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from pulse_framework.files import write_atomic
from pulse_framework.home import cache_folder
from pulse_framework.runtime.intake import RECORDS, SUFFIXES
from pulse_framework.runtime.measurements import SUFFIX
from pulse_framework.runtime.module import Finished, SearchModule, SearchObserver
from pulse_framework.runtime.surroundings import is_offline

__all__ = ["Store", "bring_inputs", "is_url"]

_LOG = logging.getLogger(__name__)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+(://|::)")
TAKEN = (*SUFFIXES, SUFFIX, ".degradation.yaml")
"""Endings of what is copied out of a folder of inputs."""

SECONDS = 60.0
"""Between two times that a run sends what it has made."""


def is_url(text: str) -> bool:
    """Whether a text names a place by a protocol."""
    return bool(_URL.match(text))


def bring_inputs(inputs: Iterable[str]) -> tuple[list[str], dict[Path, str]]:
    """Copy inputs that are URLs into the cache, unless the same version is there.

    Args:
        inputs: Paths are left as they are, and so are ``file://`` URLs but for their protocol.

    Returns:
        Paths, and the URL of each file that was copied.

    Raises:
        ValueError: There is no such input, its protocol is unknown or needs a package that is missing, or it cannot be read.
    """
    paths: list[str] = []
    origins: dict[Path, str] = {}
    for given in inputs:
        if not is_url(given):
            paths.append(given)
            continue
        files, root = _opened(given, "input")
        if isinstance(files, LocalFileSystem):
            paths.append(root)
            continue
        try:
            path, known = _copied(files, root, _nearby("inputs", given))
        except OSError as error:
            raise ValueError(f"input {given}: expected an object or a folder that can be read, got: {error}; check it") from error
        paths.append(str(path))
        origins |= known
    return paths, origins


class Store(SearchObserver):
    """An output folder that is a URL: works in a folder of this machine, and sends what is new there.

    Every object is put whole, in one request where the store has such; the records go last, so that they name nothing that is not
    there. What a run made after it last sent is lost to the store if the run is killed, and sent by the same command on the same
    machine. Nothing keeps runs of two machines out of one URL.

    Args:
        url: Of the folder. A ``file://`` URL is the folder itself.

    Attributes:
        folder: Where the run works.

    Raises:
        ValueError: The protocol is unknown or needs a package that is missing, or what is there cannot be read.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._files, self._root = _opened(url, "output")
        self._direct = isinstance(self._files, LocalFileSystem)
        self.folder = Path(self._root) if self._direct else _nearby("runs", self.url)
        self._sent: dict[str, tuple[int, int]] = {}
        self._last = time.monotonic()
        self._idle = self._direct or os.environ.get("LOCAL_RANK", "0") != "0"  # the first of several processes does it for all
        if not self._idle:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._fetch()
            except OSError as error:
                raise ValueError(f"output {url}: expected a folder of a store, got: {error}; choose another") from error

    def on_answer(self, module: SearchModule, finished: Finished) -> None:
        """Send what there is, once in a while; a store that fails now is tried again later."""
        if time.monotonic() > self._last + SECONDS:
            try:
                self.send()
            except OSError as error:
                _LOG.warning("output %s: not sent: %s; tried again later", self.url, error)
                self._last = time.monotonic()

    def send(self) -> None:
        """Put every file that is new or has changed, records last.

        Raises:
            OSError: The store fails.
        """
        if self._idle:
            return
        found = [path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
        for path in sorted(found, key=lambda path: (path.name == RECORDS, path)):
            name, state = path.relative_to(self.folder).as_posix(), _state(path)
            if self._sent.get(name) != state:
                self._files.pipe_file(f"{self._root}/{name}", path.read_bytes())
                self._sent[name] = state
        self._last = time.monotonic()

    def at(self, path: str) -> str:
        """The URL that a file of the folder has."""
        return path if self._direct else f"{self.url}/{Path(path).relative_to(self.folder).as_posix()}"

    def _fetch(self) -> None:
        """Get what earlier runs have sent and this machine does not have; lines of records are joined."""
        there = _below(self._files, self._root) if self._files.isdir(self._root) else {}
        for name, place in there.items():
            path = self.folder / name
            if name == RECORDS:
                own = path.read_bytes() if path.exists() else b""
                write_atomic(path, _joined(own, self._files.cat_file(place)))
            elif not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, self._files.cat_file(place))
                self._sent[name] = _state(path)


def _opened(url: str, what: str) -> tuple[Any, str]:
    """The file system of a URL, and the place in it."""
    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ValueError(
            f"{what} {url}: expected a URL that fsspec opens, got: {why}; install what it names, or use a path"
        ) from error
    if is_offline() and not isinstance(files, LocalFileSystem | MemoryFileSystem):
        raise ValueError(f"{what} {url}: expected PULSE_OFFLINE unset, which forbids the network; unset it, or use a path")
    return files, str(root).rstrip("/")


def _nearby(kind: str, url: str) -> Path:
    return cache_folder(kind) / hashlib.sha256(url.encode()).hexdigest()[:16]


def _copied(files: Any, root: str, folder: Path) -> tuple[Path, dict[Path, str]]:  # noqa: ANN401
    """Copy an object, with its sidecar, or what is to be taken of a folder; what is there no more is removed."""
    whole = files.isdir(root)
    if whole:
        wanted = {name: place for name, place in _below(files, root).items() if name.lower().endswith(TAKEN)}
        results = {name.rpartition("/")[0] for name in _below(files, root) if name.rpartition("/")[2] == RECORDS} - {""}
        wanted = {name: place for name, place in wanted.items() if not any(name.startswith(f"{run}/") for run in results)}
    else:
        beside = f"{root.removesuffix(PurePosixPath(root).suffix)}.degradation.yaml"
        wanted = {PurePosixPath(place).name: place for place in (root, beside) if place == root or files.exists(place)}
    index = folder / ".versions"
    versions = json.loads(index.read_bytes()) if index.exists() else {}
    now: dict[str, str] = {}
    for name, place in wanted.items():
        now[name] = str(files.ukey(place))
        path = folder / name
        if versions.get(name) != now[name] or not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, files.cat_file(place))
    for name in versions.keys() - now.keys():
        (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(index, json.dumps(now).encode())
    return folder if whole else folder / PurePosixPath(root).name, {
        folder / name: str(files.unstrip_protocol(place)) for name, place in wanted.items()
    }


def _below(files: Any, root: str) -> dict[str, str]:  # noqa: ANN401
    """Objects of a folder, by their names in it, without hidden ones.

    Raises:
        ValueError: A name leads out of the folder.
    """
    found: dict[str, str] = {}
    for place in files.find(root):
        name = str(place)[len(root) :].lstrip("/")
        parts: Sequence[str] = PurePosixPath(name).parts
        if ".." in parts or "\\" in name:
            raise ValueError(f"{place}: expected a name inside of its folder, got one that leads out; rename it")
        if name and not any(part.startswith(".") for part in parts):
            found[name] = str(place)
    return found


def _joined(own: bytes, sent: bytes) -> bytes:
    """Lines of both records, but those of ``sent`` about pictures, or faulty inputs, that are in ``own``."""
    lines: dict[str, bytes] = {}
    for text in (*own.splitlines(), *sent.splitlines()):
        try:
            line = json.loads(text)
        except ValueError:  # cut short
            continue
        lines.setdefault(line.get("output") or f"{line.get('input')}/{line.get('sample')}", text)
    return b"".join(text + b"\n" for text in lines.values())


def _state(path: Path) -> tuple[int, int]:
    """What tells that a file was written anew."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
