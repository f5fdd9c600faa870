"""A and its adjoint against PyTorch's own antialiased bicubic downscaling, in one run; writes its section of README.md.

Both sides do the same: downscale, and bring a measurement back to the image's size by the transpose; for PyTorch that is its
backward pass. Rounds of the two alternate.
"""

import statistics
import time
from collections.abc import Callable

import torch
from _readme import machine, write_section
from torch import Tensor
from torch.nn import functional

from degradations.downscale import Downscale

ROUNDS = 41
CASES = ((1024, 32, 1), (1024, 32, 4), (1024, 256, 1), (256, 32, 4), (64, 8, 16))


def ours(x: Tensor, y: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """By the matrices."""
    operator = Downscale(x.shape[-1] // side, library="torch_antialias")
    return operator(x), operator.adjoint(y, (x.shape[1], x.shape[2], x.shape[3]))


def theirs(x: Tensor, y: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """By PyTorch's kernel and its derivative."""
    x = x.requires_grad_()
    small = functional.interpolate(x, (side, side), mode="bicubic", antialias=True, align_corners=False)
    (back,) = torch.autograd.grad(small, x, y)
    return small.detach(), back


def seconds(run: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]], x: Tensor, y: Tensor, side: int) -> float:
    """Wall-clock seconds of one pass there and back."""
    x = x.detach()
    begun = time.perf_counter()
    run(x, y, side)
    return time.perf_counter() - begun


def main() -> None:
    """Measure, print and write the table."""
    rows = []
    for full, side, batch in CASES:
        rng = torch.Generator().manual_seed(0)
        x, y = torch.rand(batch, 3, full, full, generator=rng), torch.rand(batch, 3, side, side, generator=rng)
        for mine, other in zip(ours(x, y, side), theirs(x.clone(), y, side), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
        rounds = [(seconds(ours, x, y, side), seconds(theirs, x, y, side)) for _ in range(ROUNDS)]
        mine, other, ratio = (statistics.median(column) for column in zip(*((a, b, a / b) for a, b in rounds), strict=True))
        rows.append(f"| {full} to {side} | {batch} | {1e3 * other:.2f} | {1e3 * mine:.2f} | {ratio:.2f} |")
        print(rows[-1])
    text = f"""## Downscaling and its adjoint, over PyTorch's

Milliseconds of A and its adjoint, RGB, float32, medians of {ROUNDS} rounds, the two alternating in one process:
`downscale` with `library=torch_antialias`, and `torch.nn.functional.interpolate(mode="bicubic", antialias=True)` with its
derivative. Results agree within 1e-5.

| sides | batch | PyTorch, ms | ours, ms | ratio |
| --- | --- | --- | --- | --- |
"""
    write_section("downscaling", text + "\n".join(rows) + f"\n\n{machine()}.")


if __name__ == "__main__":
    main()
