"""Phases: which blocks move, how one begins where the last ended, and stop rules."""

import math
from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import FlatPrior, GaussianPrior, SpherePrior
from pulse_framework.search import (
    SGD,
    Adam,
    Engine,
    Geocross,
    L2Consistency,
    Objective,
    Phase,
    Search,
    StopRule,
    mse_from_db,
    psnr_db,
)
from pulse_framework.testing.checks import rng, uniform
from pulse_framework.testing.toys import LabelToy, PoolToy, StyleToy

DATA = Objective({"data": L2Consistency()})
PHASE = Phase(prior=FlatPrior(), objective=DATA, optimiser=Adam(rate=0.05), stop=StopRule(steps=12))
Y = uniform((1, 2, 2), 3)


def over(*blocks, **changes):
    return replace(PHASE, blocks=blocks or None, **changes)


def solve(generator, *phases, y=Y, **changes):
    engine = Engine(generator.double(), PoolToy(), phases)
    (result,) = engine.run([replace(Search("image", y), **changes)])
    return engine, result


@pytest.mark.parametrize(
    ("phase", "moved"),
    [
        (over(), ["z"]),
        (over("w_plus"), ["w_plus"]),
        (over("noise", "w"), ["w", "noise"]),
        (replace(PHASE, prior={"noise": GaussianPrior(), "w_plus": FlatPrior()}), ["w_plus", "noise"]),
    ],
)
def test_blocks_that_move(phase, moved):
    assert list(phase.priors(StyleToy())) == moved


class Climber(StyleToy):
    """Declares a ladder."""

    ladder = ("z", "w", "w_plus")


@pytest.mark.parametrize(
    ("steps", "shares"),
    [(300, [("z", 30), ("w", 30), ("w_plus", 240)]), (12, [("z", 1), ("w", 1), ("w_plus", 10)]), (9, [("w_plus", 9)])],
)
def test_ladder_is_climbed_within_the_budget(steps, shares):
    rungs = replace(PHASE, stop=StopRule(steps=steps, target_db=30.0)).on(Climber())
    assert [(*rung.priors(Climber()), rung.stop.steps) for rung in rungs] == shares
    assert all(rung.stop.target_db == 30.0 for rung in rungs)


def test_ladder_is_left_alone_where_blocks_are_named():
    for phase in (over("w"), over(prior={"w": FlatPrior()})):
        (rung,) = phase.on(Climber())
        assert list(rung.priors(Climber())) == ["w"]
        assert rung.stop.steps == 12


def test_climbing_is_the_phases_written_out():
    written = [replace(over(name), stop=StopRule(steps=steps)) for name, steps in zip(Climber.ladder, (2, 2, 16), strict=True)]
    (_, climbed), (_, expected) = solve(Climber(), over(stop=StopRule(steps=20))), solve(Climber(), *written)
    assert climbed.steps == expected.steps == 20
    assert torch.equal(climbed.image, expected.image)
    assert "w_plus" in climbed.latents


def test_terms_that_do_not_apply_are_left_out():
    terms = {"data": L2Consistency(), "cross": Geocross(optional=True)}
    for generator, kept in ((StyleToy(), ["data", "cross"]), (LabelToy(), ["data"])):
        (phase,) = over("z", objective=Objective(terms)).on(generator)
        assert list(phase.objective.terms) == kept
    with pytest.raises(ValueError, match=r"expected a block of shape \(L, D\), got 'w_plus' of \['label', 'z'\]"):
        over("z", objective=Objective({"cross": Geocross()})).on(LabelToy())
    with pytest.raises(ValueError, match=r"expected a block of shape \(L, D\), got 'z'"):
        over("z", objective=Objective({"cross": Geocross(block="z", optional=True)})).on(LabelToy())


def test_label_is_passed_over():
    assert list(PHASE.priors(LabelToy())) == ["z"]


@pytest.mark.parametrize(
    ("generator", "phase", "message"),
    [
        (StyleToy(), over("v"), "expected names among"),
        (StyleToy(), over("z", "w"), "both fill"),
        (LabelToy(), over("label"), "gradient reaches"),
        (StyleToy(), over("z", "noise", prior={"z": FlatPrior()}), "got none for \\['noise'\\]"),
    ],
)
def test_impossible_blocks_are_refused(generator, phase, message):
    with pytest.raises(ValueError, match=message):
        Engine(generator, PoolToy(), [phase])


