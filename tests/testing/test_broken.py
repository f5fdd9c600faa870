"""Every law of every suite is seen to fail, on a plug-in that breaks it."""

import itertools
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pulse_framework.manifolds import Sphere
from pulse_framework.priors import FlatPrior
from pulse_framework.search import SGD, Adam, Engine, L2Consistency, Objective, Phase, StopRule
from pulse_framework.testing import (
    DegradationContract,
    EngineContract,
    GeneratorContract,
    LinearDegradationContract,
    ManifoldContract,
    PriorContract,
)
from pulse_framework.testing.broken import degradations, engines, generators, manifolds, priors
from pulse_framework.testing.toys import LinearToy, PoolToy, StyleToy

PHASE = Phase(
    prior=FlatPrior(), objective=Objective({"data": L2Consistency()}), optimiser=SGD(rate=0.15), stop=StopRule(steps=80)
)
WILD = replace(PHASE, optimiser=Adam(rate=1.0))


class Generators(GeneratorContract):
    def oracle(self, latents):
        return 1.001 * LinearToy().double()(latents)


class Operators(LinearDegradationContract):
    keeps_constants = True

    def oracle(self, x):
        return 1.001 * PoolToy().double()(x)


class Priors(PriorContract):
    def oracle(self, latent):
        return latent.square().sum(1) / 2


class Spheres(ManifoldContract):
    def oracle(self, x, y):
        return Sphere().distance(x, y)

    def far(self, x, gap):
        sphere = Sphere()
        v = sphere.tangent(x, x.flip(-1))
        step = sphere.retract(x, v * 1e-6)
        apart = gap / sphere.distance(x, step).unsqueeze(-1)
        y = -sphere.retract(x, v * 1e-6 * apart)
        return y, sphere.distance(x, y)


WIDE = partial(Engine, lane=8)  # at its CPU default of one row to a batch, nothing is there to be mixed


class Engines(EngineContract):
    phase = PHASE
    engine = Engine

    def make_phase(self):
        return self.phase

    def make_engine(self, generator, degradation, phases, slots):
        return self.engine(generator, degradation, phases, slots=slots)


def case(suite, law, broken, error=AssertionError, **attributes):
    """One law of one suite, and what fails it."""
    made = {"make": lambda self: broken()} if broken else {}
    return pytest.param(type(suite.__name__, (suite,), made | attributes), law, error, id=f"{suite.__name__}-{law}")


