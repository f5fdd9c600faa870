"""`pulse degradations`: gaps that are known, every broken operator found, and the table."""

import math

import pytest
import torch

from degradations.jpeg import JPEG
from pulse_framework.cli.check import check
from pulse_framework.cli.compose import choices
from pulse_framework.interfaces import Degradation
from pulse_framework.testing.broken import degradations as broken
from pulse_framework.testing.toys import PoolToy

IMAGE = 0.1 + 0.8 * torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Offset(PoolToy):
    """Measures a hundredth too bright: 40 dB."""

    gap = 0.02

    def measure(self, x, rng):
        return self(x) + 0.01


class Waves(Degradation):
    """Not linear, but smooth."""

    def measurement_shape(self, image_shape):
        return (math.prod(image_shape),)

    def forward(self, x):
        return x.flatten(1).sin()


def checked(operator):
    return check(operator, IMAGE, torch.Generator().manual_seed(1))


def test_known_numbers():
    found = checked(Offset())
    assert found.measured == pytest.approx(0.01, rel=1e-12)
    assert found.margin_db == pytest.approx(20 * math.log10(2), rel=1e-9)
    assert (found.shape, found.linear, found.declared, found.wrong) == ((3, 8, 8), True, 0.02, ())
    assert found.adjoint < 1e-15
    assert found.gradient < 1e-6
    found = checked(Waves())
    assert (found.shape, found.linear, found.adjoint, found.wrong, found.measured) == ((768,), False, None, (), 0)
    assert found.gradient < 1e-6
    found = checked(JPEG(20))
    assert (found.gradient, found.wrong) == (None, ())


BROKEN = {
    "WrongMeasurementShape": "shape",
    "NoisyPool": "A is not deterministic",
    "NoGradientPool": "gradient",
    "QuantisedPool": "gap",
    "HalfAdjoint": "adjoint",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name):
    torch.manual_seed(0)
    assert BROKEN[name] in checked(getattr(broken, name)()).wrong


def test_every_degradation_of_ours_keeps_what_it_declares(pulse):
    done = pulse("degradations", "check", "--side", 32, "--draws", 2)
    assert done.status == 0, done.out
    head, *rows = done.out.splitlines()
    assert head.split() == ["degradation", "measurement", "linear", "gap", "declared", "adjoint", "gradient"]
    left_out = [line.split()[1] for line in done.error_lines]
    assert [row.split()[0] for row in rows] == [name for name in choices("degradation") if name not in left_out]
    assert all(row.split()[-1] == "kept" for row in rows)


def test_one_that_breaks_its_declaration_ends_with_1(pulse, tmp_path):
    (tmp_path / "degradation").mkdir()
    target = "_target_: pulse_framework.testing.broken.degradations."
    (tmp_path / "degradation" / "half.yaml").write_text(f"# An adjoint that is twice too large.\n{target}HalfAdjoint\n")
    done = pulse("degradations", "check", "half", "identity", "--config-dir", tmp_path, "--side", 16)
    assert done.status == 1
    half, identity = done.out.splitlines()[1:]
    assert half.split()[0] == "half"
    assert half.endswith("BROKEN: adjoint")
    assert identity.endswith("kept")
    listed = pulse("degradations", "list", "--config-dir", tmp_path).out.splitlines()
    assert "half\tAn adjoint that is twice too large." in listed
    assert [line.split("\t")[0] for line in listed] == choices("degradation", tmp_path)


def test_settings_and_photo(pulse, small):
    rough = pulse("degradations", "check", "gaussian_noise", "degradation.sigma=0.1", "--side", 64)
    fine = pulse("degradations", "check", "gaussian_noise", "degradation.sigma=0.01", "--image", small[0], "--draws", 8)
    numbers = [done.out.splitlines()[1].split() for done in (rough, fine)]
    assert [row[1] for row in numbers] == ["3x64x64", "3x4x4"]
    assert float(numbers[0][3]) == pytest.approx(20, abs=0.2)
    assert float(numbers[1][3]) == pytest.approx(40, abs=4)


@pytest.mark.parametrize(
    "wrong", ["nope", "bicubic degradation.factor=0", "bicubic degradation.factor=1000", "jpeg --image no.png"]
)
def test_what_cannot_be_checked(wrong, pulse):
    done = pulse("degradations", "check", *wrong.split())
    assert (done.status, done.out, len(done.error_lines)) == (2, "", 1)
