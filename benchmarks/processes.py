"""Two processes, held to one thread each, over one; writes its section of benchmarks/README.md.

``pulse upsample`` with the default generator on pictures of noise, which no search can meet, so that each takes all of its steps:
one command with ``trainer.devices=1``, the next with ``trainer.devices=2``, and so on in turn. Both must write the same bytes.
It needs Linux, which lets it count what the second process computed.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from _readme import machine, write_section

from pulse_framework.images import png_bytes

STEPS, SLOTS = 25, 16
SUBREAPER = 36
"""Of ``prctl``: processes whose parent has ended are this one's to wait for."""


def contents(out: Path) -> tuple[dict[str, bytes], list[str]]:
    """Bytes of all pictures and latents, and the lines without their times, in order."""
    lines = [json.loads(line) | {"seconds": None} for line in (out / "results.jsonl").read_text().splitlines()]
    return {path.name: path.read_bytes() for path in out.glob("noise*")}, sorted(map(json.dumps, lines))


def rate(out: Path, processes: int) -> float:
    """Images a second, summed over the processes, each from the end of its first wave of slots to its last picture."""
    pictures = sorted(out.glob("noise*.png"))
    ended = [sorted(path.stat().st_mtime_ns / 1e9 for path in pictures[rank::processes]) for rank in range(processes)]
    return sum((len(times) - SLOTS) / (times[-1] - times[SLOTS - 1]) for times in ended)


def run(inputs: Path, out: Path, processes: int) -> tuple[float, float, float]:
    """Images a second, seconds of the whole command, and those that its processes were computing."""
    command = [sys.executable, "-m", "pulse_framework", "upsample", str(inputs), "-o", str(out), "--quiet", "--device", "cpu"]
    command += ["--steps", str(STEPS), "search.start.draws=1", f"search.slots={SLOTS}", f"trainer.devices={processes}"]
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(  # noqa: S603
        command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    taken = time.perf_counter() - begun
    with contextlib.suppress(ChildProcessError):
        while os.wait():
            pass
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return rate(out, processes), taken, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure, compare, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    assert ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0) == 0, "expected Linux"
    if given.images < 4 * SLOTS:
        parser.error(f"--images: expected at least {4 * SLOTS}, so that each process has two waves of slots, got {given.images}")
    found: dict[int, list[tuple[float, float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as name:
        folder, rng = Path(name), torch.Generator().manual_seed(0)
        (folder / "in").mkdir()
        for index in range(given.images):
            (folder / "in" / f"noise{index:04d}.png").write_bytes(png_bytes(torch.rand(3, 8, 8, generator=rng)))
        for turn in range(given.rounds):
            for processes, rounds in found.items():
                rounds.append(run(folder / "in", folder / f"{turn} {processes}", processes))
                print(turn, processes, *(f"{number:.2f}" for number in rounds[-1]))
            one, two = contents(folder / f"{turn} 1"), contents(folder / f"{turn} 2")
            assert len(one[0]) == 2 * given.images, "expected a picture and latents of every image"
            assert one == two, "expected the same bytes of one process and of two"
    ratios = [two[0] / one[0] for one, two in zip(found[1], found[2], strict=True)]
    rows = "\n".join(
        f"| {processes} | " + " | ".join(f"{statistics.median(column):.2f}" for column in zip(*rounds, strict=True)) + " |"
        for processes, rounds in found.items()
    )
    busy = [statistics.median(column[2] for column in rounds) for rounds in found.values()]
    text = f"""## Two processes over one

`pulse upsample` on {given.images} pictures of 8x8, `faces-stylegan2-64`, {STEPS} steps in each space, with `trainer.devices=1`
and `=2`, each process held to one thread (`OMP_NUM_THREADS=1`), in turn, medians of {given.rounds} rounds. Pictures, latents and
lines are the same, byte for byte. "Images a second" leaves out the start; a whole command of two has both, one after the other.

| processes | images a second | whole command, s | CPU s of all processes |
| --- | --- | --- | --- |
{rows}

Images a second, two over one, round by round: {", ".join(f"{ratio:.2f}" for ratio in ratios)}.
Load at the end {os.getloadavg()[1]:.1f}, this command's own included; two processes get more of {os.cpu_count()} cores
than one does where other work is beside them. By CPU seconds, starts included, two cores of their own would give
{2 * busy[0] / busy[1]:.2f} times the throughput.

{machine()}.
"""
    print(text)
    write_section("processes", text)


if __name__ == "__main__":
    main()
