"""From typing the command to the first picture on the disk; writes its section of benchmarks/README.md.

``pulse upsample`` on one 8 x 8 picture with the default generator, whose weights are there, in processes of their own: with
one step from a single draw, which is what starting costs, and with the settings as they are.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _readme import machine, write_section

ROUNDS = 7
PICTURE = Path(__file__).parents[1] / "examples" / "face.png"
KINDS = {"one step": ["--steps", "1", "search.start.draws=1"], "default search": []}


def seconds(picture: Path, out: Path, extra: list[str]) -> tuple[float, float]:
    """Until the picture is there, and those that the whole process was computing, however busy the machine."""
    command = [sys.executable, "-m", "pulse_framework", "upsample", str(picture), "-o", str(out), "--quiet", "--device", "cpu"]
    begun = time.perf_counter()
    with subprocess.Popen([*command, *extra], stdout=subprocess.DEVNULL) as run:  # noqa: S603
        while not (out / picture.name).exists():
            assert run.poll() is None, "the run ended without a picture"
            time.sleep(0.005)
        taken = time.perf_counter() - begun
        _, run.returncode, used = os.wait4(run.pid, 0)
        assert run.returncode == 0, "the run failed"
    return taken, used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, print and write the table."""
    with tempfile.TemporaryDirectory() as folder:
        small, factor = Path(folder) / "small", ["--factor", "8", "--quiet"]
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "pulse_framework", "degrade", str(PICTURE), "-o", str(small), *factor],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        rounds = [
            [seconds(small / PICTURE.name, Path(folder) / f"{kind} {turn}", extra) for kind, extra in KINDS.items()]
            for turn in range(ROUNDS)
        ]
    columns = list(zip(*rounds, strict=True))
    rows = "\n".join(
        f"| {kind} | {statistics.median(taken):.1f} | {min(taken):.1f} to {max(taken):.1f} | {statistics.median(used):.1f} |"
        for kind, (taken, used) in zip(KINDS, (zip(*column, strict=True) for column in columns), strict=True)
    )
    print(rows)
    text = f"""## From the command to the first picture

Seconds from the start of `pulse upsample` on one 8x8 picture until its answer is on the disk, `faces-stylegan2-64`, weights
there, medians of {ROUNDS} processes: with one step from one draw, which is what starting costs, and with the default search.
"Computing" is the CPU time of the whole process, which tells more than the clock where other work runs beside it.

| search | seconds | range | computing |
| --- | --- | --- | --- |
{rows}

{machine()}.
"""
    write_section("startup", text)


if __name__ == "__main__":
    main()
