"""Who imports whom, as seen by the interpreter."""

import subprocess
import sys

import pytest

FOREIGN = [
    "pytorch_lightning",
    "lightning",
    "hydra",
    "omegaconf",
    "wandb",
    "tensorboard",
    "torchmetrics",
    "face_alignment",
    "dlib",
    "cv2",
    "generators",
    "degradations",
]
PUBLIC = [
    "pulse_framework",
    "pulse_framework.search",
    "pulse_framework.priors",
    "pulse_framework.interfaces",
    "pulse_framework.faces",
]


def loaded(statement):
    """Which foreign packages a fresh interpreter has loaded after the statement."""
    program = f"{statement}\nimport sys\nprint(*sorted({set(FOREIGN)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.split()


@pytest.mark.parametrize("module", PUBLIC)
def test_search_loads_neither_runtime_nor_plug_in(module):
    assert loaded(f"import {module}") == []


def test_a_foreign_import_would_be_seen():
    assert loaded("import generators, omegaconf") == ["generators", "omegaconf"]


def test_contract_suites_load_no_plug_in():
    assert loaded("import pulse_framework.testing, pulse_framework.testing.toys") == []
