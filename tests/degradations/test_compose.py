"""Composition against applying the parts by hand, and the identity."""

import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from degradations import mask
from degradations.compose import Compose, LinearCompose, compose
from degradations.downscale import Downscale
from degradations.identity import Identity
from degradations.jpeg import JPEG
from pulse_framework.interfaces import Degradation, LinearDegradation
from pulse_framework.testing import DegradationContract, LinearDegradationContract


class Noisy(Degradation):
    """A square whose measurement has noise: not linear, and its draws can be told apart."""

    gap = 0.1

    def measurement_shape(self, image_shape):
        return image_shape

    def forward(self, x):
        return x.square()

    def measure(self, x, rng):
        return self(x) + 0.1 * torch.randn(x.shape, generator=rng, dtype=x.dtype)


class Flat(LinearDegradation):
    """Sums over the image: the measurement is no image."""

    def measurement_shape(self, image_shape):
        return image_shape[:1]

    def forward(self, x):
        return x.sum((2, 3))

    def adjoint(self, y, image_shape):
        return y[:, :, None, None].expand(-1, *image_shape)


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_parts_apply_in_the_order_given():
    x, first, second = images(2, 3, 12, 18), Downscale(2), Noisy()
    a = compose([first, second])
    assert type(a) is Compose
    assert torch.equal(a(x), second(first(x)))
    assert not torch.equal(a(x), first(second(x)))
    assert a.measurement_shape((3, 12, 18)) == (3, 6, 9)


def test_measure_draws_from_one_stream_in_turn():
    x, parts = images(2, 3, 8, 8), [Noisy(), Downscale(2), Noisy()]
    rng = torch.Generator().manual_seed(3)
    expected = x
    for part in parts:
        expected = part.measure(expected, rng)
    assert torch.equal(compose(parts).measure(x, torch.Generator().manual_seed(3)), expected)


def test_adjoint_of_linear_parts():
    a = compose([Downscale("3/2"), Identity(), compose([Downscale(3)]), Flat()])
    assert isinstance(a, LinearCompose)
    shape = (3, 20, 31)
    x, y = images(2, *shape), images(2, *a.measurement_shape(shape), seed=1)
    ax = a(x)
    assert abs((ax * y).sum() - (x * a.adjoint(y, shape)).sum()) <= 1e-13 * ax.norm() * y.norm()


def test_gap_is_the_sum_unless_given():
    parts = [Downscale(2), Noisy(), Downscale(2)]
    assert compose(parts).gap == pytest.approx(0.1 + 1 / 255)
    assert compose(parts, gap=0.2).gap == 0.2
    x = images(4, 3, 32, 32) * 0.5 + 0.25
    a = compose([Downscale(2), Downscale(2)])
    assert (a.measure(x, torch.Generator()) - a(x)).square().mean().sqrt() <= a.gap


def test_a_mask_is_carried_along():
    hole = mask.box(top=2, left=4, height=4, width=3)
    own = hole.mask((3, 12, 12))
    assert compose([Identity(), Noisy()]).mask((3, 12, 12)) is None
    for chain in ([hole], [hole, Noisy()], [Identity(), hole, JPEG(20)], [compose([hole]), Identity()]):
        assert torch.equal(compose(chain).mask((3, 12, 12)), own)
    after = compose([Downscale(2), mask.box(top=0, left=1, height=2, width=2)]).mask((3, 12, 12))
    assert torch.equal(after, mask.box(top=0, left=1, height=2, width=2).mask((3, 6, 6)))
    assert compose([hole, Flat()]).mask((3, 12, 12)) is None


def test_a_pixel_is_observed_if_all_that_it_covers_was():
    """Rows 2 to 5 and columns 4 to 6 are hidden: of blocks of 2 those from 1 to 2 and from 2 to 3, of blocks of 3 more."""
    hole = mask.box(top=2, left=4, height=4, width=3)
    for factor, rows, columns in ((2, slice(1, 3), slice(2, 4)), (3, slice(0, 2), slice(1, 3)), (4, slice(0, 2), slice(1, 2))):
        expected = torch.ones(1, 12 // factor, 12 // factor)
        expected[:, rows, columns] = 0
        assert torch.equal(compose([hole, Downscale(factor)]).mask((3, 12, 12)), expected)
    uneven = compose([hole, Downscale("5/2")])
    known = uneven.mask((3, 12, 12))[0].bool()
    for row, column in ((i, j) for i in range(4) for j in range(4)):  # a sample covers 3 pixels along each side, from 3 i on
        covered = [
            hole.mask((3, 12, 12))[0, p, q] for p in range(3 * row, 3 * row + 3) for q in range(3 * column, 3 * column + 3)
        ]
        assert known[row, column] == all(covered)


def test_masks_of_two_parts_hide_what_either_hides():
    one, two = mask.box(top=0, left=0, height=3, width=3), mask.box(top=2, left=2, height=3, width=3)
    both = one.mask((3, 8, 8)) * two.mask((3, 8, 8))
    a = compose([one, two])
    assert torch.equal(a.mask((3, 8, 8)), both)
    assert torch.equal(a(images(2, 3, 8, 8)), images(2, 3, 8, 8) * both)


def test_a_derivative_that_is_a_stand_in_makes_that_of_the_chain_one():
    assert compose([Downscale(2), JPEG(20)]).surrogate
    assert not compose([Downscale(2), JPEG(20, rounding="cubic"), Noisy()]).surrogate


def test_parameters_and_buffers_of_parts_move_along():
    part = Noisy()
    part.register_buffer("level", torch.zeros(1))
    assert "parts.0.level" in compose([part]).state_dict()


def test_hydra_builds_it_from_a_list():
    config = {
        "_target_": "degradations.compose.compose",
        "parts": [
            {"_target_": "degradations.downscale.Downscale", "factor": "3/2"},
            {"_target_": "degradations.identity.Identity"},
        ],
    }
    built = instantiate(config)
    assert isinstance(built, LinearCompose)
    assert built.measurement_shape((3, 9, 12)) == (3, 6, 8)


def test_wrong_parts_are_refused():
    with pytest.raises(ValueError, match="at least one part"):
        compose([])
    with pytest.raises(TypeError, match="part 1 to be a Degradation, got ReLU"):
        compose([Identity(), nn.ReLU()])
    with pytest.raises(TypeError, match="part 0 to be linear, got Noisy"):
        LinearCompose([Noisy()])
    with pytest.raises(ValueError, match=r"part 1 \(Downscale\)"):
        compose([Flat(), Downscale(2)]).measurement_shape((3, 8, 8))
    with pytest.raises(ValueError, match="smaller factor"):
        compose([Downscale(4), Downscale(4)]).measurement_shape((3, 8, 8))


def test_identity():
    x = images(2, 3, 4, 5)
    a = Identity()
    assert torch.equal(a(x), x)
    assert torch.equal(a.measure(x, torch.Generator()), x)
    assert torch.equal(a.adjoint(x, (3, 4, 5)), x)
    assert a.measurement_shape((3, 4, 5)) == (3, 4, 5)
    assert a.gap == 0
    with pytest.raises(ValueError, match="adjoint"):
        a.adjoint(x, (3, 5, 4))


class TestContract(LinearDegradationContract):
    keeps_constants = True

    def make(self):
        return compose([Downscale(2), Downscale("4/3")])


class TestContractOfANonlinearChain(DegradationContract):
    def make(self):
        return compose([Downscale(2), Noisy()], gap=0.2)


class TestContractOfTheIdentity(LinearDegradationContract):
    keeps_constants = True

    def make(self):
        return Identity()

    def oracle(self, x):
        return x