CASES = [
    case(Generators, "test_declared_shapes_are_true", generators.WrongShape),
    case(Generators, "test_refuses_what_is_not_a_full_input", generators.LaxInput),
    case(Generators, "test_row_is_the_same_alone_or_in_a_batch", generators.BatchMean),
    case(Generators, "test_same_input_gives_the_same_image", generators.GlobalDice),
    case(Generators, "test_gradient_reaches_every_searchable_block", generators.DeadNoise),
    case(Generators, "test_gradient_reaches_every_searchable_block", generators.InfiniteSlope),
    case(Generators, "test_nothing_is_altered", generators.InPlaceLatent),
    case(Generators, "test_nothing_is_altered", generators.GlobalDice),
    case(Generators, "test_lift_keeps_the_image", generators.StrangeLift),
    case(Generators, "test_lift_keeps_the_image", generators.NoLift),
    case(Generators, "test_lift_keeps_the_image", StyleToy, lifts=(("w_plus", "w"),)),
    case(Generators, "test_ladder_can_be_climbed", generators.BrokenLadder),
    case(Generators, "test_ladder_can_be_climbed", generators.StuckLadder),
    case(Generators, "test_lift_refuses_an_unknown_block", generators.AliasedLift),
    case(Generators, "test_survives_float64", generators.SinglePrecision),
    case(Generators, "test_survives_another_device", generators.StrayTensor, RuntimeError),
    case(Generators, "test_survives_a_state_dict_round_trip", generators.StaleWeight),
    case(Generators, "test_agrees_with_the_oracle", LinearToy),
    case(Operators, "test_declared_shapes_are_true", degradations.WrongMeasurementShape),
    case(Operators, "test_row_is_the_same_alone_or_in_a_batch", degradations.BatchMeasurement),
    case(Operators, "test_same_image_gives_the_same_measurement", degradations.NoisyPool),
    case(Operators, "test_same_rng_gives_the_same_measure", degradations.StrayDice),
    case(Operators, "test_nothing_is_altered", degradations.CountingPool),
    case(Operators, "test_nothing_is_altered", degradations.StrayDice),
    case(Operators, "test_gradient_is_true", degradations.NoGradientPool, RuntimeError),
    case(Operators, "test_stays_within_the_declared_gap", degradations.QuantisedPool),
    case(Operators, "test_constants_stay_constant", degradations.BrightPool),
    case(Operators, "test_survives_float64", degradations.SinglePool),
    case(Operators, "test_survives_another_device", degradations.StrayPool, RuntimeError),
    case(Operators, "test_agrees_with_the_oracle", PoolToy),
    case(Operators, "test_unknown_parameters_are_as_declared", degradations.NamelessGain),
    case(Operators, "test_unknown_parameters_are_of_their_row", degradations.MeanGain),
    case(Operators, "test_gradient_reaches_every_unknown_parameter", degradations.DeadGain),
    case(Operators, "test_unknown_parameters_keep_their_bounds", degradations.LooseGain, bounds={"gain": (0.0, 2.0)}),
    case(Operators, "test_linear", degradations.SquaredPool),
    case(Operators, "test_adjoint_by_dot_product", degradations.HalfAdjoint),
    case(Operators, "test_adjoint_takes_rows_apart", degradations.CoupledAdjoint),
    case(Priors, "test_sample_lies_on_the_manifold", priors.OffManifold),
    case(Priors, "test_same_rng_gives_the_same_sample", priors.GlobalSample),
    case(Priors, "test_streams_give_different_samples", priors.FixedSample),
    case(Priors, "test_moments_match_theory", priors.OffCentre),
    case(Priors, "test_energy_is_one_number_per_item", priors.BatchEnergy),
    case(Priors, "test_energy_has_a_true_gradient", priors.RootSlope, RuntimeError),
    case(Priors, "test_nothing_is_altered", priors.MemorisingEnergy),
    case(Priors, "test_nothing_is_altered", priors.GlobalSample),
    case(Priors, "test_agrees_with_the_oracle", priors.SteeperEnergy),
    case(Spheres, "test_projection_lands_and_is_idempotent", manifolds.UnscaledProjection),
    case(Spheres, "test_tangent_is_an_orthogonal_projection", manifolds.HalfTangent),
    case(Spheres, "test_tangent_vectors_touch", manifolds.AmbientTangent),
    case(Spheres, "test_retraction_agrees_to_first_order", manifolds.DoubleStep),
    case(Spheres, "test_retraction_stays_on", manifolds.LooseStep),
    case(Spheres, "test_transport_agrees_with_the_geodesic", manifolds.UntransportedVelocity),
    case(Spheres, "test_transport_keeps_lengths_and_leads_back", manifolds.StraightWay),
    case(Spheres, "test_distance_is_a_distance", manifolds.SelfishDistance),
    case(Spheres, "test_distance_is_right_near_zero", manifolds.ArcCosine),
    case(Spheres, "test_distance_is_right_at_the_far_end", manifolds.ArcCosine),
    case(Spheres, "test_distance_is_right_at_the_far_end", manifolds.ChordDistance),
    case(Spheres, "test_distance_has_finite_gradients", manifolds.BareArcCosine),
    case(Spheres, "test_geodesic_joins_its_ends_at_constant_speed", manifolds.AmbientGeodesic),
    case(Spheres, "test_nothing_is_altered", manifolds.InPlaceStep),
    case(Spheres, "test_agrees_with_the_oracle", manifolds.ChordDistance),
    case(Engines, "test_reaches_the_known_optimum", None, phase=replace(PHASE, stop=StopRule(steps=9))),
    case(Engines, "test_answer_is_one_iterate", None, engine=engines.LastIterate),
    case(Engines, "test_best_is_the_best_of_its_trace", None, engine=engines.LastNumbers, phase=WILD),
    case(Engines, "test_more_steps_are_never_worse", None, engine=engines.LastNumbers, phase=WILD),
    case(Engines, "test_restarts_equal_the_best_of_single_runs", None, engine=engines.ForgottenRestart),
    case(
        Engines, "test_results_ignore_batch_size", None, phase=replace(PHASE, optimiser=engines.BatchNorm(rate=0.15)), engine=WIDE
    ),
    case(Engines, "test_results_ignore_order", None, engine=engines.CountedStart),
    case(Engines, "test_seed_decides_the_start", None, engine=engines.ZeroIsNoSeed),
    case(Engines, "test_every_search_gets_one_answer", None, engine=engines.SilentFailure),
]


@pytest.mark.parametrize(("suite", "law", "error"), CASES)
def test_law_fails_on_what_breaks_it(suite, law, error):
    with pytest.raises(error):
        getattr(suite(), law)()


@pytest.mark.parametrize("suite", [DegradationContract, Generators, Operators, Priors, Spheres, Engines])
def test_every_law_is_seen_to_fail(suite):
    laws = {name for name in dir(suite) if name.startswith("test_")}
    shown = {law for made, law, _ in (param.values for param in CASES) if issubclass(made, suite)}
    assert laws
    assert laws == (shown & laws)


def test_every_broken_plug_in_is_used():
    modules = (degradations, engines, generators, manifolds, priors)
    declared = set(itertools.chain.from_iterable(module.__all__ for module in modules))
    source = Path(__file__).read_text()
    assert {name for name in declared if f".{name}" not in source} == set()
