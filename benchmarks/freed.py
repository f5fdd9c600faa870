"""What it brings to keep freed memory in the process (``trainer.keep_memory``); writes its section of benchmarks/README.md.

Image and gradient with respect to w+ of StyleGAN2, the bundled one and one of random weights with the widths of config F, in
processes that keep what they free and in others that do not, in turn: a process that has begun to keep it does not go back.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import torch
from _readme import machine, write_section

from generators._stylegan2_architecture import Architecture, random_tensors
from generators.stylegan2 import StyleGAN2
from pulse_framework.cli.compose import build_as, load
from pulse_framework.interfaces import Generator
from pulse_framework.memory import keep_freed, resident

CASES = ((64, 1, 60), (64, 8, 20), (256, 4, 5), (1024, 1, 5))
"""Side, images at once, and steps."""
WARM = 3
"""Steps before those that count."""


def network(side: int) -> Generator:
    """The bundled generator, or one of random weights."""
    if side == 64:
        return build_as(Generator, load([]).generator)
    architecture = Architecture(tuple(min(32768 // (4 << index), 512) for index in range(side.bit_length() - 2)))
    return StyleGAN2(random_tensors(architecture), architecture, noise="none")


def measured(side: int, count: int, steps: int) -> dict[str, float]:
    """Of a step: median of its seconds, mean of its page faults; and the megabytes of the process at its largest."""
    generator = network(side)
    rng = torch.Generator().manual_seed(0)
    blocks = [block for block in generator.blocks if block.name == "w_plus" or block.name.startswith("noise_")]
    latents = {block.name: torch.randn(count, *block.shape, generator=rng) for block in blocks}
    latents["w_plus"].requires_grad_()
    seconds, faults = [], []
    for _ in range(WARM + steps):
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        torch.autograd.grad(generator(latents).square().mean(), latents["w_plus"])
        seconds.append(time.perf_counter() - begun)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    largest = resident(largest=True)
    assert largest is not None, "expected Linux, which says what a process has in memory"
    return {"seconds": statistics.median(seconds[WARM:]), "faults": statistics.mean(faults[WARM:]), "largest": largest}


def line(side: int, count: int, steps: int, rounds: int) -> str:
    """A line of the table."""
    runs: dict[str, list[dict[str, float]]] = {"yes": [], "no": []}
    for turn in range(rounds):
        for kept in list(runs)[:: -1 if turn % 2 else 1]:
            command = [sys.executable, __file__, "--kept", kept, "--case", *map(str, (side, count, steps))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
            runs[kept].append(json.loads(done.stdout))
            print(side, count, kept, runs[kept][-1], flush=True)
    ratios = [mine["seconds"] / its["seconds"] for mine, its in zip(runs["yes"], runs["no"], strict=True)]
    cells = [f"{side}x{side}", str(count)]
    for key, shown in (("seconds", ".3f"), ("faults", ",.0f"), ("largest", ",.0f")):
        cells += [f"{statistics.median(run[key] for run in runs[kept]):{shown}}" for kept in ("no", "yes")]
    cells.insert(4, f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Measure, print and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kept", choices=["no", "yes"], help="only measure one case, in this process")
    parser.add_argument("--case", type=int, nargs=3, default=CASES[0])
    given = parser.parse_args()
    if given.kept:
        if given.kept == "yes":
            assert keep_freed(), "expected GNU's C library"
        print(json.dumps(measured(*given.case)))
        return
    table = "\n".join(line(*case, given.rounds) for case in CASES)
    text = f"""## Keeping freed memory

Image and gradient of StyleGAN2 (64x64: `faces-stylegan2-64`; others: random weights, widths of config F), float32, without and
with `trainer.keep_memory`: seconds of a step, the ratio of the two, page faults of a step, and MB (of 2^20 bytes) that the
process had at its largest. Medians of {given.rounds} processes each, in turn; the range of the ratio is that of neighbours.

| image | at once | s, given back | s, kept | ratio | faults, given back | faults, kept | MB, given back | MB, kept |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
{table}

Load at the end {os.getloadavg()[0]:.1f}, this command's own included. {machine()}.
"""
    print(text)
    write_section("freed", text)


if __name__ == "__main__":
    main()
