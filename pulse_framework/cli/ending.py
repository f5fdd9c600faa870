"""How commands that search end: interrupted, out of disk, or with a summary and a status."""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from pulse_framework.cli.options import say
from pulse_framework.cli.restore import Report

__all__ = ["end", "told_to_end"]


@contextlib.contextmanager
def told_to_end() -> Iterator[None]:
    """Let SIGTERM, which a scheduler sends before it takes a machine away, end a run as Ctrl-C does, and say how to go on."""
    terminated: list[int] = []

    def stop(number: int, _: object) -> None:
        terminated.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        what = "told to end" if terminated else "interrupted"
        say(f"pulse: {what}; what was finished is on disk, and the same command goes on from there", "error")
        raise typer.Exit(143 if terminated else 130) from interrupt
    except OSError as error:
        text = f"pulse: {' '.join(str(error).split())}; what was finished is on disk, and the same command goes on from there"
        say(text, "error")
        raise typer.Exit(1) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def end(report: Report, output: object, *, strict: bool, quiet: bool, more: Sequence[Path] = (), summary: str = "") -> None:
    """Print what was written and what went wrong, and end with the right status.

    Args:
        report: Of the run.
        output: The folder.
        strict: Whether an image that did not converge is a failure.
        quiet: Whether to leave the summary out.
        more: Files written besides those of the report.
        summary: Begins the line of counts.

    Raises:
        typer.Exit: The status is not 0.
    """
    for path in [*report.written, *more]:
        sys.stdout.write(f"{path}\n")
    for item in report.errors:
        say(f"pulse: {' '.join(item.error.split())}", "error", input=str(item.path))
    if not quiet:
        counts: dict[str, object] = {**report.counts, "skipped": report.skipped, "output": str(output)}
        say(f"pulse: {summary}{_summary(report)}; results in {output}", "info", event="summary", **counts)
    status = report.exit_status(strict=strict)
    if status:
        raise typer.Exit(status)


def _summary(report: Report) -> str:
    """One line of counts, with the cure where the target was missed."""
    named = {"converged": "converged", "best_effort": "best effort", "failed": "failed", "error": "in error"}
    parts = [f"{report.counts[key]} {name}" for key, name in named.items() if report.counts[key]]
    parts += [f"{report.skipped} already done"] if report.skipped else []
    text = ", ".join(parts) or "nothing to do"
    if report.best_db:
        text += f"; consistency {min(report.best_db):.1f} to {max(report.best_db):.1f} dB"
    if report.counts["best_effort"]:
        text += " (to come closer: more --steps, search.restarts=8, or a crop framed as the generator's images are)"
    return text
