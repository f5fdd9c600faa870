"""Blind searches: unknown parameters of the operator found together with the image, on worlds with known answers."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from degradations.blind import Blind, Bounded
from degradations.blur import gaussian_blur
from degradations.compose import compose
from degradations.noise import GaussianNoise
from pulse_framework.cli.compose import build, load
from pulse_framework.interfaces import Degradation
from pulse_framework.latents import UNKNOWN, LatentBlock
from pulse_framework.priors import FlatPrior, GaussianPrior, SpherePrior
from pulse_framework.search import (
    SGD,
    Adam,
    Engine,
    Evaluation,
    GaussianLikelihood,
    L2Consistency,
    Linear1CycleDrop,
    NearestDraw,
    Objective,
    Phase,
    Plan,
    PriorEnergy,
    Search,
    Status,
    StopRule,
    draw,
    stream,
)
from pulse_framework.search.joint import Joint, StandardNormal, join
from pulse_framework.testing.checks import rng
from pulse_framework.testing.toys import ConvToy, GainToy, LinearToy, LinearWorld, PoolToy, StyleToy

GAIN = f"{UNKNOWN}gain"
DATA = Objective({"data": L2Consistency()})
WORLD = LinearWorld.make()
PHASE = Phase(prior=FlatPrior(), objective=DATA, optimiser=Adam(rate=0.1), schedule=Linear1CycleDrop(), stop=StopRule(steps=400))


def measured(gain, seed=0):
    """An image of the world and its measurement with a gain; the level of the image, 1/2, tells the gain from its contrast."""
    z = 0.05 * torch.randn((1, 3), generator=rng(seed)).double()
    image = WORLD.generator({"z": z}).detach()
    return image[0], gain * WORLD.degradation(image)[0]


def run(searches, phases=(PHASE,), generator=WORLD.generator, operator=None, **engine):
    found = Engine(generator, operator or GainToy(), phases, **engine).run(searches)
    return sorted(found, key=lambda result: result.index)


@pytest.mark.parametrize("gain", [0.3, 1.0, 1.7])
def test_unknown_gain_of_a_linear_world_is_found(gain):
    image, y = measured(gain)
    (result,) = run([Search("a", y)], start=NearestDraw(draws=64))
    assert result.parameters["gain"] == pytest.approx(gain, rel=1e-5)
    torch.testing.assert_close(result.image, image, rtol=0, atol=1e-5)
    assert result.parameters["gain"] == float(GainToy().unknowns({GAIN: result.latents[GAIN][None]})["gain"])


def test_answer_is_the_operator_at_the_answer():
    _, y = measured(0.6)
    (result,) = run([Search("a", y)], [replace(PHASE, stop=StopRule(steps=9))])
    latents = {name: value[None] for name, value in result.latents.items()}
    degraded = GainToy().at(result.image[None], latents)[0]
    assert result.mse == pytest.approx(float((degraded - y).square().mean()), rel=1e-6)
    assert (degraded - GainToy()(result.image[None])[0]).abs().max() > 1e-3


def test_energy_of_an_unknown_parameter_is_its_own():
    """Half its square, on top of that of the image, and no sphere holds it."""
    objective = Objective({"energy": PriorEnergy(), "data": L2Consistency(weight=1e-12)})
    start = {"z": torch.ones(3).double(), GAIN: torch.tensor([3.0]).double()}
    for prior, energy in ((GaussianPrior(), 1.5 + 4.5), (SpherePrior(), 4.5), (FlatPrior(), 4.5)):
        phase = replace(PHASE, prior=prior, objective=objective, stop=StopRule(steps=1))
        (result,) = run([Search("a", measured(1.0)[1], start=start)], [phase])
        assert result.objective == pytest.approx(energy)
    own = {"z": SpherePrior(), GAIN: FlatPrior()}
    (result,) = run([Search("a", measured(1.0)[1], start=start)], [replace(phase, prior=own)])
    assert result.objective == pytest.approx(0, abs=1e-9)


def test_starts_are_those_of_a_search_that_sees():
    """Unknown parameters are drawn last, so the image begins where it would without them."""
    _, y = measured(1.0)
    priors = PHASE.priors(WORLD.generator)
    joint = join(WORLD.generator, GainToy())
    assert set(PHASE.priors(joint)) == {"z", GAIN}
    assert isinstance(PHASE.priors(joint)[GAIN], StandardNormal)
    seen, blind = draw(WORLD.generator, priors, stream(0, "k"), y), draw(joint, PHASE.priors(joint), stream(0, "k"), y)
    assert torch.equal(blind["z"], seen["z"])
    assert join(WORLD.generator, PoolToy()) is WORLD.generator


def test_nearest_draw_is_nearest_in_both():
    _, y = measured(1.8)
    still = replace(PHASE, optimiser=SGD(rate=1e-12), stop=StopRule(steps=1))
    (result,) = run([Search("a", y)], [still], start=NearestDraw(draws=40))
    joint, random = join(WORLD.generator, GainToy()), stream(0, "a")
    drawn = [draw(joint, PHASE.priors(joint), random, y) for _ in range(40)]
    errors = [float((GainToy().at(joint(one).detach(), one)[0] - y).square().mean()) for one in drawn]
    best = errors.index(min(errors))
    assert result.mse == pytest.approx(errors[best])
    torch.testing.assert_close(result.latents[GAIN], drawn[best][GAIN][0], rtol=0, atol=1e-9)


def test_unknown_parameters_go_from_phase_to_phase():
    """Named in no phase, moved in every one, lifted as they are."""
    y = torch.full((1, 2, 2), 0.9).double()
    first = replace(PHASE, blocks=("w",), stop=StopRule(steps=5))
    still = replace(PHASE, blocks=("w_plus", "noise"), optimiser=SGD(rate=1e-12), stop=StopRule(steps=1))
    generator = StyleToy().double()
    ends = [run([Search("a", y)], phases, generator)[0] for phases in ([first], [first, still])]
    assert set(ends[1].latents) == {"w_plus", "noise", GAIN}
    torch.testing.assert_close(ends[1].latents[GAIN], ends[0].latents[GAIN], rtol=0, atol=1e-9)
    begun = run([Search("a", y)], [replace(first, stop=StopRule(steps=1))], generator)[0]
    assert abs(begun.latents[GAIN] - ends[0].latents[GAIN]) > 0.1


@pytest.mark.parametrize("lane", [None, 4])
def test_bits_do_not_depend_on_the_batch(lane):
    generator = ConvToy()
    searches = [Search(str(k), torch.rand((3, 8, 8), generator=rng(k)), index=k) for k in range(5)]
    phase = replace(PHASE, stop=StopRule(steps=12))
    alone, together = (run(searches, [phase], generator, slots=slots, lane=lane, start=NearestDraw(draws=3)) for slots in (1, 8))
    for one, other in zip(alone, together, strict=True):
        assert one.parameters == other.parameters
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.trace, other.trace)


def test_noise_level_of_a_linear_world_is_the_residual():
    r"""The likelihood's optimum: z by least squares, and \sigma^2 = mse there."""
    operator = compose([PoolToy(), Blind(GaussianNoise, {"sigma": Bounded(0.01, 0.9, "log")})])
    key, y = WORLD.measurements(1)[0]
    optimum = WORLD.optimum(y)[None]
    left = float((WORLD.degradation(WORLD.generator({"z": optimum}).detach())[0] - y).square().mean())
    objective = Objective({"data": GaussianLikelihood(sigma="sigma")})
    (result,) = run([Search(key, y)], [replace(PHASE, objective=objective)], operator=operator, start=NearestDraw(draws=64))
    torch.testing.assert_close(result.latents["z"][None], optimum, rtol=0, atol=1e-3)
    assert result.parameters["sigma"] == pytest.approx(left**0.5, rel=1e-3)


