"""Measurements that are no pictures, from `pulse degrade` to `pulse upsample`."""

import math
import sys
import types

import pytest
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from generators.linear import load
from pulse_framework.images import read_image, write_png
from pulse_framework.interfaces import LinearDegradation


class Sums(LinearDegradation):
    """A vector: sums over squares of 4 pixels, of all channels, too large for a picture."""

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return (image_shape[1] // 4 * (image_shape[2] // 4),)

    def forward(self, x: Float[Tensor, "N C H W"]) -> Tensor:
        return 16 * torch.nn.functional.avg_pool2d(x, 4).sum(1).flatten(1)

    def adjoint(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        blocks = y.unflatten(1, (1, image_shape[1] // 4, image_shape[2] // 4))
        return blocks.repeat_interleave(4, 2).repeat_interleave(4, 3).expand(-1, 3, -1, -1)


class Signed(Sums):
    """Shaped as a picture, but with values that none has."""

    def measurement_shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        return image_shape

    def forward(self, x: Float[Tensor, "N C H W"]) -> Tensor:
        return 2 * x - 1

    def adjoint(self, y: Tensor, image_shape: tuple[int, int, int]) -> Tensor:
        return 2 * y


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Options for these two."""
    module = types.ModuleType("my_operators")
    monkeypatch.setitem(sys.modules, "my_operators", module)
    (tmp_path / "configs" / "degradation").mkdir(parents=True)
    for kind in (Sums, Signed):
        monkeypatch.setattr(kind, "__module__", "my_operators")
        setattr(module, kind.__name__, kind)
        (tmp_path / "configs" / "degradation" / f"{kind.__name__.lower()}.yaml").write_text(
            f"_target_: my_operators.{kind.__name__}"
        )
    return ["--config-dir", tmp_path / "configs", "--allow", "my_operators"]


@pytest.fixture
def photo(tmp_path, linear_file):
    z = torch.randn(1, 12, generator=torch.Generator().manual_seed(2))
    return write_png(load(linear_file)({"z": z})[0], tmp_path / "photo.png")


@pytest.mark.parametrize("kind", [Sums, Signed])
def test_from_a_photo_to_an_answer(kind, pulse, records, photo, own, linear, linear_file, tmp_path):
    name = kind.__name__.lower()
    done = pulse("degrade", photo, "-o", tmp_path / "low", "--degradation", name, *own)
    assert (done.status, done.out) == (0, f"{tmp_path / 'low' / 'photo.safetensors'}\n")
    stored = load_file(tmp_path / "low" / "photo.safetensors")
    assert torch.equal(stored["measurement"], kind()(read_image(photo)[None])[0])
    assert set(stored) == {"measurement"}
    # The search is for that very vector; the folder stands for it, its sidecar is used.
    done = pulse("upsample", tmp_path / "low", "-o", tmp_path / "out", *linear, *own, "--target-db", 60, "search.steps=200")
    assert (done.status, f"used ({name})" in done.err) == (0, True)
    (line,) = records(tmp_path / "out")
    image = load(linear_file)({"z": load_file(tmp_path / "out" / "photo.safetensors")["z"][None]})
    mse = (kind()(image)[0] - stored["measurement"]).square().mean().item()
    assert line["mse"] == pytest.approx(mse, rel=1e-3, abs=1e-9)
    assert line["psnr_db"] == pytest.approx(-10 * math.log10(mse), abs=0.01)
    assert (line["degradation"], line["output"]) == (name, "photo.png")
    assert read_image(tmp_path / "out" / "grid.png").shape[1] == 128
    assert (
        "1 already done"
        in pulse("upsample", tmp_path / "low", "-o", tmp_path / "out", *linear, *own, "--target-db", 60, "search.steps=200").err
    )
    named = pulse("upsample", tmp_path / "low", "-o", tmp_path / "named", *linear, *own, "--degradation", name)
    assert named.status == 0


def test_pictures_and_measurements_of_one_run(pulse, records, photo, small, own, linear, tmp_path):
    pulse("degrade", photo, "-o", tmp_path / "low", "--degradation", "sums", *own)
    done = pulse("upsample", tmp_path / "low", *small, "-o", tmp_path / "out", *linear, *own)
    assert done.status == 0
    assert {line["output"]: line["degradation"] for line in records(tmp_path / "out")} == {
        "photo.png": "sums",
        "in00.png": "bicubic",
        "in01.png": "bicubic",
    }


def test_a_second_degradation_replaces_the_measurement_of_the_first(pulse, photo, own, tmp_path):
    low = tmp_path / "low"
    for name, wanted in (("sums", "photo.safetensors"), ("identity", "photo.png"), ("signed", "photo.safetensors")):
        pulse("degrade", photo, "-o", low, "--degradation", name, *own, "--overwrite")
        assert {path.name for path in low.iterdir()} == {wanted, "photo.degradation.yaml"}


BAD = {
    "latents": (lambda: {"z": torch.zeros(12)}, "expected one tensor named measurement"),
    "two": (lambda: {"measurement": torch.zeros(16), "z": torch.zeros(12)}, "expected one tensor named measurement"),
    "integers": (lambda: {"measurement": torch.zeros(16, dtype=torch.int32)}, "expected finite numbers"),
    "infinite": (lambda: {"measurement": torch.full((16,), torch.inf)}, "expected finite numbers"),
    "short": (lambda: {"measurement": torch.zeros(15)}, "expected numbers of shape (16,)"),
    "matrix": (lambda: {"measurement": torch.zeros(4, 4)}, "expected numbers of shape (16,)"),
    "text": (None, "make it anew"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_measurement_is_refused(name, pulse, records, own, linear, tmp_path):
    make, message = BAD[name]
    path = tmp_path / f"{name}.safetensors"
    save_file(make(), path) if make else path.write_bytes(b"this is no file of tensors")
    done = pulse("upsample", path, "-o", tmp_path / "out", *linear, *own, "--degradation", "sums", "--quiet")
    assert done.status == 2 or records(tmp_path / "out")[0]["status"] == "error"
    assert message in done.err
    assert len(done.error_lines) == 1


def test_a_picture_for_an_operator_that_makes_none(pulse, photo, own, linear, tmp_path):
    done = pulse("upsample", photo, "-o", tmp_path / "out", *linear, *own, "--degradation", "sums", "--quiet")
    assert done.status == 2
    assert "give the measurement that `pulse degrade` writes" in done.err


def test_a_measurement_without_its_operator(pulse, photo, own, linear, tmp_path):
    pulse("degrade", photo, "-o", tmp_path / "low", "--degradation", "sums", *own)
    (tmp_path / "low" / "photo.degradation.yaml").unlink()
    done = pulse("upsample", tmp_path / "low", "-o", tmp_path / "out", *linear, "--quiet")
    assert (done.status, len(done.error_lines)) == (2, 1)


def test_a_measurement_is_not_degraded_again_and_latents_in_a_folder_are_none(pulse, photo, own, linear, tmp_path):
    pulse("degrade", photo, "-o", tmp_path / "low", "--degradation", "sums", *own)
    again = pulse("degrade", tmp_path / "low", "-o", tmp_path / "lower", "--degradation", "identity")
    assert (again.status, "give the original" in again.err) == (2, True)
    assert pulse("sample", "-n", 1, "-o", tmp_path / "drawn", *linear).status == 0
    done = pulse("degrade", tmp_path / "drawn", "-o", tmp_path / "drawn low", "--degradation", "sums", *own)
    assert done.status == 0
    assert str(tmp_path / "drawn low" / "sample_0000.safetensors") in done.out.splitlines()
    assert len(done.out.splitlines()) == len(list((tmp_path / "drawn").glob("*.png")))
