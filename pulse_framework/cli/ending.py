"""How commands that search end: interrupted, out of disk, or with a summary and a status."""

import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import typer

from pulse_framework.cli.options import say
from pulse_framework.cli.restore import Report

__all__ = ["ENDS", "end", "sweep_told_to_end", "told_to_end"]

ENDS = (130, 143)
"""Exit statuses of a run that was interrupted or told to end."""


GOES_ON = "what was finished is on disk, and the same command goes on from there"


@contextlib.contextmanager
def hearing() -> Iterator[list[int]]:
    """Let SIGTERM, which a scheduler sends before it takes a machine away, raise KeyboardInterrupt within, as Ctrl-C does.

    Yields:
        A list that has the number of the signal once it has come; it stays empty on Ctrl-C.
    """
    heard: list[int] = []

    def stop(number: int, _: object) -> None:
        heard.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield heard
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def told_to_end() -> Iterator[None]:
    """End a run that SIGTERM or Ctrl-C interrupts, or that the disk fails, in one line that says how to go on.

    Raises:
        typer.Exit: Status 143 after SIGTERM, 130 after Ctrl-C, 1 where the disk failed.
    """
    with hearing() as heard:
        try:
            yield
        except KeyboardInterrupt as interrupt:
            say(f"pulse: {'told to end' if heard else 'interrupted'}; {GOES_ON}", "error")
            raise typer.Exit(143 if heard else 130) from interrupt
        except OSError as error:
            say(f"pulse: {' '.join(str(error).split())}; {GOES_ON}", "error")
            raise typer.Exit(1) from error


@contextlib.contextmanager
def sweep_told_to_end(statuses: Sequence[int]) -> Iterator[None]:
    """End a sweep that SIGTERM or Ctrl-C interrupts, within a job or between two, and say how far it was; no later job begins.

    Args:
        statuses: Of the jobs that are over.

    Raises:
        typer.Exit: Status 143 after SIGTERM, 130 after Ctrl-C; that of the job which raised KeyboardInterrupt from its own end.
    """
    with hearing() as heard:
        try:
            yield
        except KeyboardInterrupt as interrupt:
            over = interrupt.__cause__  # of a job that has said so itself
            status = over.exit_code if isinstance(over, typer.Exit) else 143 if heard else 130
            if status in ENDS:
                done = sum(known not in ENDS for known in statuses)
                after = f" after {done} job{'s' if done > 1 else ''}" if done else ""
                what = "told to end" if status == 143 else "interrupted"
                say(f"pulse: the sweep was {what}{after}; {GOES_ON}", "error")
            raise typer.Exit(status) from interrupt


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
