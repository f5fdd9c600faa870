"""The doctor: what this machine has for a search, and what would go wrong."""

import platform
import shutil
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Literal
from urllib.parse import urlsplit

import torch
import typer
from packaging.requirements import Requirement

from pulse_framework.cli.catalogue import cards
from pulse_framework.cli.options import json_line
from pulse_framework.home import cache_folder
from pulse_framework.runtime import code_version, has_wandb_key, is_offline, unreachable, wandb_url
from pulse_framework.search.compiled import compiler_fault
from pulse_framework.weights import Card, WeightsError, cache_path, read_card, verify

__all__ = ["Finding", "doctor"]

HUB = "https://huggingface.co"
ROOM = 2 * 2**30
"""Bytes that the cache should have free: the largest weights have 1.4 GB."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        verdict: ``ok``; ``note``: something that only some runs need is missing; ``fail``: runs will go wrong.
        what: What was looked at.
        text: What it is, and the cure where there is something to be cured.
    """

    verdict: Literal["ok", "note", "fail"]
    what: str
    text: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object for each line.")] = False,
) -> None:
    """Say what this machine has, and what would go wrong: exit status 1 if something would."""
    failed = False
    for finding in _findings():
        line = json_line(**asdict(finding)) if as_json else f"{finding.verdict:<5} {finding.what:<34} {finding.text}"
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
        failed = failed or finding.verdict == "fail"
    if failed:
        raise typer.Exit(1)


def _findings() -> Iterator[Finding]:
    yield Finding("ok", "python", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield Finding("ok", "pulse-latent", code_version())
    yield from _packages()
    yield from _devices()
    yield _compiler()
    yield _cache()
    found = [(card, *_weights(card)) for card in map(read_card, cards().values())]
    yield from (finding for _, finding, _ in found)
    yield from _network([card for card, _, here in found if not here])
    yield _tracking()


def _packages() -> Iterator[Finding]:
    """Every package that is required, and those of the extras that are there."""
    for text in sorted(requires("pulse-latent") or (), key=str.lower):
        wanted = Requirement(text)
        optional = wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})
        try:
            there = version(wanted.name)
        except PackageNotFoundError:
            if not optional:
                yield Finding("fail", wanted.name, f"expected {wanted.specifier}, got none; pip install '{_bare(wanted)}'")
            continue
        if not wanted.specifier.contains(there, prereleases=True):
            yield Finding("fail", wanted.name, f"expected {wanted.specifier}, got {there}; pip install '{_bare(wanted)}'")
        elif not optional:
            yield Finding("ok", wanted.name, there)


def _bare(wanted: Requirement) -> str:
    return f"{wanted.name}{wanted.specifier}"


def _devices() -> Iterator[Finding]:
    yield Finding("ok", "device cpu", f"{torch.get_num_threads()} threads")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        yield Finding("ok", f"device cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory}")
    if not torch.cuda.device_count():
        yield Finding("note", "device cuda", f"none that PyTorch {torch.__version__} can use; trainer.device=cuda is refused")
    if torch.backends.mps.is_available():
        yield Finding("ok", "device mps", "available")


def _compiler() -> Finding:
    """Whether ``search.compile=true`` would work, tried on the best device."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch says to its own compiler's code
        fault = compiler_fault(device)
    if fault:
        return Finding("note", f"compiler for {device}", f"none ({fault}); search.compile=true would be refused; install g++")
    return Finding("ok", f"compiler for {device}", "search.compile=true works")


def _cache() -> Finding:
    """Whether there is room where weights and fits are kept."""
    folder = cache_folder("weights")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as file:
            file.write(b"pulse")
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("fail", "cache", f"{folder}: expected a folder to write to, got: {error.strerror}; set PULSE_HOME")
    used = sum(path.stat().st_size for path in folder.parent.rglob("*") if path.is_file())
    text = f"{folder.parent}, {used / 2**20:.0f} MiB used, {free / 2**30:.1f} GiB free"
    return Finding("ok", "cache", text) if free >= ROOM else Finding("note", "cache", f"{text}; large weights will not fit")


def _weights(card: Card) -> tuple[Finding, bool]:
    """Whether the file of a card is the right one, and whether there is a file at all."""
    what = f"weights {card.name}"
    places = [cache_path(card), *(card.folder / Path(source).expanduser() for source in card.sources)]
    if not any(place.is_file() for place in places):
        return Finding("note", what, "absent; fetched when first used"), False
    try:
        path = verify(card)
    except WeightsError as error:
        return Finding("fail", what, " ".join(str(error).split())), True
    return Finding("ok", what, f"{'hash right' if card.sha256 else 'as first fetched'}: {path}"), True


def _network(absent: list[Card]) -> Iterator[Finding]:
    """Whether the servers of weights that are not here answer."""
    if is_offline():
        yield Finding("note", "network", "forbidden by PULSE_OFFLINE; weights that are absent will not be fetched")
        return
    sources = [source for card in absent for source in card.sources]
    servers = {f"https://{urlsplit(source).netloc}" for source in sources if source.startswith("https://")}
    servers |= {HUB} if any(source.startswith("hf://") for source in sources) else set()
    for server in sorted(servers):
        fault = unreachable(server)
        cure = f"no answer ({fault}); weights from there will not be fetched: check the network, or copy them by hand"
        yield (
            Finding("note", f"network {urlsplit(server).netloc}", cure)
            if fault
            else Finding("ok", f"network {urlsplit(server).netloc}", "answers")
        )


def _tracking() -> Finding:
    """What ``--logger wandb`` would do."""
    if not has_wandb_key():
        return Finding("note", "wandb key", "none, so --logger wandb is offline; run `wandb login`, or set WANDB_API_KEY")
    if fault := unreachable(wandb_url()):
        return Finding("note", "wandb key", f"there, but {wandb_url()} does not answer ({fault}), so --logger wandb is offline")
    return Finding("ok", "wandb key", f"there, and {wandb_url()} answers")
