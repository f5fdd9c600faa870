"""A StyleGAN2 without its finest levels."""

import pytest
import torch

from generators._stylegan2_architecture import Architecture, random_tensors
from generators.stylegan2 import StyleGAN2
from pulse_framework.testing.toys import LinearToy

SIDES = (6, 5, 4)
ROW_COUNT = 2 * len(SIDES)


def tensors(kind="skip", silent=()):
    """Random weights; the layers to RGB of some sides add nothing."""
    made = random_tensors(Architecture(SIDES, z_dim=5, w_dim=7, mapping_layers=2, kind=kind))
    for side in silent:
        made[f"synthesis.b{side}.torgb.weight"] *= 0
        made[f"synthesis.b{side}.torgb.bias"] *= 0
    return made


def network(kind="skip", silent=()):
    return StyleGAN2(tensors(kind, silent), Architecture(SIDES, z_dim=5, w_dim=7, mapping_layers=2, kind=kind))


def full(generator, style="w_plus"):
    rng = torch.Generator().manual_seed(3)
    return {
        block.name: torch.randn((2, *block.shape), generator=rng)
        for block in generator.blocks
        if block.name == style or block.name.startswith("noise_")
    }


@pytest.mark.parametrize(("levels", "silent"), [(1, (16,)), (2, (8, 16))])
def test_it_is_the_network_whose_finest_levels_add_nothing(levels, silent):
    whole, quiet = network(), network(silent=silent)
    latents = full(whole)
    assert torch.equal(whole.truncated(levels)(latents), quiet(latents))
    assert not torch.allclose(whole(latents), quiet(latents), atol=1e-3)


def test_it_has_the_blocks_and_the_image_of_the_whole_and_lifts_as_it_does():
    whole = network()
    coarse = whole.truncated(1)
    latents = full(whole, "z")
    assert (coarse.blocks, coarse.image_shape, coarse.ladder) == (whole.blocks, whole.image_shape, whole.ladder)
    assert torch.equal(coarse.lift(latents, "w_plus"), whole.lift(latents, "w_plus"))


def test_no_gradient_goes_to_the_rows_that_are_left_out():
    coarse = network().truncated(1)
    latents = full(coarse)
    latents["w_plus"].requires_grad_()
    coarse(latents).square().sum().backward()
    reached = latents["w_plus"].grad.abs().amax((0, 2)) > 0
    assert reached.tolist() == [True] * 4 + [False] * (ROW_COUNT - 4)


def test_an_image_that_begins_later_is_refused():
    whole = network()
    latents = full(whole)
    with torch.no_grad():
        latents |= {name: whole.lift(latents, name) for name in ("features_8", "rgb_8")}
    with pytest.raises(ValueError, match=r"expected an input that makes an image of 4 pixels a side, got .*rgb_8"):
        whole.truncated(2)(latents)


@pytest.mark.parametrize(
    ("generator", "levels", "match"),
    [
        (network(), 0, "expected to leave out 1 to 2 levels of those that make images, got 0"),
        (network(), 3, "expected to leave out 1 to 2 levels of those that make images, got 3"),
        (network("resnet"), 1, "expected the architecture skip"),
        (LinearToy(), 1, "LinearToy: expected a generator that adds up images of several sides"),
    ],
)
def test_what_cannot_be_left_out_is_refused(generator, levels, match):
    with pytest.raises(ValueError, match=match):
        generator.truncated(levels)
