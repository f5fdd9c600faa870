"""A small world for the command line: a linear generator of 16x16 images, and 4x4 inputs made with it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from degradations.downscale import Downscale
from generators.linear import LinearGenerator
from pulse_framework.cli.app import app
from pulse_framework.images import write_png
from tests.cli.photos import BOX


@dataclass
class Outcome:
    """Of one command."""

    status: int
    out: str
    err: str

    @property
    def error_lines(self):
        return [line for line in self.err.splitlines() if line]


@pytest.fixture(scope="session")
def linear_file(tmp_path_factory):
    rng = torch.Generator().manual_seed(0)
    coarse = torch.randn(36, 1, 4, 4, generator=rng)
    columns = torch.nn.functional.interpolate(coarse, size=(16, 16), mode="bicubic").reshape(12, 3, 16, 16) * 0.12
    generator = LinearGenerator(columns.movedim(0, -1).contiguous(), torch.full((3, 16, 16), 0.5), 0.01)
    path = tmp_path_factory.mktemp("generator") / "linear.safetensors"
    save_file(generator.state_dict(), path)
    return path


@pytest.fixture(scope="session")
def make_inputs(linear_file):
    """Write ``count`` inputs of the generator into a folder; returns their paths."""
    from generators.linear import load

    generator, operator = load(linear_file), Downscale(4)

    def make(folder, count):
        folder.mkdir(parents=True, exist_ok=True)
        rng = torch.Generator().manual_seed(1)
        images = operator(generator({"z": torch.randn(count, 12, generator=rng)}))
        return [write_png(image, folder / f"in{index:02d}.png") for index, image in enumerate(images)]

    return make


@pytest.fixture
def small(tmp_path, make_inputs):
    """Two inputs in a folder of their own."""
    return make_inputs(tmp_path / "inputs", 2)


@pytest.fixture
def linear(linear_file):
    """Options that choose the small generator and a short search."""
    return ["--generator", "linear", f"generator.path='{linear_file}'", "search.start.draws=2", "search.steps=8"]


@pytest.fixture
def pulse():
    """Run a command in this process."""

    def run(*arguments):
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Outcome(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture
def pulse_process():
    """Run a command in a process of its own."""

    def run(*arguments, cwd=None, **environment):
        command = [sys.executable, "-m", "pulse_framework", *map(str, arguments)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=120, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def records():
    """Lines of a folder's ``results.jsonl``."""

    def read(folder):
        return [json.loads(line) for line in (Path(folder) / "results.jsonl").read_text().splitlines()]

    return read


@pytest.fixture
def grey_square():
    """A picture as Pillow makes it."""
    return lambda side, value=90: Image.new("L", (side, side), value)


@pytest.fixture
def boxes(tmp_path):
    """A file with the box of one face, for ``pulse restore``."""
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps([{"box": BOX}]))
    return path
