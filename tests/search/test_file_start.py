"""Searches that begin at files of latents."""

import pytest
import torch
from safetensors.torch import save_file

from pulse_framework.priors import FlatPrior, SpherePrior
from pulse_framework.search import FileStart
from tests.search.test_start import begun, value


@pytest.fixture
def folder(tmp_path):
    """Latents of the image that is searched for, whose key is ``image``, and of another."""
    save_file({"z": value(0), "degradation.sigma": torch.zeros(1)}, tmp_path / "image.safetensors")
    save_file({"w": value(1), "noise": value(2)}, tmp_path / "other.safetensors")
    return tmp_path


def test_a_folder_has_a_file_for_each_image(folder):
    """By stem; lifted to the blocks that move. What is not in it is drawn; unknown parameters of another run do no harm."""
    got, drawn = begun(None, start=FileStart(path=str(folder))), begun(None)
    assert got.keys() == {"w", "noise"}
    assert torch.equal(got["w"], 2 * value(0))
    assert torch.equal(got["noise"], drawn["noise"])


def test_one_file_serves_all_images(folder):
    got = begun(None, {"w": SpherePrior(3.0, ndim=3)}, start=FileStart(path=str(folder / "other.safetensors")))
    torch.testing.assert_close(got["w"], 3 * value(1) / value(1).norm())
    assert torch.equal(got["noise"], value(2))


def test_what_does_not_fit_is_told(folder):
    with pytest.raises(ValueError, match=r"nothing\.safetensors, got: .*give a file that pulse wrote"):
        FileStart(path=str(folder / "nothing.safetensors"))
    (folder / "text.safetensors").write_text("text")
    with pytest.raises(ValueError, match="give a file that pulse wrote"):
        FileStart(path=str(folder / "text.safetensors"))
    with pytest.raises(ValueError, match="FileStart draws: expected 1"):
        FileStart(path=str(folder), draws=2)
    with pytest.raises(ValueError, match=r"other\.safetensors: expected .*\['z', 'noise'\], got .* search\.blocks"):
        begun(None, {"z": FlatPrior()}, start=FileStart(path=str(folder / "other.safetensors")))
    FileStart(path=str(folder)).check(["image", "other.png"])
    FileStart(path=str(folder / "other.safetensors")).check(["nowhere.png"])
    with pytest.raises(ValueError, match=r"nowhere\.safetensors, got: "):
        FileStart(path=str(folder)).check(["image", "nowhere.png"])
    (folder / "image.safetensors").unlink()
    with pytest.raises(ValueError, match=r"image\.safetensors, got: "):
        begun(None, start=FileStart(path=str(folder)))