def test_class_label_is_drawn_once_and_kept():
    _, result = solve(LabelToy(), PHASE)
    assert sorted(result.latents["label"].tolist()) == [0, 0, 1]
    labels = {int(solve(LabelToy(), PHASE, restart=restart)[1].latents["label"].argmax()) for restart in range(12)}
    assert labels == {0, 1, 2}


PATH = [
    (over("z"), {"z", "noise"}),
    (over("w"), {"w", "noise"}),
    (over("w_plus"), {"w_plus", "noise"}),
    (over("noise"), {"w_plus", "noise"}),
    (over("features"), {"w_plus", "noise", "features"}),
]


def test_each_phase_begins_at_the_best_of_the_last():
    """z, w, w+, noise, features: every leg starts at the image where the last one's best was."""
    results = [solve(StyleToy(), *(phase for phase, _ in PATH[: count + 1]))[1] for count in range(len(PATH))]
    steps = PHASE.stop.steps
    for count, (result, (_, blocks)) in enumerate(zip(results, PATH, strict=True)):
        assert set(result.latents) == blocks
        assert result.steps == len(result.trace) == steps * (count + 1)
        torch.testing.assert_close(StyleToy().double()({k: v[None] for k, v in result.latents.items()})[0], result.image)
        if count:
            last = results[count - 1]
            assert torch.equal(result.trace[: len(last.trace)], last.trace)
            assert float(result.trace[len(last.trace), 0]) == pytest.approx(last.objective, rel=1e-12)
            assert result.objective < last.objective


def test_what_does_not_move_stays():
    results = [solve(StyleToy(), *(phase for phase, _ in PATH[: count + 1]))[1] for count in range(len(PATH))]
    assert torch.equal(results[2].latents["noise"], results[0].latents["noise"])
    assert torch.equal(results[3].latents["w_plus"], results[2].latents["w_plus"])
    assert not torch.equal(results[3].latents["noise"], results[2].latents["noise"])


def test_blocks_move_together_each_on_its_manifold():
    prior = {"z": SpherePrior("initial"), "noise": SpherePrior(2.0, ndim=2)}
    _, result = solve(StyleToy(), over(prior=prior))
    assert float(result.latents["noise"].norm()) == pytest.approx(2.0, rel=1e-12)
    _, first = solve(StyleToy(), over(prior=prior, stop=StopRule(steps=1)))
    assert float(result.latents["z"].norm()) == pytest.approx(float(first.latents["z"].norm()), rel=1e-12)
    for name in prior:
        assert (result.latents[name] - first.latents[name]).norm() > 1e-2


def test_target_of_an_early_phase_ends_it_early():
    z = torch.randn(6, generator=rng(4), dtype=torch.float64)
    generator = StyleToy().double()
    image = generator({"z": z[None], "noise": torch.zeros(1, 1, 4, 4, dtype=torch.float64)})
    early = over("z", stop=StopRule(steps=200, target_db=20.0))
    _, alone = solve(StyleToy(), early, y=PoolToy()(image)[0].detach())
    _, both = solve(StyleToy(), early, over("w_plus", stop=StopRule(steps=5)), y=PoolToy()(image)[0].detach())
    assert alone.feasible
    assert alone.steps < 200
    assert both.steps == alone.steps + 5


def test_no_way_back_is_refused():
    with pytest.raises(ValueError, match="can be lifted from"):
        solve(StyleToy(), over("w"), over("z"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "search steps"),
        ({"steps": 5, "target_db": 30.0, "target_mse": 1e-3}, "got both"),
        ({"steps": 5, "target_mse": -1e-3}, "target_mse"),
        ({"steps": 5, "target_mse": math.nan}, "target_mse"),
        ({"steps": 5, "patience": 0}, "patience"),
    ],
)
def test_stop_rule_is_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        StopRule(**settings)


def test_decibels():
    assert psnr_db(1e-3) == pytest.approx(30.0)
    assert psnr_db(0.0) == math.inf
    assert mse_from_db(30.0) == pytest.approx(1e-3)
    assert StopRule(steps=1, target_db=20.0).threshold == pytest.approx(1e-2)
    assert StopRule(steps=1, target_mse=0.0).threshold == 0.0
    assert StopRule(steps=1).threshold < 0


