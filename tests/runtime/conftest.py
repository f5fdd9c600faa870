"""Inputs of the small searches."""

import pytest
import torch

from degradations.downscale import Downscale
from pulse_framework.images import write_png
from pulse_framework.runtime import MeasurementData
from tests.runtime.small import COUNT, generator


@pytest.fixture
def data(tmp_path):
    (tmp_path / "in").mkdir()
    z = torch.randn(COUNT, 8, generator=torch.Generator().manual_seed(1))
    for index, image in enumerate(Downscale(2)(generator()({"z": z}))):
        write_png(image, tmp_path / "in" / f"{index}.png")
    return MeasurementData([tmp_path / "in"])


@pytest.fixture
def place(data, tmp_path, monkeypatch):
    """The folder of the inputs, and no key of W&B."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "PULSE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    return tmp_path
