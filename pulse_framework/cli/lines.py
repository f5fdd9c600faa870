"""Logs for programs: one JSON object a line on the standard error stream, whoever writes there."""

import contextlib
import io
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, TextIO

import typer

__all__ = ["JsonLines", "LogJson"]


class JsonLines(io.TextIOBase):
    """A text stream whose lines become objects with ``time``, ``level`` and ``message``; a line that is one stays as it is.

    Args:
        under: Where they go.
    """

    def __init__(self, under: TextIO) -> None:
        self.under, self._rest = under, ""

    def write(self, text: str) -> int:
        """Take text; what does not end a line waits for the rest of it."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self.emit("info", line)
        return len(text)

    def flush(self) -> None:
        """Hand on what is whole."""
        self.under.flush()

    def finish(self) -> None:
        """Hand on the rest."""
        self.write("\n")

    def emit(self, level: str, message: str, **fields: object) -> None:
        """Write one object, in one write."""
        line: dict[str, object] = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level}
        line |= {"message": message.strip().removeprefix("pulse: "), **fields}
        self.under.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        self.under.flush()


class _Records(logging.Handler):
    """Log records as objects, with the ``fields`` that some have."""

    def __init__(self, lines: JsonLines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name, **getattr(record, "fields", {})}
        if record.exc_info:
            fields["exception"] = logging.Formatter().formatException(record.exc_info)
        self._lines.emit(record.levelname.lower(), record.getMessage(), **fields)


@contextlib.contextmanager
def _json_lines() -> Iterator[None]:
    """All that is said, logged and warned of within goes to the standard error stream as JSON.

    Raises:
        typer.Exit: Status 1 in place of an exception that nobody expected: its traceback is the ``exception`` of a line.
    """
    lines, root, own = JsonLines(sys.stderr), logging.getLogger(), logging.getLogger("pulse_framework")
    handler, level = _Records(lines), own.level
    with contextlib.redirect_stderr(lines), warnings.catch_warnings():
        warnings.showwarning = lambda message, *_, **__: lines.emit("warning", str(message))
        others = [(other, other.setStream(lines)) for other in _printers() if other.stream is lines.under]
        root.addHandler(handler)
        own.setLevel(logging.INFO)
        try:
            yield
        except (typer.Exit, typer.Abort):  # ends that have been told
            raise
        except Exception as error:
            told = "".join(traceback.format_exception(error))
            lines.emit("error", f"{type(error).__name__}: {' '.join(str(error).split())}", exception=told)
            raise typer.Exit(1) from error
        finally:
            own.setLevel(level)
            root.removeHandler(handler)
            for other, stream in others:
                other.setStream(stream)
            lines.finish()


def _printers() -> Iterator[logging.StreamHandler[Any]]:
    """Handlers of other packages that print; they keep the stream that they found."""
    for found in list(logging.root.manager.loggerDict.values()):
        handlers = found.handlers if isinstance(found, logging.Logger) else []
        yield from (handler for handler in handlers if type(handler) is logging.StreamHandler)


def _begin(context: typer.Context, asked: bool) -> None:
    if asked:
        context.with_resource(_json_lines())


LogJson = Annotated[
    bool, typer.Option("--log-json", is_eager=True, callback=_begin, help="Logs as one JSON object a line, without progress bar.")
]