def test_needs_a_phase():
    with pytest.raises(ValueError, match="at least one phase"):
        Engine(StyleToy(), PoolToy(), [])


@pytest.mark.parametrize("y", [torch.zeros(1, 2, 2, dtype=torch.uint8), torch.zeros(1, 2, 2, dtype=torch.int64)])
def test_measurement_must_be_floats(y):
    with pytest.raises(TypeError, match="expected floats"):
        Search("image", y)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_measurement_must_be_finite(bad):
    with pytest.raises(ValueError, match="finite numbers"):
        Search("image", torch.tensor([[[bad, 0.5]]]))


def test_momentum_of_a_phase_starts_afresh():
    """Two phases of n steps with momentum are not one of 2n."""
    phase = over("z", optimiser=SGD(rate=0.5, momentum=0.9))
    longer = replace(phase, stop=StopRule(steps=24))
    _, two = solve(StyleToy(), phase, phase)
    _, one = solve(StyleToy(), longer)
    assert torch.equal(two.trace[:12], one.trace[:12])
    assert not torch.allclose(two.trace[14:], one.trace[14:], rtol=1e-6)


class Deaf(StyleToy):
    """Declares noise that its images do not depend on."""

    def synthesize(self, latents):
        return super().synthesize({**latents, "noise": torch.zeros_like(latents["noise"])})


def test_block_without_influence_is_refused():
    with pytest.raises(ValueError, match=r"phase blocks: expected blocks that the objective depends on, got \['noise'\]"):
        solve(Deaf(), over("w", "noise"))


def test_blocks_beside_move_on_every_rung():
    """As the phases written out with a prior for each block."""
    settings = replace(PHASE, stop=StopRule(steps=30), prior=SpherePrior())
    noise = GaussianPrior()
    got = replace(settings, beside={"noi*": noise}).on(Climber())
    assert [list(phase.priors(Climber())) for phase in got] == [["z", "noise"], ["w", "noise"], ["w_plus", "noise"]]
    assert all(phase.priors(Climber())["noise"] is noise for phase in got)
    written = [
        replace(settings, prior={rung: settings.prior, "noise": noise}, stop=StopRule(steps=steps))
        for rung, steps in zip(Climber.ladder, (3, 3, 24), strict=True)
    ]
    (_, climbed), (_, reference) = solve(Climber(), replace(settings, beside={"noise": noise})), solve(Climber(), *written)
    assert torch.equal(climbed.image, reference.image)
    assert climbed.steps == 30


def test_blocks_beside_join_those_that_are_named():
    (phase,) = over("w", beside={"noise": SpherePrior(2.0)}).on(StyleToy())
    assert list(phase.priors(StyleToy())) == ["w", "noise"]


def test_a_pattern_of_no_block_is_refused():
    with pytest.raises(ValueError, match=r"phase beside: expected patterns of block names among .*got \['maps_\*'\]"):
        over(beside={"maps_*": FlatPrior()}).on(StyleToy())


def test_several_patterns_may_stand_together():
    (phase,) = over("w", beside={"maps_*|noi*": SpherePrior(2.0)}).on(StyleToy())
    assert list(phase.priors(StyleToy())) == ["w", "noise"]


def test_what_is_held_is_lifted_once_and_stays():
    """Features of the best w+ of the first phase; then w+ goes on, and only its second row is seen."""
    first, second = over("w_plus"), replace(over("w_plus"), held=("features",))
    (_, before), (_, after) = solve(StyleToy(), first), solve(StyleToy(), first, second)
    lifted = StyleToy().double().lift({name: value[None] for name, value in before.latents.items()}, "features")[0]
    torch.testing.assert_close(after.latents["features"], lifted)
    assert torch.equal(after.latents["w_plus"][0], before.latents["w_plus"][0])
    assert not torch.equal(after.latents["w_plus"][1], before.latents["w_plus"][1])
    assert after.objective < before.objective


@pytest.mark.parametrize(("held", "message"), [("w", "'w_plus' and 'w' both fill"), ("nope", "got 'nope'")])
def test_what_is_held_has_a_place_of_its_own(held, message):
    with pytest.raises(ValueError, match=message):
        replace(over("w_plus"), held=(held,)).on(StyleToy())
