"""The engine on worlds with known answers: optimum, best, stop rules, status, what it refuses."""

import math
from dataclasses import replace

import pytest
import torch

from pulse_framework.priors import FlatPrior, GaussianPrior, SpherePrior
from pulse_framework.search import (
    SGD,
    Adam,
    Adamax,
    Engine,
    L1Consistency,
    L2Consistency,
    Linear1CycleDrop,
    Objective,
    Phase,
    PriorEnergy,
    Progress,
    Search,
    Status,
    StopReason,
    StopRule,
    draw,
    stream,
)
from pulse_framework.testing.checks import uniform
from pulse_framework.testing.toys import LinearToy, LinearWorld, PoolToy

DATA = Objective({"data": L2Consistency()})
WORLD = LinearWorld.make()
PHASE = Phase(prior=FlatPrior(), objective=DATA, optimiser=SGD(rate=0.15), stop=StopRule(steps=80))
KEY, Y = WORLD.measurements(1)[0]
SEEN = WORLD.degradation(WORLD.generator({"z": 0.1 * torch.ones(1, 3, dtype=torch.float64)}))[0].detach()


def run(phase=PHASE, y=Y, world=WORLD, **search):
    (result,) = Engine(world.generator, world.degradation, [phase]).run([Search(KEY, y, **search)])
    return result


def stopping(**rule):
    return replace(PHASE, stop=StopRule(**{"steps": 80} | rule))


@pytest.mark.parametrize(
    ("optimiser", "steps"),
    [(SGD(rate=0.15), 200), (SGD(rate=0.1, momentum=0.4), 200), (Adam(rate=0.3), 300), (Adamax(rate=0.3), 300)],
)
@pytest.mark.parametrize(("prior", "energy"), [(FlatPrior(), 0.0), (GaussianPrior(), 0.3)])
def test_reaches_the_closed_form(optimiser, steps, prior, energy):
    objective = Objective({"data": L2Consistency(), "prior": PriorEnergy(weight=energy)}) if energy else DATA
    phase = Phase(
        prior=prior, objective=objective, optimiser=optimiser, stop=StopRule(steps=steps), schedule=lambda fraction: 1 - fraction
    )
    for key, y in WORLD.measurements(3):
        (result,) = Engine(WORLD.generator, WORLD.degradation, [phase]).run([Search(key, y)])
        torch.testing.assert_close(result.latents["z"], WORLD.optimum(y, energy), rtol=0, atol=1e-6)


@pytest.mark.parametrize("riemannian", [False, True])
def test_reaches_the_best_point_of_a_sphere(riemannian):
    """With W orthonormal, the nearest point of the sphere is the unconstrained optimum rescaled."""
    weight = torch.linalg.qr(uniform((16, 3)) - 0.5).Q.reshape(1, 4, 4, 3)
    world = LinearWorld(LinearToy(weight, torch.zeros(1, 4, 4, dtype=torch.float64)), PoolToy(1))
    y = uniform((1, 4, 4), 9)
    phase = Phase(
        prior=SpherePrior(0.7), objective=DATA, optimiser=SGD(rate=2.0, riemannian=riemannian), stop=StopRule(steps=400)
    )
    best = weight.flatten(0, 2).T @ y.flatten()
    result = run(phase, y, world)
    torch.testing.assert_close(result.latents["z"], 0.7 * best / best.norm(), rtol=0, atol=1e-6)


def test_pulse_settings_keep_the_radius_of_the_draw():
    objective = Objective({"data": L2Consistency(weight=100.0, floor=2e-3)})
    phase = Phase(
        prior=SpherePrior("initial"),
        objective=objective,
        optimiser=Adam(rate=0.4),
        stop=StopRule(steps=100),
        schedule=Linear1CycleDrop(),
    )
    start, end = run(replace(phase, stop=StopRule(steps=1))), run(phase)
    torch.testing.assert_close(end.latents["z"].norm(), start.latents["z"].norm(), rtol=1e-12, atol=0)
    assert end.objective < start.objective


