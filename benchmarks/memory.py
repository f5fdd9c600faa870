"""Memory of a run over very many tiny inputs; writes its section of benchmarks/README.md. It needs Linux.

``pulse upsample`` on pictures of 2 x 2 pixels with a linear generator of 4 x 4, one step each: next to nothing is searched for,
and what the run keeps of every image would show. The resident size of its process is read from ``/proc`` as lines come in.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from _readme import machine, write_section
from safetensors.torch import save_file

from generators.linear import LinearGenerator
from pulse_framework.images import png_bytes
from pulse_framework.memory import resident

SHARES = (0.01, 0.25, 0.5, 0.75, 0.99)


def make(folder: Path, count: int) -> list[str]:
    """Write generator and pictures; returns the arguments that choose them."""
    rng = torch.Generator().manual_seed(0)
    generator = LinearGenerator.fit(torch.rand(64, 3, 4, 4, generator=rng), 6)
    save_file(dict(generator.state_dict()), folder / "linear.safetensors")
    (folder / "in").mkdir()
    for index in range(count):
        (folder / "in" / f"{index:06d}.png").write_bytes(png_bytes(torch.rand(3, 2, 2, generator=rng)))
    return [str(folder / "in"), "--generator", "linear", f"generator.path='{folder / 'linear.safetensors'}'"]


def measured(folder: Path, count: int) -> tuple[list[tuple[int, float]], float, float]:
    """Megabytes when so many images were done, seconds of the whole run, and of the same command again."""
    command = [sys.executable, "-m", "pulse_framework", "upsample", *make(folder, count), "-o", str(folder / "out"), "--quiet"]
    command += ["--steps", "1", "search.start.draws=1"]
    results, sizes = folder / "out" / "results.jsonl", []
    left = [max(1, round(share * count)) for share in SHARES]
    begun, done, offset = time.perf_counter(), 0, 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:  # noqa: S603
        while left and run.poll() is None:
            time.sleep(0.01)
            if results.exists():
                with results.open("rb") as file:
                    file.seek(offset)
                    text = file.read()
                done, offset = done + text.count(b"\n"), offset + len(text)
            if done >= left[0]:
                left.pop(0)
                size = resident(run.pid)
                assert size is not None, "expected Linux, which says what a process has in memory"
                sizes.append((done, size))
        assert run.wait() == 0, "the run failed"
    ended = time.perf_counter()
    lines = results.read_bytes()
    assert len(lines.splitlines()) == count, f"expected {count} results, got {len(lines.splitlines())}"
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    assert results.read_bytes() == lines, "expected nothing to be done again"
    return sizes, ended - begun, time.perf_counter() - ended


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    count = parser.parse_args().images
    with tempfile.TemporaryDirectory() as folder:
        sizes, seconds, again = measured(Path(folder), count)
    rows = "\n".join(f"| {done:,} | {size:.0f} |" for done, size in sizes)
    (first, small), (last, large) = sizes[0], sizes[-1]
    print(rows)
    text = f"""## Memory of a run over {count:,} tiny inputs

Resident megabytes of `pulse upsample` when so many images were done: pictures of 2x2, `linear` of 4x4, one step each.
From the first row to the last it grows by {(large - small) * 2**20 / (last - first):.0f} bytes an image.
{seconds:.0f} seconds in all, {seconds / count * 1e3:.1f} ms an image; the same command again, which finds that all is done, takes
{again:.0f} seconds.

| images | MB |
| --- | --- |
{rows}

{machine()}.
"""
    write_section("memory", text)


if __name__ == "__main__":
    main()
