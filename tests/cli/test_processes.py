"""A run shared out to several processes ends as one of a single process."""

import os
import subprocess
import sys

import torch

from pulse_framework.images import write_png
from tests.cli.test_reliability import contents


def test_two_processes_end_together_with_what_one_writes(pulse, make_inputs, linear, tmp_path):
    """The second has the picture that no face meets, and goes on long after the first."""
    (quick,) = make_inputs(tmp_path / "inputs", 1)
    slow = write_png(torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(0)), tmp_path / "inputs" / "noise.png")
    command = [
        *map(str, ("upsample", quick, slow, *linear)),
        "search.steps=500",
        "--target-db",
        "18",
        "--device",
        "cpu",
        "--quiet",
    ]
    subprocess.run(
        [sys.executable, "-m", "pulse_framework", *command, "-o", tmp_path / "two", "trainer.devices=2"],
        stdout=subprocess.DEVNULL,  # no pipe, which the second would keep open
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=120,
        check=True,
    )
    shared = contents(tmp_path / "two")
    assert pulse(*command, "-o", tmp_path / "one").status == 0
    assert shared == contents(tmp_path / "one")


def test_kept_memory_changes_no_bit(pulse_process, small, tmp_path):
    for kept in ("true", "false"):
        out = tmp_path / kept
        done = pulse_process("upsample", *small, "-o", out, "search.steps=3", f"trainer.keep_memory={kept}", "--device", "cpu")
        assert done.status == 0
    files = [path.name for path in (tmp_path / "true").iterdir() if path.suffix in (".png", ".safetensors")]
    assert len(files) >= 4
    for name in files:
        assert (tmp_path / "true" / name).read_bytes() == (tmp_path / "false" / name).read_bytes(), name