def test_l1_reaches_the_median():
    """One constant image: the best grey under L1 is the median of the measurement."""
    world = LinearWorld(LinearToy(torch.ones(1, 1, 5, 1).double(), torch.zeros(1, 1, 5).double()), PoolToy(1))
    y = torch.tensor([[[0.1, 0.2, 0.3, 0.8, 0.9]]], dtype=torch.float64)
    phase = Phase(
        prior=FlatPrior(),
        objective=Objective({"data": L1Consistency()}),
        optimiser=SGD(rate=0.5),
        stop=StopRule(steps=400),
        schedule=lambda fraction: (1 - fraction) ** 3,
    )
    assert float(run(phase, y, world).latents["z"]) == pytest.approx(0.3, abs=1e-3)


def test_budget_is_spent_where_nothing_else_stops():
    result = run(stopping(steps=17))
    assert (result.steps, result.reason, result.status) == (17, StopReason.BUDGET, Status.BEST_EFFORT)
    assert result.trace.shape == (17, 2)


@pytest.mark.parametrize("rule", [{"target_db": 40.0}, {"target_mse": 1e-4}])
def test_target_ends_the_search_at_its_first_iterate(rule):
    result = run(stopping(**rule), SEEN)
    assert (result.reason, result.status, result.feasible) == (StopReason.TARGET, Status.CONVERGED, True)
    assert result.mse <= 1e-4 < float(result.trace[:-1, 1].min())
    assert result.steps == result.step + 1
    assert result.psnr_db == pytest.approx(-10 * math.log10(result.mse))


def test_target_that_does_not_stop_decides_the_status_only():
    through = run(stopping(target_db=40.0, at_target=False), SEEN)
    assert (through.reason, through.status, through.steps) == (StopReason.BUDGET, Status.CONVERGED, 80)
    assert through.mse < 1e-8


def test_unreachable_target_is_best_effort():
    assert run(stopping(target_mse=1e-9)).status is Status.BEST_EFFORT


def test_feasible_iterate_is_kept_before_a_lower_objective():
    """The prior pulls the objective's optimum out of the feasible set, which the search crosses on its way."""
    objective = Objective({"data": L2Consistency(), "prior": PriorEnergy(weight=5.0)})
    phase = Phase(prior=GaussianPrior(), objective=objective, optimiser=SGD(rate=0.01), stop=StopRule(steps=60))
    target = WORLD.degradation(WORLD.generator({"z": torch.ones(1, 3, dtype=torch.float64)}))[0].detach()
    plain = next(
        found for restart in range(50) if 0 < int((found := run(phase, target, restart=restart)).trace[:, 1].argmin()) < 50
    )
    threshold = float(plain.trace[:, 1].min()) * 1.01
    assert plain.mse > threshold
    kept = run(replace(phase, stop=StopRule(steps=60, target_mse=threshold, at_target=False)), target, restart=plain.restart)
    assert kept.feasible
    assert kept.mse <= threshold
    assert kept.objective > plain.objective


def test_patience_counts_steps_without_gain():
    """By hand, from the trace of a search that nothing stops."""
    free = run(stopping(steps=80)).trace[:, 0].tolist()
    reference, age, expected = math.inf, 0, None
    for step, objective in enumerate(free, 1):
        if objective < reference * (1 - 1e-2):
            reference, age = objective, 0
        else:
            age += 1
        if age == 5:
            expected = step
            break
    result = run(stopping(patience=5, tolerance=1e-2))
    assert expected is not None
    assert (result.steps, result.reason, result.status) == (expected, StopReason.STALLED, Status.BEST_EFFORT)


def test_reasons_read_as_sentences():
    assert all(reason.value[0].isupper() and reason.value.endswith(".") for reason in StopReason)


def test_best_is_not_the_last():
    """A rate that diverges: the answer is the best iterate, whole."""
    result = run(replace(PHASE, optimiser=SGD(rate=0.3), stop=StopRule(steps=30)))
    assert result.step < 29
    assert result.objective == float(result.trace[:, 0].min()) == float(result.trace[result.step, 0])
    latents = {name: value[None] for name, value in result.latents.items()}
    torch.testing.assert_close(WORLD.generator(latents)[0].detach(), result.image, rtol=0, atol=1e-12)


