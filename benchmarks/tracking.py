"""What tracking costs a search; writes its section of benchmarks/README.md.

The same search without a logger, with ``logger=csv`` and with ``logger=wandb`` offline, on pictures of noise, which no search can
meet, so that each takes all of its steps. Other work on the machine makes CPU seconds differ from minute to minute by far more
than what is to be measured, so all go through their searches side by side: each in a thread of its own, one step at a time, in an
order that is drawn anew for each step; only one of them is ever at work, and its CPU seconds are those of its thread.

What is left is luck that lasts as long as a search, such as where its memory lies. So this is done again and again, with new
searches; each time gives a ratio, and the median of the ratios comes with an interval from their order alone: it has the true
median with a probability of at least 95 %, whatever the distribution of the noise, if the times are independent. A second search
without a logger takes part, as a control: its ratio is 1 but for the noise.
"""

import argparse
import contextlib
import io
import math
import os
import random
import resource
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from _readme import machine, write_section

from pulse_framework.cli.compose import load
from pulse_framework.cli.restore import prepare
from pulse_framework.images import png_bytes
from pulse_framework.runtime import SearchObserver

KINDS = {
    "none": ["logger=none"],
    "none, again": ["logger=none"],
    "csv": ["logger=csv"],
    "wandb": ["logger=wandb", "logger.offline=true"],
}
SIZES = ((1, 60), (8, 20))
"""Pictures, and steps."""
DEFAULT = 300
"""Steps of the default search."""
TICKS = os.sysconf("SC_CLK_TCK")


class Turns:
    """Lets one of several threads go on at a time; who is next is drawn, each once in every round."""

    def __init__(self, names: Sequence[str]) -> None:
        self.rng, self.names, self.left = random.Random(0), list(names), list(names)  # noqa: S311 - nothing secret
        self.changed = threading.Condition()

    def wait(self, name: str) -> None:
        """Until it is this one's turn."""
        with self.changed:
            self.changed.wait_for(lambda: self.left[0] == name)

    def give(self, *, for_good: bool = False) -> None:
        """Let the next one go on."""
        with self.changed:
            name = self.left.pop(0)
            if for_good:
                self.names.remove(name)
            if not self.left:
                self.left = self.rng.sample(self.names, len(self.names))
            self.changed.notify_all()


@dataclass
class Stopwatch(SearchObserver):
    """CPU seconds of the steps of one search, by its thread; it hears of everything after the tracker has."""

    name: str
    turns: Turns
    steps: list[float] = field(default_factory=list)
    since: float = 0.0

    def on_predict_start(self, trainer, module):  # noqa: ANN001, ANN201, D102
        self.since = time.thread_time()

    def on_progress(self, module, progress):  # noqa: ANN001, ANN201, D102
        self.steps.append(time.thread_time() - self.since)
        self.turns.give()
        self.turns.wait(self.name)
        self.since = time.thread_time()

    def on_answer(self, module, finished):  # noqa: ANN001, ANN201, D102
        now = time.thread_time()
        self.steps[-1] += now - self.since
        self.since = now


def computed() -> float:
    """CPU seconds so far of this process and of its children: those that it has waited for, and W&B's, which lives on."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    living = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            fields = path.read_text().rpartition(")")[2].split()
            living += sum(map(int, fields[11:15])) if int(fields[1]) == os.getpid() else 0
    return time.process_time() + children.ru_utime + children.ru_stime + living / TICKS


def side_by_side(inputs: Path, out: Path, steps: int, names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """CPU seconds of each search, and of all that comes before and after it; threads begin in the order of the names."""
    fixed = ["trainer=cpu", "search.start.draws=1", f"data.inputs=['{inputs}']", f"search.steps={steps}"]
    turns = Turns(names)
    watches = {kind: Stopwatch(kind, turns) for kind in names}
    jobs = {
        kind: replace(prepare(load([*fixed, *KINDS[kind], f"output='{out / kind}'"])), observers=(watches[kind],))
        for kind in names
    }

    def work(kind: str) -> float:
        torch.set_num_threads(1)
        turns.wait(kind)
        begun = time.thread_time()
        try:
            jobs[kind](quiet=True)
        finally:
            turns.give(for_good=True)
        return time.thread_time() - begun

    before = computed()
    with contextlib.redirect_stderr(io.StringIO()), ThreadPoolExecutor(len(names)) as pool:
        spent = dict(zip(names, pool.map(work, names), strict=True))
    beside = computed() - before - sum(spent.values())  # W&B's threads and process
    assert len({len(watch.steps) for watch in watches.values()}) == 1, "expected the same steps whichever logger there is"
    found = {kind: sum(watches[kind].steps) for kind in names}
    return {kind: (found[kind], spent[kind] - found[kind] + (beside if kind == "wandb" else 0)) for kind in names}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest symmetric pair of order statistics that has the true median between them with at least 95 %."""
    n, ordered = len(values), sorted(values)
    outside, k = 0.0, 0  # below the k-th least value, from 1, with this probability: at most k - 1 of n fair coins are heads
    while outside + math.comb(n, k) / 2**n <= 0.025:
        outside += math.comb(n, k) / 2**n
        k += 1
    assert k, "expected at least 6 values"
    return ordered[k - 1], ordered[n - k]


