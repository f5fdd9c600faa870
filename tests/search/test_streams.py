"""Random streams: what a start depends on, and what it does not."""

from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from generators.stylegan2 import load
from pulse_framework.latents import LatentBlock
from pulse_framework.priors import SpherePrior
from pulse_framework.search import draw, stream
from pulse_framework.search.streams import nearest_draw
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import LabelToy, LinearToy, PoolToy, StyleToy

GOLDEN = Path(__file__).parents[1] / "golden"
LIKE = torch.empty((), dtype=torch.float64)


def first(*args):
    return int(torch.randint(2**62, (), generator=stream(*args)))


@settings(deadline=None)
@given(st.sets(st.tuples(st.integers(-(2**70), 2**70), st.text(max_size=8), st.integers(0, 99)), min_size=2, max_size=20))
def test_streams_differ_and_repeat(names):
    numbers = {name: first(*name) for name in names}
    assert len(set(numbers.values())) == len(names)
    assert numbers == {name: first(*name) for name in names}


def test_fields_do_not_run_together():
    assert first(1, "2", 3) != first(12, "", 3)
    assert first(1, "a", 11) != first(1, "a1", 1)


def test_stream_of_a_name_never_changes():
    """Recorded: another value would give every user other faces for the seeds they know."""
    assert first(0, "face.png", 0) == 3355213421874680687


def test_draw_is_native_but_for_what_moves():
    z = draw(StyleToy().double(), {"z": SpherePrior(2.0)}, stream(0, "a"), LIKE)
    assert {name: tuple(value.shape) for name, value in z.items()} == {"z": (1, 6), "noise": (1, 1, 4, 4)}
    torch.testing.assert_close(z["z"].norm(), torch.tensor(2.0, dtype=torch.float64), rtol=1e-14, atol=0)
    assert all(value.dtype == torch.float64 and not value.requires_grad for value in z.values())


def test_push_forward_is_drawn_through_the_generator():
    generator = StyleToy().double()
    z = draw(generator, {}, stream(0, "a"), LIKE)["z"]
    for name in ("w", "w_plus"):
        drawn = draw(generator, {}, stream(0, "a"), LIKE, [name])[name]
        assert torch.equal(drawn, generator.lift({"z": z}, name))


@pytest.mark.parametrize("name", ["w", "w_plus"])
def test_push_forward_has_the_label_that_is_drawn_with_it(name):
    generator = load(GOLDEN / "stylegan2_ada_skip.pkl", fit_samples=0)
    for key in ("a", "b", "c"):
        z, drawn = (draw(generator, {}, stream(0, key), torch.empty(()), chosen) for chosen in (["z"], [name]))
        assert torch.equal(drawn["label"], z["label"])
        w = generator.styles.mapping(z["z"], drawn["label"])
        assert torch.equal(drawn[name], w if name == "w" else w[:, None].expand_as(drawn[name]))
        other = generator.styles.mapping(z["z"], drawn["label"].roll(1, 1))
        assert not torch.allclose(w, other)
        assert all(torch.equal(drawn[block], z[block]) for block in drawn if block != name)


def test_block_that_moves_is_drawn_from_its_prior_whatever_is_native():
    generator = StyleToy().double()
    w = draw(generator, {"w": SpherePrior(3.0)}, stream(0, "a"), LIKE)["w"]
    torch.testing.assert_close(w.norm(), torch.tensor(3.0, dtype=torch.float64), rtol=1e-14, atol=0)


def test_draw_does_not_touch_the_global_stream():
    state = torch.get_rng_state()
    draw(LabelToy().double(), {}, stream(0, "a"), LIKE)
    assert torch.equal(torch.get_rng_state(), state)
    assert LatentBlock("z", (1,)).native.sample((1,), stream(0, "a")).shape == (1,)


@pytest.mark.parametrize("count", [1, 5, 40])
@torch.no_grad()
def test_nearest_draw_is_the_nearest_of_so_many(count):
    """By brute force, one at a time; one draw is the first of the stream."""
    generator, degradation, priors = LinearToy().double(), PoolToy(), {"z": SpherePrior()}
    y = uniform((1, 2, 2), 4)
    rng = stream(0, "a")
    drawn = [draw(generator, priors, rng, y) for _ in range(count)]
    errors = [float((degradation(generator(item))[0] - y).square().mean()) for item in drawn]
    got = nearest_draw(generator, degradation, priors, stream(0, "a"), y, count)
    assert torch.equal(got["z"], drawn[min(range(count), key=errors.__getitem__)]["z"])
    assert errors.index(min(errors)) > 0 or count == 1


@torch.no_grad()
def test_nearest_draw_passes_over_what_is_not_finite():
    class Unsteady(LinearToy):
        def synthesize(self, latents):
            return super().synthesize(latents) * torch.where(latents["z"][:, 0] < 0, torch.nan, 1.0)[:, None, None, None]

    for key in "abcd":
        y = uniform((1, 2, 2), 4)
        got = nearest_draw(Unsteady().double(), PoolToy(), {"z": SpherePrior()}, stream(0, key), y, 10)
        assert float(got["z"][0, 0]) > 0
