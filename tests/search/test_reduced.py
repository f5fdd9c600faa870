"""Searches that only reduced precision loses are found in full precision, and say so."""

from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import FlatPrior, SpherePrior
from pulse_framework.search import (
    LBFGS,
    Adam,
    Engine,
    L2Consistency,
    Objective,
    Phase,
    Plan,
    Search,
    Status,
    StopReason,
    StopRule,
)
from pulse_framework.search.rows import RowStepper
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import ConvToy, PoolToy

HALVES = [torch.float16, torch.bfloat16]
PHASE = Phase(
    prior=SpherePrior(), objective=Objective({"data": L2Consistency()}), optimiser=Adam(rate=0.05), stop=StopRule(steps=12)
)


class Fragile(ConvToy):
    """Not finite where some number of the latents is positive, under autocast alone: by overflow, or by a root of rounding."""

    def synthesize(self, latents):
        image, z = super().synthesize(latents), latents["z"]
        ones = torch.ones(2, 2)
        large = (5e4 * z[:, :2].clamp(min=0)) @ ones  # above 65504 only infinity is left in float16
        one = torch.where(z[:, :2] > 0, 0.99903, 0.5) @ ones  # in bfloat16 twice 0.99903 is 2
        return image + 1e-12 * (large.sum(1) + (1.9999 - one.float()).sqrt().sum(1))[:, None, None, None]


def searches(count=6):
    y = uniform((count, 3, 8, 8), 2, torch.float32)
    return [Search(str(number), y[number], index=number) for number in range(count)]


def run(generator, queue=None, phases=(PHASE,), **settings):
    return sorted(Engine(generator, PoolToy(), phases, **settings).run(queue or searches()), key=lambda result: result.index)


def same(got, expected):
    assert (got.key, got.reason, got.step, got.steps) == (expected.key, expected.reason, expected.step, expected.steps)
    assert torch.equal(got.trace, expected.trace)
    assert torch.equal(got.image, expected.image)
    assert torch.equal(got.latents["z"], expected.latents["z"])


def reduced(dtype, *arguments, **settings):
    with torch.autocast("cpu", dtype):
        return run(*arguments, **settings)


@pytest.mark.parametrize("dtype", HALVES)
def test_what_is_lost_is_found_in_full_precision(dtype, caplog):
    full, got = run(Fragile()), reduced(dtype, Fragile())
    again = [result.retried for result in got]
    assert 0 < sum(again) < len(again)
    for one, other in zip(got, full, strict=True):
        assert not other.retried
        assert one.status is Status.BEST_EFFORT
        assert bool(one.image.isfinite().all())
        if one.retried:
            same(one, other)
        else:
            assert not torch.equal(one.trace, other.trace)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{sum(again)} searches were not finite in reduced precision")


@pytest.mark.parametrize("dtype", HALVES)
def test_the_second_try_depends_on_no_neighbour(dtype):
    together = reduced(dtype, Fragile(), slots=4)
    for search, result in zip(searches(), together, strict=True):
        (alone,) = reduced(dtype, Fragile(), [search])
        same(alone, result)
        assert alone.retried == result.retried


def test_autocast_is_as_before_while_answers_are_taken():
    with torch.autocast("cpu", torch.bfloat16):
        for _ in Engine(Fragile(), PoolToy(), [PHASE]).run(searches()):
            assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")


def test_what_is_lost_in_the_first_phase_goes_through_all_again():
    flat = replace(PHASE, prior=FlatPrior(), stop=StopRule(steps=5))
    full, got = run(Fragile(), phases=(PHASE, flat)), reduced(torch.float16, Fragile(), phases=(PHASE, flat))
    lost = [number for number, result in enumerate(got) if result.retried]
    assert lost
    for number in lost:
        same(got[number], full[number])
        assert got[number].steps == 17


class Hopeless(ConvToy):
    """Never finite."""

    calls = 0

    def synthesize(self, latents):
        Hopeless.calls += 1
        return super().synthesize(latents) / 0 * 0


def test_what_fails_twice_stays_failed(caplog):
    Hopeless.calls = 0
    (result,) = reduced(torch.float16, Hopeless(), searches(1))
    assert (result.status, result.reason, result.retried) == (Status.FAILED, StopReason.NON_FINITE, True)
    once = Hopeless.calls
    (result,) = run(Hopeless(), searches(1))
    assert (result.status, result.retried) == (Status.FAILED, False)
    assert Hopeless.calls - once == once / 2