def test_gaussian_likelihood_with_sigma_unknown():
    mse, sigma = torch.tensor([0.04, 0.09]), torch.tensor([0.1, 0.3])
    empty = torch.zeros(2, 1)
    at = Evaluation({}, {}, empty, empty, empty, mse, unknowns={"sigma": sigma})
    got = GaussianLikelihood(sigma="sigma")(at)
    torch.testing.assert_close(got, torch.stack([mse[k] / (2 * sigma[k] ** 2) + sigma[k].log() for k in (0, 1)]))


def test_unknown_noise_asks_for_the_least_of_it():
    operator = compose([PoolToy(), Blind(GaussianNoise, {"sigma": Bounded(0.01, 0.5)})])
    phase = replace(
        PHASE, objective=Objective({"d": GaussianLikelihood(sigma="sigma")}), stop=StopRule(steps=1, target_noise=1.0)
    )
    for result in run([Search(str(k), measured(1.0)[1]) for k in range(4)], [phase], operator=operator):
        assert result.target_mse < 0.03**2


def test_search_gone_astray_fails_and_its_neighbours_do_not_notice():
    class Sick(LinearToy):
        def synthesize(self, latents):
            image = super().synthesize(latents)
            return torch.where(latents["z"][:, :1, None, None] > 0, image, torch.nan)

    generator = Sick(WORLD.generator.weight.detach(), WORLD.generator.bias.detach())
    searches = [Search("a", measured(1.0)[1], restart, index=restart) for restart in range(6)]
    results = run(searches, [replace(PHASE, stop=StopRule(steps=20))], generator, poll_every=7, lane=1)
    assert {result.status for result in results} == {Status.FAILED, Status.BEST_EFFORT}
    for result in results:
        again = run([searches[result.index]], [replace(PHASE, stop=StopRule(steps=20))], generator, slots=1)[0]
        assert torch.equal(again.image, result.image) or result.status is Status.FAILED


