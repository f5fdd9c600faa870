"""Named latent blocks: choice, checks, native distributions."""

import re

import pytest
import torch

from pulse_framework.latents import LatentBlock, Normal, OneHot, Uniform, check_latents, space
from pulse_framework.testing.checks import rng

STYLE = (
    LatentBlock("z", (4,), slot="style"),
    LatentBlock("w", (4,), slot="style"),
    LatentBlock("w_plus", (2, 4), slot="style"),
    LatentBlock("noise", (1, 3, 3)),
    LatentBlock("features", (2, 3, 3), optional=True),
)


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ((), ["z", "noise"]),
        (("w",), ["w", "noise"]),
        (("noise",), ["z", "noise"]),
        (("features", "w_plus"), ["w_plus", "noise", "features"]),
    ],
)
def test_space_fills_every_slot_once(chosen, expected):
    assert list(space(STYLE, chosen)) == expected


@pytest.mark.parametrize(
    ("chosen", "message"),
    [(("z", "w"), "both fill the slot 'style'"), (("v",), "expected names among"), (("z", "z"), "both fill")],
)
def test_space_refuses(chosen, message):
    with pytest.raises(ValueError, match=message):
        space(STYLE, chosen)


def latents(count=2, **shapes):
    return {name: torch.zeros(count, *shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "given", [{"z": (4,), "noise": (1, 3, 3)}, {"w_plus": (2, 4), "noise": (1, 3, 3), "features": (2, 3, 3)}]
)
def test_full_inputs_are_accepted(given):
    check_latents(STYLE, latents(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "add ['noise', 'z']"),
        ({"z": (4,)}, "add ['noise']"),
        ({"z": (4,), "w": (4,), "noise": (1, 3, 3)}, "both fill"),
        ({"z": (5,), "noise": (1, 3, 3)}, "expected shape (2, 4), got (2, 5)"),
        ({"z": (4,), "noise": (1, 3, 3), "v": (1,)}, "got 'v'"),
    ],
)
def test_other_inputs_are_refused(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_latents(STYLE, latents(**given))


def test_blocks_of_different_length_are_refused():
    with pytest.raises(ValueError, match=re.escape("expected shape (2, 1, 3, 3), got (3, 1, 3, 3)")):
        check_latents(STYLE, latents(2, z=(4,)) | latents(3, noise=(1, 3, 3)))


def test_block_knows_its_size_and_slot():
    assert LatentBlock("z", (2, 3)).slot == "z"
    assert LatentBlock("z", (2, 3)).size == 6
    assert LatentBlock("label", ()).size == 1


@pytest.mark.parametrize(
    ("native", "mean", "variance"), [(Normal(1.0, 2.0), 1.0, 4.0), (Uniform(-1.0, 3.0), 1.0, 4 / 3), (OneHot(), 1 / 4, 3 / 16)]
)
def test_native_distributions_have_their_moments(native, mean, variance):
    x = native.sample((20_000, 4), rng(0))
    assert x.dtype == torch.float32
    assert float(x.mean()) == pytest.approx(mean, abs=0.03)
    assert float(x.var()) == pytest.approx(variance, rel=0.03)
    assert torch.equal(x, native.sample((20_000, 4), rng(0)))


def test_uniform_stays_inside_and_labels_are_unit_vectors():
    x = Uniform(-1.0, 3.0).sample((5000,), rng(0))
    assert -1 <= float(x.min()) < -0.99
    assert 2.99 < float(x.max()) < 3
    label = OneHot().sample((5,), rng(0))
    assert sorted(label.tolist()) == [0, 0, 0, 0, 1]
