"""The main job on real weights: generated faces come back as faces that downscale to them, whatever they are searched beside."""

import pytest
import torch

from pulse_framework.cli.compose import build, load
from pulse_framework.search import Status, draw, stream

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def world():
    config = load(["degradation.factor=8"])
    generator, operator = build(config.generator), build(config.degradation)
    with torch.no_grad():
        drawn = [draw(generator, {}, stream(11, str(i)), torch.zeros(1)) for i in range(37)]
        faces = [operator.measure(generator(latents), stream(11, "noise"))[0] for latents in drawn]
    return generator, operator, faces


def answers(world, faces, *overrides):
    generator, operator, _ = world
    plan = build(load(overrides).search)
    return {answer.key: answer.samples[0] for answer in plan.run(plan.engine(generator, operator), faces)}


def test_generated_faces_are_answered_within_the_target(world):
    """8x8 pixels, as they are in an 8-bit file, with the default search."""
    generator, operator, faces = world
    found = answers(world, [(str(i), face) for i, face in enumerate(faces[:4])])
    for key, result in found.items():
        assert result.status is Status.CONVERGED
        again = generator({name: value[None] for name, value in result.latents.items()})
        torch.testing.assert_close(again[0], result.image, rtol=0, atol=1e-5)
        assert float((operator(again)[0] - faces[int(key)]).square().mean()) <= 10**-2.7 * 1.001


def test_37_faces_are_answered_alike_in_any_batch(world):
    faces = [(str(i), face) for i, face in enumerate(world[2])]
    short = ("search.steps=8", "search.start.draws=1", "search.at_target=false")
    expected = answers(world, faces, *short, "search.slots=37")
    assert len(expected) == 37
    for queue, slots in ((faces, 5), (faces[::-1], 37), (faces[7:8], 1)):
        for key, result in answers(world, queue, *short, f"search.slots={slots}").items():
            assert torch.equal(result.image, expected[key].image), f"{key} in {slots} slots"
