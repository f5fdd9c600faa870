"""What loading the package's search costs over importing torch, each in processes of its own; writes its section of README.md."""

import os
import statistics
import subprocess
import sys

from _readme import machine, write_section

ROUNDS = 9
CODE = """
import time
begun = time.perf_counter()
import torch
between = time.perf_counter()
from pulse_framework import upsample
print(between - begun, time.perf_counter() - between)
"""


def main() -> None:
    """Measure, print and write the table."""
    command = [sys.executable, "-c", CODE]
    rounds = [[float(word) for word in subprocess.check_output(command, text=True).split()] for _ in range(ROUNDS)]  # noqa: S603
    torch_seconds, ours = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"import torch {torch_seconds:.2f} s, then pulse_framework {ours:.3f} s")
    text = f"""## Importing the package

Seconds, medians of {ROUNDS} processes: `import torch`, and `from pulse_framework import upsample` after it.

| torch | pulse_framework |
| --- | --- |
| {torch_seconds:.2f} | {ours:.3f} |

Load at the end {os.getloadavg()[0]:.1f}, this command's own included. {machine()}.
"""
    write_section("imports", text)


if __name__ == "__main__":
    main()
