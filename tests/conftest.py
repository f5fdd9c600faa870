"""What all tests share."""

import os

import pytest
import torch
from jaxtyping import config, install_import_hook

# Annotations are checked at every call, shapes included; an int is a float, as in PEP 484. Before anything of ours is imported.
install_import_hook(
    [
        "pulse_framework.interfaces",
        "pulse_framework.latents",
        "pulse_framework.manifolds",
        "pulse_framework.priors",
        "pulse_framework.search",
        "generators",
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

# Tensors here are tiny: threads cost more than they bring, above all when several test processes share the cores.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """What is fetched or fitted goes nowhere else, to the processes that tests start neither."""
    os.environ["PULSE_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture
def unchecked():
    """For a test that hands in a wrong type on purpose, to see the plug-in's own message."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