@pytest.mark.weights
def test_blur_of_a_generated_face_is_found():
    """A third of the steps of the experiment; its 32 targets are in benchmarks/blind.py."""
    config = load(["experiment=blind", "degradation=blind_gaussian_blur", "search.steps=100", "search.start.draws=32"])
    generator, operator, plan = build(config.generator), build(config.degradation), build(config.search)
    with torch.no_grad():
        face = generator(draw(generator, {}, stream(2, "0"), torch.zeros(1)))
        y = gaussian_blur(0.8).measure(face, torch.Generator())[0]
    (answer,) = plan.run(plan.engine(generator, operator), [("0", y)])
    assert answer.samples[0].parameters["sigma"] == pytest.approx(0.8, rel=0.1)


class Named(GainToy):
    """Its block has another name."""

    def __init__(self, name):
        super().__init__()
        self.blocks = (LatentBlock(name, (1,)),)


def test_names_must_be_the_operators_own():
    class Owner(LinearToy):
        def __init__(self):
            super().__init__()
            self.blocks = (*self.blocks, LatentBlock(GAIN, (1,)))

    with pytest.raises(ValueError, match=r"degradation blocks: expected names that begin with 'degradation\.', got 'gain'"):
        Joint(LinearToy(), Named("gain"))
    with pytest.raises(ValueError, match=r"expected names of their own, got 'degradation\.gain' twice"):
        Joint(Owner(), GainToy())


def test_sigma_must_be_unknown():
    phase = replace(PHASE, objective=Objective({"data": GaussianLikelihood(sigma="sigma")}))
    message = r"GaussianLikelihood sigma: expected a number or one of \['gain'\], got 'sigma'"
    with pytest.raises(ValueError, match=message):
        Engine(LinearToy(), GainToy(), [phase])
    with pytest.raises(ValueError, match=message):
        Plan(phases=[phase]).check(LinearToy(), [GainToy()])


def test_unknown_parameter_that_nothing_depends_on_is_refused():
    operator = compose([PoolToy(), Blind(GaussianNoise, {"sigma": Bounded(0.01, 0.5)})])
    with pytest.raises(ValueError, match=r"expected blocks that the objective depends on, got \['degradation\.sigma'\]"):
        run([Search("a", measured(1.0)[1])], operator=operator)


def test_operator_without_unknowns_sees_no_latents():
    x = torch.rand(2, 1, 4, 4)
    assert torch.equal(PoolToy().at(x, {}), PoolToy()(x))
    assert (PoolToy().unknowns({}), PoolToy().errors({})) == ({}, {})
    assert isinstance(PoolToy().given({}), Degradation)
    assert isinstance(join(LinearToy(), GainToy()), nn.Module)
