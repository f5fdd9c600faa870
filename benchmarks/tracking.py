"""What tracking costs a search; writes its section of benchmarks/README.md.

The same search without a logger, with ``logger=csv`` and with ``logger=wandb`` offline, in one process with one thread, on
pictures of noise, which no search can meet, so that each takes all of its steps. Seconds are CPU seconds, those of W&B's own
process included. They are noisy where other work shares the caches and cores, by far more than what is to be measured, so there
are many short rounds, in each of which all three run, in an order that changes from round to round; a round gives a ratio, and
the median of the ratios comes with an interval from their order alone: it has the true median with a probability of at least
95 %, whatever the distribution of the noise, if rounds are independent.
"""

import argparse
import contextlib
import io
import itertools
import math
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
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
ORDERS = list(itertools.permutations(KINDS))
SIZES = ((1, 60), (8, 20))
"""Pictures, and steps in each space."""
TICKS = os.sysconf("SC_CLK_TCK")


class Stopwatch(SearchObserver):
    """When the search began and ended: it hears of both after the tracker has."""

    begun = ended = 0.0

    def on_predict_start(self, trainer, module):  # noqa: ANN001, ANN201, D102
        self.begun = computed()

    def on_answer(self, module, finished):  # noqa: ANN001, ANN201, D102
        self.ended = computed()


def computed() -> float:
    """CPU seconds so far of this process and of its children: those that it has waited for, and W&B's, which lives on."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    living = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = path.read_text().rpartition(")")[2].split()
            living += sum(map(int, fields[11:15])) if int(fields[1]) == os.getpid() else 0
    return time.process_time() + children.ru_utime + children.ru_stime + living / TICKS


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


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest symmetric pair of order statistics that has the true median between them with at least 95 %."""
    n, ordered = len(values), sorted(values)
    outside, k = 0.0, 0  # below the k-th least value, from 1, with this probability: at most k - 1 of n fair coins are heads
    while outside + math.comb(n, k) / 2**n <= 0.025:
        outside += math.comb(n, k) / 2**n
        k += 1
    assert k, "expected at least 6 rounds"
    return ordered[k - 1], ordered[n - k]


def rows(images: int, found: dict[str, list[tuple[float, float]]]) -> list[str]:
    """Lines of the table."""
    lines = []
    for kind, seconds in found.items():
        ratios = [mine[0] / bare[0] for mine, bare in zip(seconds, found["none"], strict=True)]
        searching, around = (statistics.median(column) for column in zip(*seconds, strict=True))
        low, high = interval(ratios)
        spread = f"{statistics.median(ratios):.3f} | {low:.3f} to {high:.3f} | {min(ratios):.3f} to {max(ratios):.3f}"
        shown = "1 | - | -" if kind == "none" else spread
        lines.append(f"| {images} | `{kind}` | {searching:.2f} | {shown} | {around:.2f} |")
    return lines


def measured(folder: Path, images: int, steps: int, rounds: int) -> tuple[list[str], str]:
    """Lines of the table for so many pictures, and what share of a default search the costs around it are."""
    rng, found = torch.Generator().manual_seed(0), {kind: [] for kind in KINDS}
    (folder / "in").mkdir(parents=True)
    for index in range(images):
        (folder / "in" / f"noise{index:04d}.png").write_bytes(png_bytes(torch.rand(3, 8, 8, generator=rng)))
    for kind, choice in KINDS.items():  # what a first run imports and compiles is left out
        run(folder / "in", folder / f"warm {kind}", 2, choice)
    for turn in range(rounds):
        for kind in ORDERS[turn % len(ORDERS)]:
            found[kind].append(run(folder / "in", folder / f"{turn} {kind}", steps, KINDS[kind]))
            print(images, turn, kind, *(f"{seconds:.2f}" for seconds in found[kind][-1]), flush=True)
    answers = {kind: [(folder / f"0 {kind}" / f"noise{i:04d}.png").read_bytes() for i in range(images)] for kind in KINDS}
    assert answers["none"] == answers["csv"] == answers["wandb"], "expected the same pictures whichever logger there is"
    whole = {kind: run(folder / "in", folder / f"whole {kind}", DEFAULT, KINDS[kind]) for kind in ("csv", "wandb")}
    bare = statistics.median(around for _, around in found["none"])
    shares = " and ".join(f"{100 * (around - bare) / search:.1f} % ({kind})" for kind, (search, around) in whole.items())
    return rows(images, found), f"{shares} with {images} picture{'s' if images > 1 else ''}"


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=36)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WANDB_SILENT"] = "true"
    with tempfile.TemporaryDirectory() as name:
        parts = [measured(Path(name) / str(images), images, steps, given.rounds) for images, steps in SIZES]
    table = "\n".join(line for lines, _ in parts for line in lines)
    steps = " and ".join(f"{steps} steps in each space with {images}" for images, steps in SIZES)
    text = f"""## Tracking every step

CPU seconds of a search of pictures of 8x8, `faces-stylegan2-64`, {steps}, one
thread: without a logger, with CSV and with W&B offline, in an order that changes from round to round, {given.rounds} rounds.
A ratio is that of the search to the one without a logger of the same round; "95 %" is an interval of the median of the ratios,
from their order alone, and "range" has all of them. CPU seconds are those of all processes, W&B's own included. Other work
shared the machine: what a single round says is noise, and a difference smaller than the interval is not shown. The search
includes what is logged of each answer, which weighs less in a longer one.

"Around it" is what a run computes once: grid, curves, film, tables. What a logger adds to that is, of a default search
({DEFAULT} steps in each space; one run of each), {"; ".join(share for _, share in parts)}.
The pictures are the same, byte for byte.

| pictures | logger | search, s | ratio | 95 % | range | around it, s |
| --- | --- | --- | --- | --- | --- | --- |
{table}

Load at the end {os.getloadavg()[0]:.1f}, this command's own included. {machine()}.
"""
    print(text)
    write_section("tracking", text)


if __name__ == "__main__":
    main()
