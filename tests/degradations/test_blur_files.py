"""PSFs read from files."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from degradations.blur import load
from pulse_framework.testing import LinearDegradationContract


def numbers(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_psf_from_a_file(tmp_path):
    k = numbers(4, 5)
    np.save(tmp_path / "k.npy", k.numpy())
    save_file({"k": k}, tmp_path / "k.safetensors")
    levels = (k * 255).round().to(torch.uint8)
    Image.fromarray(levels.numpy()).save(tmp_path / "k.png")
    np.save(tmp_path / "levels.npy", levels.numpy())
    for name, expected in (("k.npy", k), ("k.safetensors", k), ("k.png", levels.double()), ("levels.npy", levels.double())):
        blur = load(tmp_path / name, "zero")
        torch.testing.assert_close(blur.psf, expected / expected.sum(), rtol=0, atol=1e-7)
        assert blur.boundary == "zero"


def test_files_without_a_psf(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        load(tmp_path / "none.npy")
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "text.png").write_text("no picture")
    save_file({"a": numbers(2, 2), "b": numbers(2, 2)}, tmp_path / "two.safetensors")
    np.save(tmp_path / "complex.npy", np.ones((2, 2), complex))
    for name in ("text.npy", "text.png", "two.safetensors", "complex.npy"):
        with pytest.raises(ValueError, match=rf"{name}: expected one PSF .*make it anew"):
            load(tmp_path / name)
    np.save(tmp_path / "black.npy", np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"black\.npy: Blur psf"):
        load(tmp_path / "black.npy")


class TestLoaded(LinearDegradationContract):
    image_shapes = ((3, 5, 7),)
    keeps_constants = True

    @pytest.fixture(autouse=True)
    def file(self, tmp_path):
        self.path = tmp_path / "k.npy"
        np.save(self.path, numbers(2, 3).numpy())

    def make(self):
        return load(self.path, "circular")
