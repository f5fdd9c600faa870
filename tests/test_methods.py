"""Experiments that are methods of others: the constants are the published ones."""

import pytest

from pulse_framework.cli.compose import build, load
from pulse_framework.search import NGD, SGD, Adam, JitteredAdam, L2Consistency, Linear1CycleDrop


def test_pulse_is_what_was_published():
    config = load(["experiment=pulse"])
    plan = build(config.search)
    (phase,) = plan.phases
    stop = phase.stop
    assert (stop.steps, stop.target_mse, stop.target_db, stop.at_target, stop.patience) == (100, 2e-3, None, False, None)
    assert (plan.start.draws, plan.restarts, plan.samples) == (1, 1, 1)
    assert isinstance(phase.optimiser, Adam)
    assert phase.optimiser.rate == 0.4
    assert isinstance(phase.schedule, Linear1CycleDrop)
    assert phase.prior.manifold.radius == "initial"
    (term,) = phase.objective.terms.values()
    assert isinstance(term, L2Consistency)
    assert (term.weight, term.floor) == (100.0, 2e-3)


PUBLISHED = {
    "brgm": (["w_plus"], [(Adam, 0.1, 501)], {"consistency": 65.0, "features": 1.25, "style": 200.0, "cosine": 32.4}),
    "ii2s": (["w_plus"], [(Adam, 0.01, 1300)], {"consistency": 1.0, "features": 1.0, "style": 0.001}),
    "l_brgm": (
        ["z", "w_plus", "z_anchor"],
        [(Adam, 0.1, 1), (Adam, 0.1, 2000)],
        {"consistency": 13.0, "features": 2.5, "coupling": 30.0, "z": 0.4},
    ),
    "rusir": (["w", "w_plus", "w_plus_plus"], [(NGD, 0.08, 150), (NGD, 0.02, 150), (NGD, 0.005, 150)], {"features": 1.0}),
    "stylegan2_projector": (["w"], [(JitteredAdam, 0.1, 1000)], {"features": 1.0, "noise": 1e5}),
    "pti": (["w", "weights"], [(JitteredAdam, 0.01, 450), (Adam, 3e-4, 350)], {"consistency": 4.0, "features": 1.0}),
    "mganprior": (["codes", "alpha"], [(SGD, 1.0, 2000)], {"consistency": 4.0, "features": 0.001}),
    "ilo": (
        ["v_plus", "v_plus", "features_4", "v_plus", "features_8", "v_plus", "features_16"],
        [(Adam, 0.1, 50), (Adam, 0.1, 50), (Adam, 0.1, 25), (Adam, 0.1, 25)],
        {"consistency": 1.0, "features": 1.0},
    ),
}


@pytest.mark.weights
@pytest.mark.parametrize("experiment", PUBLISHED)
def test_methods_are_what_was_published(experiment):
    """Blocks of all phases; optimiser, rate and steps of each; weights of the last, in units of images in [0, 1]."""
    plan = build(load([f"experiment={experiment}"]).search)
    blocks = [name for phase in plan.phases for name in phase.blocks or phase.prior]
    taken = [(type(phase.optimiser), phase.optimiser.rate, phase.stop.steps) for phase in plan.phases]
    weights = {name: term.weight for name, term in plan.phases[-1].objective.terms.items()}
    assert (blocks, taken, weights) == PUBLISHED[experiment]
    assert not any(phase.stop.has_target for phase in plan.phases)


@pytest.mark.weights
def test_pti_ends_at_a_feature_distance_and_rusir_hides_pixels_under_noise():
    first, second = build(load(["experiment=pti"]).search).phases
    assert (first.stop.enough, dict(second.stop.enough)) == (None, {"features": 0.06})
    for phase in build(load(["experiment=rusir"]).search).phases:
        assert (phase.objective.terms["features"].hidden, phase.stop.keep) == ("noise", "last")