def measured(folder: Path, images: int, steps: int, times: int) -> list[str]:
    """Lines of the table for so many pictures."""
    rng, names = torch.Generator().manual_seed(0), list(KINDS)
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in names}
    (folder / "in").mkdir(parents=True)
    for index in range(images):
        (folder / "in" / f"noise{index:04d}.png").write_bytes(png_bytes(torch.rand(3, 8, 8, generator=rng)))
    side_by_side(folder / "in", folder / "warm", 2, names)  # what a first run imports and compiles is left out
    for turn in range(times):
        out, first = folder / str(turn), turn % len(names)
        for kind, seconds in side_by_side(folder / "in", out, steps, names[first:] + names[:first]).items():
            found[kind].append(seconds)
        answers = {tuple((out / kind / f"noise{i:04d}.png").read_bytes() for i in range(images)) for kind in names}
        assert len(answers) == 1, "expected the same pictures whichever logger there is"
        print(images, turn, *(f"{kind} {found[kind][-1][0]:.3f}" for kind in names), flush=True)
    lines, bare = [], found["none"]
    whole = DEFAULT / steps * statistics.median(search for search, _ in bare)
    for kind, seconds in found.items():
        ratios = [mine / its for (mine, _), (its, _) in zip(seconds, bare, strict=True)]
        search, around = (statistics.median(column) for column in zip(*seconds, strict=True))
        more = statistics.median(mine - its for (_, mine), (_, its) in zip(seconds, bare, strict=True)) / whole
        low, high = interval(ratios)
        spread = f"{statistics.median(ratios):.3f} | {low:.3f} to {high:.3f} | {min(ratios):.3f} to {max(ratios):.3f}"
        shown = "1 | - | -" if kind == "none" else spread
        lines.append(f"| {images} | {kind} | {search:.2f} | {shown} | {around:.2f} | {100 * more:.1f} % |")
    return lines


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=24)
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["WANDB_SILENT"] = "true"
    with tempfile.TemporaryDirectory() as name:
        parts = [measured(Path(name) / str(images), images, steps, given.times) for images, steps in SIZES]
    table = "\n".join(line for lines in parts for line in lines)
    steps = ", and of ".join(f"{images} with {steps} steps" for images, steps in SIZES)
    text = f"""## Tracking every step

CPU seconds of a search of pictures of 8x8, `faces-stylegan2-64`, of {steps}: without a logger, once
more without one as a control, with CSV and with W&B offline, all side by side, one step at a time each, in an order drawn anew
for each step, one thread. This was done {given.times} times with new searches. A ratio is that of the search to the one without a
logger beside it; given are the median of the ratios, an interval of that median (95 %, from their order alone) and all of them.
The control says what the method makes of no difference; less than its interval is not shown.

"Search" has all steps and what is logged of each answer; in the default search, of {DEFAULT} steps, the latter and the film weigh
less. "Around it" is what a run computes once: grid, curves, film, tables, and all that W&B's own threads and process do. What a
logger adds to that is given beside it as a share of the steps of the default search of these pictures. The pictures are the
same, byte for byte.

| pictures | logger | search, s | ratio | 95 % | all | around it, s | added to a default search |
| --- | --- | --- | --- | --- | --- | --- | --- |
{table}

Load at the end {os.getloadavg()[0]:.1f}, this command's own included. {machine()}.
"""
    print(text)
    write_section("tracking", text)


if __name__ == "__main__":
    main()
