"""What tracking costs a search; writes its section of benchmarks/README.md.

The same search without a logger, with ``logger=csv`` and with ``logger=wandb`` offline, in turn, in one process with one thread,
on pictures of noise, which no search can meet, so that each takes all of its steps. Seconds are CPU seconds: other work on the
machine does not make more of them.
"""

import argparse
import contextlib
import io
import os
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from _readme import machine, write_section

from pulse_framework.cli.compose import load
from pulse_framework.cli.restore import prepare
from pulse_framework.images import png_bytes
from pulse_framework.runtime import SearchObserver

DEFAULT = 300
"""Steps in each space of the default search."""
KINDS = {"none": ["logger=none"], "csv": ["logger=csv"], "wandb": ["logger=wandb", "logger.offline=true"]}


class Stopwatch(SearchObserver):
    """When the search began and ended: it hears of both after the tracker has."""

    begun = ended = 0.0

    def on_predict_start(self, trainer, module):  # noqa: ANN001, ANN201, D102
        self.begun = time.process_time()

    def on_answer(self, module, finished):  # noqa: ANN001, ANN201, D102
        self.ended = time.process_time()


def computed() -> float:
    """CPU seconds so far of this process and of those that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def run(inputs: Path, out: Path, steps: int, choice: list[str]) -> tuple[float, float]:
    """CPU seconds of the search, and of all that comes before and after it."""
    fixed = ["trainer=cpu", f"search.steps={steps}", "search.start.draws=1", f"data.inputs=['{inputs}']", f"output='{out}'"]
    watch = Stopwatch()
    with contextlib.redirect_stderr(io.StringIO()):
        job = replace(prepare(load([*fixed, *choice])), observers=(watch,))
        begun = computed()
        job(quiet=True)
    search = watch.ended - watch.begun
    return search, computed() - begun - search


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WANDB_SILENT"] = "true"
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), torch.Generator().manual_seed(0)
        (folder / "in").mkdir()
        for index in range(given.images):
            (folder / "in" / f"noise{index:04d}.png").write_bytes(png_bytes(torch.rand(3, 8, 8, generator=rng)))
        for kind, choice in KINDS.items():  # what a first run imports and compiles is left out
            run(folder / "in", folder / f"warm {kind}", 2, choice)
        for turn in range(given.rounds):
            for kind, choice in list(KINDS.items())[:: 1 if turn % 2 else -1]:
                found[kind].append(run(folder / "in", folder / f"{turn} {kind}", given.steps, choice))
                print(turn, kind, *(f"{seconds:.2f}" for seconds in found[kind][-1]))
        whole = {kind: run(folder / "in", folder / f"whole {kind}", DEFAULT, KINDS[kind]) for kind in ("csv", "wandb")}
        answers = {
            kind: [(folder / f"0 {kind}" / f"noise{i:04d}.png").read_bytes() for i in range(given.images)] for kind in KINDS
        }
        assert answers["none"] == answers["csv"] == answers["wandb"], "expected the same pictures whichever logger there is"
    rows = []
    for kind, seconds in found.items():
        ratios = [mine[0] / bare[0] for mine, bare in zip(seconds, found["none"], strict=True)]
        searching, around = (statistics.median(column) for column in zip(*seconds, strict=True))
        spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
        rows.append(f"| `{kind}` | {searching:.2f} | {statistics.median(ratios):.3f} | {spread} | {around:.2f} |")
    table = "\n".join(rows)
    shares = " and ".join(f"{100 * around / search:.1f} % ({kind})" for kind, (search, around) in whole.items())
    text = f"""## Tracking every step

CPU seconds of a search of {given.images} pictures of 8x8, `faces-stylegan2-64`, {given.steps} steps in each space, one
thread: without a logger, with CSV and with W&B offline, in turn, medians of {given.rounds} rounds. The ratio is that of the
search to that without a logger of the same round. "Around it" is what a run computes once: grid, curves, film, and W&B's own
process; beside a search of the same pictures with {DEFAULT} steps in each space, the default, it was {shares}.
The pictures are the same, byte for byte.

| logger | search, s | ratio | range | around it, s |
| --- | --- | --- | --- | --- |
{table}

{machine()}.
"""
    print(text)
    write_section("tracking", text)


if __name__ == "__main__":
    main()
