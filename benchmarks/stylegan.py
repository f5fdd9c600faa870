"""What folding brings to StyleGAN1 and 2, measured in one run with random weights; writes its section of benchmarks/README.md.

Speed: a forward pass and the gradient with respect to w+ of ``generators.stylegan1`` and ``generators.stylegan2``, and of the
same networks written down plainly (``_reference_stylegan1``, ``_reference_stylegan2``). Rounds of the two alternate, so that
both meet the same machine; the process keeps what it frees, as the commands do. Memory, of StyleGAN2: what both passes add to a
process at their largest, each in one of its own.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import _reference_stylegan1
import _reference_stylegan2
import torch
from _readme import machine, write_section
from torch import Tensor

from generators._stylegan2_architecture import Architecture, random_tensors
from generators.stylegan1 import StyleGAN1, synthesis_network
from generators.stylegan2 import StyleGAN2
from pulse_framework.memory import PeakMemory, keep_freed

Network = Callable[[Tensor], Tensor]

CHANNEL_BASE, CHANNEL_MAX = 16384, 512
SIDE, BATCH, ROUNDS = 256, 4, 7
MEMORY_SIDE, MEMORY_BATCH = 512, 4


def architecture(side: int) -> Architecture:
    """The widths of NVIDIA's networks of 256 x 256."""
    sides = [4 << index for index in range(side.bit_length() - 2)]
    return Architecture(tuple(min(CHANNEL_BASE // r, CHANNEL_MAX) for r in sides))


def step(network: Network, w_plus: Tensor) -> tuple[float, float, Tensor, Tensor]:
    """Wall-clock seconds of the forward pass and of both passes, image and gradient."""
    w_plus = w_plus.clone().requires_grad_()
    begun = time.perf_counter()
    image = network(w_plus)
    forward = time.perf_counter() - begun
    (gradient,) = torch.autograd.grad(image.square().mean(), w_plus)
    return forward, time.perf_counter() - begun, image.detach(), gradient


def stylegan1() -> tuple[Network, Network, Tensor]:
    """StyleGAN1 folded, the same written down plainly, and w+ for them."""
    tensors = _reference_stylegan1.random_tensors(SIDE, CHANNEL_BASE, CHANNEL_MAX)
    network = synthesis_network(tensors, "random")
    generator = StyleGAN1(network, None, (torch.zeros(network.w_dim), torch.ones(network.w_dim))).float()
    rng, rows = torch.Generator().manual_seed(0), len(network.layers)
    w_plus = torch.randn(BATCH, rows, network.w_dim, generator=rng)
    blocks = {block.name: block.shape for block in generator.blocks if block.name.startswith("noise_")}
    noise = {name: torch.randn(BATCH, *shape, generator=rng) for name, shape in blocks.items()}

    def folded(w: Tensor) -> Tensor:
        return 2 * generator({"w_plus": w} | noise) - 1

    def plain(w: Tensor) -> Tensor:
        return _reference_stylegan1.synthesis(tensors, w, [noise[f"noise_{k}"] for k in range(rows)])

    return folded, plain, w_plus


def stylegan2() -> tuple[Network, Network, Tensor]:
    """StyleGAN2 folded, the same written down plainly, and w+ for them."""
    a = architecture(SIDE)
    tensors = random_tensors(a)
    generator = StyleGAN2(tensors, a, noise="stored")
    noise = [getattr(generator, f"noise_{k}") for k in range(a.rows - 1)]
    w_plus = torch.randn(BATCH, a.rows, a.w_dim, generator=torch.Generator().manual_seed(0))

    def folded(w: Tensor) -> Tensor:
        return 2 * generator({"w_plus": w}) - 1

    def plain(w: Tensor) -> Tensor:
        return _reference_stylegan2.synthesis(tensors, w, noise)

    return folded, plain, w_plus


def speed() -> str:
    """The table of times."""
    keep_freed()
    rows, differ = [], []
    for title, make in (("StyleGAN1", stylegan1), ("StyleGAN2", stylegan2)):
        folded, plain, w_plus = make()
        (*_, ours, gradient), (*_, theirs, expected) = step(folded, w_plus), step(plain, w_plus)
        differ.append([float((x - y).abs().max() / y.abs().max()) for x, y in ((ours, theirs), (gradient, expected))])
        rounds = [(step(folded, w_plus)[:2], step(plain, w_plus)[:2]) for _ in range(ROUNDS)]
        for index, name in enumerate(("forward", "forward and backward")):
            pairs = [(f[index], p[index]) for f, p in rounds]
            f, p, ratio = (statistics.median(column) for column in zip(*((f, p, f / p) for f, p in pairs), strict=True))
            low, high = (bound(f / p for f, p in pairs) for bound in (min, max))
            rows.append(f"| {title} | {name} | {p:.2f} | {f:.2f} | {ratio:.3f} | {low:.3f} to {high:.3f} |")
            print(f"{title}, {name}: plain {p:.2f} s, folded {f:.2f} s, ratio {ratio:.3f} ({low:.3f} to {high:.3f})")
    image, slope = (max(column) for column in zip(*differ, strict=True))
    return f"""Seconds at {SIDE} x {SIDE}, batch {BATCH}, channel base {CHANNEL_BASE}, float32: medians of {ROUNDS} rounds, the
two alternating in one process, which keeps what it frees.
The images differ by at most {image:.0e} of the largest value, the gradients by {slope:.0e}.

| network | pass | plain, s | folded, s | ratio | range of the rounds |
| --- | --- | --- | --- | --- | --- |
""" + "\n".join(rows)


def peak(checkpoint: bool) -> float:
    """Gigabytes that a forward and a backward pass add to this process at their largest."""
    a = architecture(MEMORY_SIDE)
    generator = StyleGAN2(random_tensors(a), a, noise="none", checkpoint=checkpoint)
    w_plus = torch.randn(MEMORY_BATCH, a.rows, a.w_dim)
    with PeakMemory() as found:
        step(lambda w: generator({"w_plus": w}), w_plus)
    assert found.added is not None, "expected Linux, which says what a process has in memory"
    return found.added / 1024


def memory() -> str:
    """The table of peaks."""
    sizes = {}
    for word in ("no", "yes"):
        command = [sys.executable, __file__, "--peak", word]
        sizes[word] = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)  # noqa: S603
        print(f"checkpoint {word}: {sizes[word]:.2f} GB")
    return f"""Gigabytes that both passes of StyleGAN2 add to the resident size of a process at their largest,
{MEMORY_SIDE} x {MEMORY_SIDE}, batch {MEMORY_BATCH}:

| `checkpoint: false` | `checkpoint: true` |
| --- | --- |
| {sizes["no"]:.2f} | {sizes["yes"]:.2f} |"""


def main() -> None:
    """Measure, print and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peak", choices=["no", "yes"], help="only print the peak memory, with a checkpoint or without")
    chosen = parser.parse_args().peak
    if chosen:
        print(peak(chosen == "yes"))
        return
    parts = ["## StyleGANs folded, over the same networks written down plainly", speed(), memory(), f"{machine()}."]
    write_section("stylegan", "\n\n".join(parts))


if __name__ == "__main__":
    main()
