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
    "pulse_framework.api",
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


def test_the_package_loads_a_name_when_it_is_asked_for():
    """So that the command decides how PyTorch is loaded."""
    ask = """
import sys
import pulse_framework
assert sorted(name for name in sys.modules if name.startswith(("torch", "pulse_framework"))) == ["pulse_framework"]
assert {getattr(pulse_framework, name).__name__ for name in pulse_framework.__all__} == set(pulse_framework.__all__)
assert set(pulse_framework.__all__) <= set(dir(pulse_framework))
assert pulse_framework.priors.SpherePrior
assert not hasattr(pulse_framework, "nothing")
"""
    assert loaded(ask) == []