class Spotted(ConvToy):
    """One pixel is not finite: the last."""

    def synthesize(self, latents):
        spot = torch.zeros(16, 16)
        spot[-1, -1] = torch.inf
        return super().synthesize(latents) + spot


class Corner(PoolToy):
    """Sees the upper left quarter alone."""

    def measurement_shape(self, image_shape):
        return 3, 8, 8

    def forward(self, x):
        return x[:, :, :8, :8]


def test_an_image_that_is_not_finite_where_nobody_looks_is_no_answer():
    (result,) = Engine(Spotted(), Corner(), [PHASE]).run(searches(1))
    assert (result.status, result.reason) == (Status.FAILED, StopReason.NON_FINITE)


class NoGradient(torch.autograd.Function):
    """Identity whose gradient is lost under autocast."""

    @staticmethod
    def forward(ctx, x):
        ctx.lost = torch.is_autocast_enabled("cpu")
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * torch.nan if ctx.lost else gradient


class Gradientless(ConvToy):
    def synthesize(self, latents):
        return NoGradient.apply(super().synthesize(latents).float())


def test_a_gradient_that_no_scale_saves_ends_the_search():
    phase = replace(PHASE, stop=StopRule(steps=50))
    (got,) = reduced(torch.float16, Gradientless(), searches(1), phases=(phase,))
    (full,) = run(Gradientless(), searches(1), phases=(phase,))
    assert got.retried
    same(got, full)


class HalfGradient(torch.autograd.Function):
    """Identity whose gradient passes through float16."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.half().to(gradient.dtype)


class Halved(ConvToy):
    def synthesize(self, latents):
        return HalfGradient.apply(super().synthesize(latents).float())


@pytest.mark.parametrize("optimiser", [Adam(rate=0.05), Adam(rate=0.05, riemannian=True), LBFGS()])
def test_a_step_that_overflows_is_skipped_for_that_row_alone(optimiser):
    phase = replace(PHASE, optimiser=optimiser)
    engine = Engine(Halved(), PoolToy(), [phase])
    made = engine.generator
    stepper = RowStepper(made, engine.degradation, phase, engine.starts.priors[0], torch.ones(12, 2), made)
    latents = {"z": phase.prior.manifold.project(uniform((2, 8), 3, torch.float32))}
    y, none = uniform((2, 3, 8, 8), 2, torch.float32), torch.zeros(2)
    rows = stepper.start(latents, y, none - 1, none, torch.zeros(2, 2, dtype=torch.int64))
    with torch.autocast("cpu", torch.float16):
        stepper.step(rows)
        before = {key: value.clone() for key, value in rows.items()}
        rows["scale"][0] = before["scale"][0] = 2.0**40
        stepper.step(rows)
    assert rows["scale"].tolist() == [2.0**39, 2.0**16]
    remembered = [key for key in rows if key.startswith(("latent/", "state/"))]
    assert all(rows[key].dtype == torch.float32 and torch.equal(rows[key][0], before[key][0]) for key in remembered)
    assert not torch.equal(rows["latent/z"][1], before["latent/z"][1])
    assert sum(not torch.equal(rows[key][1], before[key][1]) for key in remembered) > 2
    assert rows["reason"].tolist() == [0, 0]
    with torch.autocast("cpu", torch.float16):
        stepper.step(rows)
    assert rows["scale"].tolist() == [2.0**38, 2.0**16]


def test_restarts_until_success_wait_for_the_second_try():
    """The answer is that of the first restart that meets the target, also where only full precision reaches it."""
    phase = replace(PHASE, stop=StopRule(steps=12, target_mse=1.0))
    plan = Plan(phases=(phase,), restarts=4, until_success=True)
    queue = [(search.key, search.measurement) for search in searches()]

    def answers():
        return {answer.key: answer.samples[0] for answer in plan.run(plan.engine(Fragile(), PoolToy()), queue)}

    full = answers()
    with torch.autocast("cpu", torch.float16):
        got = answers()
    assert {result.restart for result in got.values()} == {result.restart for result in full.values()} == {0}
    assert any(result.retried for result in got.values())
