"""From typing the command to the first picture on the disk; writes its section of benchmarks/README.md.

``pulse upsample`` on one 8 x 8 picture with the default generator, whose weights are there, in processes of their own: with
one step from a single draw, which is what starting costs, and with the settings as they are. Beside it, in the same rounds, the
floor: a process that imports what the command cannot do without, as Python does it, and without looking for garbage on the way
or at its end, as the command does it.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from _readme import machine, write_section

ROUNDS, LONG = 7, 2
"""How often each is measured, and the default search, which takes longest."""
PICTURE = Path(__file__).parents[1] / "examples" / "face.png"
FLOOR = "import pathlib, sys, torch, pytorch_lightning; pathlib.Path(sys.argv[1]).touch()"
COMMAND = ["-m", "pulse_framework", "upsample", "PICTURE", "-o", "FOLDER", "--quiet", "--device", "cpu"]
KINDS = {
    "imports of torch and pytorch_lightning alone": ["-c", FLOOR, "ANSWER"],
    "the same, the garbage collector put aside as the command does": [
        "-c",
        f"import gc; gc.disable(); {FLOOR}; gc.freeze()",
        "ANSWER",
    ],
    "`pulse upsample`, one step": [*COMMAND, "--steps", "1", "search.start.draws=1"],
    "`pulse upsample`, default search": COMMAND,
}
BARE, STEP, WHOLE = list(KINDS)[1:]


def seconds(picture: Path, out: Path, arguments: list[str]) -> tuple[float, float]:
    """Until the file is there, and those that the whole process was computing, however busy the machine."""
    out.mkdir()
    places = {"PICTURE": picture, "FOLDER": out, "ANSWER": out / picture.name}
    command = [sys.executable, *(str(places.get(text, text)) for text in arguments)]
    begun = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:  # noqa: S603
        while not (out / picture.name).exists():
            assert run.poll() is None, "the run ended without a picture"
            time.sleep(0.005)
        taken = time.perf_counter() - begun
        _, run.returncode, used = os.wait4(run.pid, 0)
        assert run.returncode == 0, "the run failed"
    return taken, used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, print and write the table."""
    found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        small, factor = Path(folder) / "small", ["--factor", "8", "--quiet"]
        subprocess.run(  # noqa: S603
            [sys.executable, "-m", "pulse_framework", "degrade", str(PICTURE), "-o", str(small), *factor],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        names = list(KINDS)
        for turn in range(ROUNDS):
            for kind in names[turn % len(names) :] + names[: turn % len(names)]:
                if kind == WHOLE and turn >= LONG:
                    continue
                out = Path(folder) / f"{turn} {names.index(kind)}"
                found[kind].append(seconds(small / PICTURE.name, out, KINDS[kind]))
                print(turn, kind, *(f"{value:.2f}" for value in found[kind][-1]), flush=True)
    rows = []
    for kind, rounds in found.items():
        taken, used = zip(*rounds, strict=True)
        spread = f"{min(taken):.1f} to {max(taken):.1f}"
        rows.append(f"| {kind} | {statistics.median(taken):.1f} | {spread} | {statistics.median(used):.2f} |")
    table = "\n".join(rows)
    own = [step[1] - bare[1] for step, bare in zip(found[STEP], found[BARE], strict=True)]
    scipy = "is" if find_spec("scipy") else "is not"
    text = f"""## From the command to the first picture

Seconds from the start of `pulse upsample` on one 8x8 picture until its answer is on the disk, `faces-stylegan2-64`, weights
there, medians of {ROUNDS} processes: with one step from one draw, which is what starting costs, and with the default search
({LONG} processes). Beside it, in the same rounds, a process that only imports PyTorch and Lightning, which the command cannot
do without.
"Computing" is the CPU time of the whole process, all threads, which tells more than the clock where other work runs beside it
(load at the end, this command's own included: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores).

What one step computes over those imports is {statistics.median(own):.2f} s (median; {min(own):.2f} to {max(own):.2f}): our own
modules, the configuration, the weights, the step and the files. Of the imports a part is `torch._dynamo`, which Lightning
imports, and scipy, which torchmetrics imports where it is installed; here it {scipy}.

| process | seconds | range | computing, s |
| --- | --- | --- | --- |
{table}

{machine()}.
"""
    print(text)
    write_section("startup", text)


if __name__ == "__main__":
    main()
