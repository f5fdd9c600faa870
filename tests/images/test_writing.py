"""Pictures that are written, taken as tensors, found in folders, laid on a sheet, and compared in size."""

import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pulse_framework.grid import grid
from pulse_framework.images import factor_between, read_image, to_tensor, write_png
from pulse_framework.runtime.intake import find_images
from tests.images.drawn import RGB, TRUTH, close, refused


def test_write_png_clamps_and_rounds(file):
    ramp = torch.tensor([[[-1.0, 0, 0.4999 / 255, 0.5001 / 255, 1, 7]]])
    assert write_png(ramp.expand(3, 1, 6).clone().requires_grad_(), file) == file
    close(read_image(file) * 255, torch.tensor([[[0, 0, 0, 1, 255, 255]]]).expand(3, 1, 6))
    write_png(ramp.to(torch.bfloat16), str(file), {"seed": "0", "note": "naïve → 1"})
    with Image.open(file) as image:
        assert image.mode == "L"
        assert image.text == {"seed": "0", "note": "naïve → 1"}


def test_written_pictures_read_back_the_same(file):
    assert torch.equal(read_image(write_png(TRUTH, file)), TRUTH)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, file, monkeypatch):
    write_png(TRUTH, file)
    before = file.read_bytes()

    def fail(self, target, **_):
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        write_png(1 - TRUTH, file)
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    "bad", [torch.zeros(2, 4, 4), torch.zeros(4, 4), torch.zeros(1, 3, 4, 4), torch.full((3, 2, 2), torch.nan)]
)
def test_what_is_no_picture_is_not_written(file, bad):
    with pytest.raises(ValueError, match=r"expected .* got"):
        write_png(bad, file)
    assert not file.exists()


def test_only_floats_are_written(file):
    for bad in (torch.zeros(3, 4, 4, dtype=torch.uint8), np.zeros((3, 4, 4))):
        with pytest.raises(TypeError, match="expected a tensor of floats"):
            write_png(bad, file)


def test_to_tensor_takes_every_kind(file):
    Image.fromarray(RGB).save(file)
    kinds = [file, str(file), Image.fromarray(RGB), RGB, RGB.astype(np.uint16) * 257, RGB / 255, np.float32(RGB) / 255]
    kinds += [RGB[:, ::-1][:, ::-1], (RGB.astype(np.uint16) * 257).astype(">u2"), torch.from_numpy(RGB).movedim(-1, 0)]
    for kind in kinds:
        close(to_tensor(kind), TRUTH)
    grey = RGB[..., 0]
    for kind in (grey, grey[..., None]):
        close(to_tensor(kind), TRUTH[:1].expand(3, -1, -1))
    close(to_tensor(np.concatenate([RGB, np.zeros_like(RGB[..., :1])], 2)), torch.ones(3, 5, 7))
    assert to_tensor(TRUTH) is TRUTH
    assert to_tensor(TRUTH[:1].double()).dtype == torch.float64
    assert to_tensor(TRUTH[:1]).shape == (1, 5, 7)


@pytest.mark.parametrize("bad", [None, 3, [[0.0]], np.zeros((4, 4), int), np.zeros((4, 4), bool), torch.zeros(3, 4, 4).long()])
def test_to_tensor_refuses_other_types(bad):
    with pytest.raises(TypeError, match=r"image: expected .* got"):
        to_tensor(bad)


@pytest.mark.parametrize(
    "bad",
    [
        *(np.zeros((3, 8, 8)), np.zeros(4), torch.zeros(1, 3, 4, 4), torch.zeros(4, 4, 3), torch.zeros(3, 0, 4)),
        *(RGB * 1.0, torch.full((3, 2, 2), -1.0), np.full((2, 2), np.nan)),
    ],
)
def test_to_tensor_refuses_other_shapes_and_ranges(bad):
    with pytest.raises(ValueError, match=r"image.*: expected .* got"):
        to_tensor(bad)


def test_find_images(tmp_path):
    for name in ("b.PNG", "a.jpeg", "sub/c.tif", "sub/deep/d.WebP", ".hidden.png", ".cache/e.png", "notes.txt", "sub/.f.part"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    names = ["a.jpeg", "b.PNG", "sub/c.tif", "sub/deep/d.WebP"]
    assert find_images([tmp_path]) == find_images(str(tmp_path)) == [tmp_path / name for name in names]
    kept = [tmp_path / "notes.txt", tmp_path / "missing.png", tmp_path / ".hidden.png"]
    assert find_images([kept[0], tmp_path / "sub", kept[1], str(kept[2])]) == [
        kept[0],
        *(tmp_path / n for n in names[2:]),
        *kept[1:],
    ]
    assert find_images([tmp_path / ".cache"]) == [tmp_path / ".cache" / "e.png"]
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "got none", find_images)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.scandir", deny)
    refused(tmp_path, "Permission denied", find_images)


def test_grid_places_and_enlarges():
    red = torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 2, 2)
    small = torch.tensor([[[0.0, 1.0], [0.25, 0.5]]])
    large = torch.rand((3, 4, 6), generator=torch.Generator().manual_seed(0))
    sheet = grid([[red, large], [small]], gap=1)
    assert sheet.shape == (3, 9, 13)
    assert torch.equal(sheet[:, :4, 7:], large)
    assert torch.equal(sheet[:, :4, 1:5], red[:, :1, :1].expand(3, 4, 4))  # 2 x 2 becomes 4 x 4, centred in 4 x 6
    enlarged = small.repeat_interleave(2, 1).repeat_interleave(2, 2).expand(3, 4, 4)
    assert torch.equal(sheet[:, 5:, 1:5], enlarged)
    white = torch.ones(9, 13, dtype=torch.bool)
    white[:4, 7:] = white[:4, 1:5] = white[5:, 1:5] = False
    assert (sheet[:, white] == 1).all()
    assert torch.equal(grid([[large * 3 - 1]]), (large * 3 - 1).clamp(0, 1))
    for bad in ([], [[]], [[torch.zeros(4, 4)]]):
        with pytest.raises(ValueError, match="grid: expected"):
            grid(bad)


@given(st.integers(1, 300), st.integers(1, 300))
def test_factor_between_gives_back_the_input_side(side, small):
    if small > side:
        with pytest.raises(ValueError, match="got"):
            factor_between((side, side), (small, small))
    else:
        factor = factor_between((side, side), (small, small))
        assert factor == Fraction(side, small)
        assert side // factor == small


def test_factor_between_axes():
    assert factor_between((64, 64), (10, 10)) == Fraction(32, 5)
    assert factor_between((65, 33), (32, 16)) == Fraction(65, 32)
    for bad in ((16, 8), (32, 17), (0, 0)):
        with pytest.raises(ValueError, match="expected"):
            factor_between((64, 64), bad)


def test_importing_is_cheap():
    heavy = ("pytorch_lightning", "hydra", "torchmetrics", "wandb")
    code = f"import sys, pulse_framework.images; sys.exit(any(name in sys.modules for name in {heavy}))"
    subprocess.run([sys.executable, "-c", code], check=True)
