"""A 1024 x 1024 StyleGAN2 of random weights, searched from the command line; writes its section of benchmarks/README.md.

The checkpoint is written as safetensors (config F, 30 million trained numbers), inspected, and searched for 20 steps by
``pulse upsample`` on a 32 x 32 picture, each in a process of its own as a user would start it.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _readme import machine, write_section
from safetensors.torch import save_file

from generators._stylegan2_architecture import Architecture, random_tensors

PICTURE = Path(__file__).parents[1] / "examples" / "face.png"


def pulse(*arguments: object) -> tuple[float, str]:
    """Seconds of a command, and what it printed."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "pulse_framework", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return time.perf_counter() - begun, done.stdout


def main() -> None:
    """Write, inspect, search, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    sides = [4 << index for index in range(given.side.bit_length() - 2)]
    metadata = {"family": "stylegan2", "z_dim": "512", "w_dim": "512", "img_resolution": str(given.side), "architecture": "skip"}
    with tempfile.TemporaryDirectory() as folder:
        weights, out = Path(folder) / "weights.safetensors", Path(folder) / "out"
        tensors = random_tensors(Architecture(tuple(min(32768 // side, 512) for side in sides)))
        save_file(tensors, weights, metadata | {"channel_base": "32768", "channel_max": "512"})
        inspected, _ = pulse("weights", "inspect", weights)
        pulse("degrade", PICTURE, "-o", Path(folder) / "small", "--factor", 4, "--quiet")
        search = [f"search.steps={given.steps}", "search.start.draws=1", "search.at_target=false", "generator.fit_samples=10000"]
        small = Path(folder) / "small" / PICTURE.name
        chosen = ["--generator", "stylegan2", f"generator.path={weights}"]
        seconds, _ = pulse("upsample", small, "-o", out, *chosen, *search, "--quiet", "--device", "cpu")
        (result,) = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    assert result["steps"] == given.steps, f"expected {given.steps} steps, got {result['steps']}"
    print(f"{given.side}: inspect {inspected:.1f} s, upsample {seconds:.1f} s, peak {peak:.2f} GB")
    text = f"""## A StyleGAN2 of {given.side} x {given.side} from the command line

`pulse upsample` with random weights of config F's widths, one 32x32 picture, {given.steps} steps, float32.

| what | |
| --- | --- |
| `pulse weights inspect`, whole process | {inspected:.1f} s |
| `pulse upsample`, whole process | {seconds:.1f} s |
| of which the search | {result["seconds"]:.1f} s, {result["seconds"] / given.steps:.2f} s a step |
| largest resident size | {peak:.2f} GB |

{machine()}.
"""
    write_section("large", text)


if __name__ == "__main__":
    main()