def test_first_iterate_is_the_start_of_its_stream():
    one = run(stopping(steps=1), restart=3, seed=5)
    assert (one.step, one.restart, one.seed, one.key) == (0, 3, 5, KEY)
    assert torch.equal(one.trace[0], run(restart=3, seed=5).trace[0])


def test_progress_tells_what_happens():
    seen = []
    engine = Engine(WORLD.generator, WORLD.degradation, [stopping(steps=5)], slots=2, lane=2, observe=seen.append)
    list(engine.run([Search(key, y) for key, y in WORLD.measurements(3)]))
    assert all(isinstance(progress, Progress) for progress in seen)
    assert [(progress.active, progress.finished, progress.evaluations) for progress in seen] == [
        *((2, 0, 2 * step) for step in range(1, 6)),
        *((1, 2, 10 + step) for step in range(1, 6)),
    ]
    best = [progress.psnr_db for progress in seen[:5]]
    assert best == sorted(best)
    assert best[0] < best[-1]


def test_time_is_shared_out():
    engine = Engine(WORLD.generator, WORLD.degradation, [PHASE], slots=2)
    assert all(0 < result.seconds < 60 for result in engine.run([Search(key, y) for key, y in WORLD.measurements(3)]))


def test_weights_get_no_gradient():
    run()
    assert WORLD.generator.weight.grad is None


def test_runs_where_gradients_are_off():
    with torch.no_grad():
        assert torch.equal(run().image, run().image)
        quiet = run()
    assert torch.equal(quiet.image, run().image)
    assert not quiet.image.requires_grad


def test_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode=False"):
        run()


def test_measurement_made_in_inference_mode_is_taken():
    with torch.inference_mode():
        y = Y + 0
    assert torch.equal(run(y=y).image, run().image)


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 4), (1, 8, 8)])
def test_other_measurement_shape_is_refused(shape):
    with pytest.raises(ValueError, match="expected shape \\(1, 4, 4\\)"):
        run(y=torch.zeros(shape, dtype=torch.float64))


def test_operator_that_cannot_take_the_images_is_refused():
    with pytest.raises(ValueError, match="expected sides"):
        Engine(WORLD.generator, PoolToy(3), [PHASE])


@pytest.mark.parametrize("name", ["slots", "lane", "poll_every"])
def test_numbers_are_checked(name):
    with pytest.raises(ValueError, match=f"engine {name}"):
        Engine(WORLD.generator, WORLD.degradation, [PHASE], **{name: 0})


def test_queue_may_reuse_one_buffer():
    """Also where a search waits between two phases while others are read."""
    phases, images = [stopping(target_mse=0.2, steps=30), stopping(steps=3)], WORLD.measurements(6)
    buffer = torch.empty_like(Y)
    reused = (Search(key, buffer.copy_(y), index=index) for index, (key, y) in enumerate(images))
    results = {result.index: result for result in Engine(WORLD.generator, WORLD.degradation, phases, slots=2).run(reused)}
    for index, (key, y) in enumerate(images):
        (alone,) = Engine(WORLD.generator, WORLD.degradation, phases).run([Search(key, y)])
        torch.testing.assert_close(results[index].trace, alone.trace, rtol=1e-9, atol=1e-12)


def test_riemannian_steps_by_hand():
    """Tangent gradient, heavy ball, retraction, and the momentum carried along to the new tangent space."""
    phase = Phase(
        prior=SpherePrior(1.5),
        objective=DATA,
        optimiser=SGD(rate=0.05, momentum=0.8, riemannian=True),
        stop=StopRule(steps=12),
    )
    generator, sphere = WORLD.generator, SpherePrior(1.5).manifold
    z = draw(generator, {"z": SpherePrior(1.5)}, stream(0, KEY), Y)["z"]
    velocity, objectives = torch.zeros_like(z), []
    for _ in range(12):
        z = z.detach().requires_grad_()
        objective = (WORLD.degradation(generator({"z": z})) - Y).square().mean()
        (gradient,) = torch.autograd.grad(objective, z)
        objectives.append(objective.item())
        velocity = 0.8 * velocity + sphere.tangent(z, gradient)
        z = sphere.retract(z, -0.05 * velocity)
        velocity = sphere.tangent(z, velocity)
    assert run(phase).trace[:, 0].tolist() == pytest.approx(objectives, rel=1e-9)
