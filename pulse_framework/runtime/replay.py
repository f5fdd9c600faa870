"""What a folder says of its run: lines of the table, curves, film; and finished runs told to a logger."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning.loggers import Logger

from pulse_framework.images import ReadError, read_image
from pulse_framework.runtime.curves import Curves
from pulse_framework.runtime.film import read_film, thumbnail
from pulse_framework.runtime.record import COLUMNS, PICTURES, Record, begin, close, log_answer
from pulse_framework.search import Status

__all__ = ["CURVES", "FILM", "ROWS", "SHOWN", "answers", "check_run", "files", "lines", "log_answers", "push", "table"]

ROWS = 10_000
"""Lines of the table; all are in ``results.jsonl``."""
SHOWN = 64
"""Lines of the table that have pictures; all are in the folder."""
FILM, CURVES = "search.gif", "search.curves"
STORED = (".jsonl", ".yaml", ".png", ".gif", ".safetensors")


def check_run(folder: Path) -> None:
    """Refuse a folder that no run has written.

    Raises:
        ValueError: It is not that of a run.
    """
    if not ((folder / "results.jsonl").exists() and (folder / "config.yaml").exists()):
        wanted = "expected the folder of a run, with results.jsonl and config.yaml"
        raise ValueError(f"{folder}: {wanted}, got another; check the path")


def push(folder: Path, logger: Logger) -> int:
    """Log a finished run from what it wrote: settings, answers, table, grid; film and curves if it had a logger.

    Returns:
        How many images were answered.

    Raises:
        ValueError: The folder is not that of a run.
    """
    check_run(folder)
    begin(logger, yaml.safe_load((folder / "config.yaml").read_text()))
    known = lines(folder)
    log_answers(logger, known)
    curves, film, grid = folder / CURVES, folder / FILM, folder / "grid.png"
    record = Record(
        curves=Curves.read(curves.read_bytes()).rows() if curves.exists() else (),
        frames=read_film(film.read_bytes()) if film.exists() else (),
        film=film if film.exists() else None,
        grid=read_image(grid) if grid.exists() else None,
        table=table(folder, known),
        files=files(folder),
    )
    record.log(logger)
    close(logger, "success")
    return len(answers(known))


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``results.jsonl``, but for those of inputs that could not be processed, and one that was cut short."""
    found = []
    for text in (folder / "results.jsonl").read_text().splitlines() if (folder / "results.jsonl").exists() else ():
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return [line for line in found if line["status"] != "error"]


def answers(known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of the best samples."""
    return [line for line in known if line["sample"] == 0 and line["status"] != Status.FAILED.value]


def log_answers(logger: Logger, known: list[dict[str, Any]]) -> None:
    """Log the answers of some lines."""
    for number, line in enumerate(answers(known), 1):
        log_answer(logger, number, {name: line[name] for name in ("psnr_db", "steps") if line[name] is not None})


def table(folder: Path, known: list[dict[str, Any]]) -> list[list[Any]]:
    """Lines of the table; what A makes of the answers is in no file."""
    return [_row(folder, line, shown=number < SHOWN) for number, line in enumerate(known[:ROWS])]


def files(folder: Path) -> list[Path]:
    """Results, settings, pictures and latents."""
    return [path for path in sorted(folder.iterdir()) if path.suffix in STORED]


def _row(folder: Path, line: Mapping[str, Any], *, shown: bool) -> list[Any]:
    there = [Path(line["input"]), folder / line["output"]] if shown and line["output"] else []
    pictures = [_thumbnail(file) for file in there]
    return [*(line[name] for name in COLUMNS), *pictures, *[None] * (len(PICTURES) - len(pictures))]


def _thumbnail(file: Path) -> Any:  # noqa: ANN401 - a tensor or nothing
    try:
        return thumbnail(read_image(file))
    except ReadError:
        return None
