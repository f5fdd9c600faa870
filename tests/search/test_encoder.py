"""Encoders: the posterior mean of a linear world, files, and searches that begin at a guess."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from degradations.noise import GaussianNoise
from pulse_framework.priors import GaussianPrior, SpherePrior
from pulse_framework.search import EncoderStart, Engine, L2Consistency, Objective, Phase, Search, StopRule, draw, stream
from pulse_framework.search.encoder import Training, encoder_card, encoder_probes, encoder_tensors, read_encoder, train_encoder
from pulse_framework.search.optimisers import SGD
from pulse_framework.testing.checks import rng
from pulse_framework.testing.toys import LinearToy, PoolToy

SIGMA = 0.08
LIKE = torch.zeros(1)
TRAINING = Training(samples=4000, steps=600, width=64)


def noisy_world():
    """Six numbers, eight measurements, white noise that hides a good part of them."""
    return LinearToy(torch.randn(1, 2, 4, 6, generator=rng(0)) * 0.05), GaussianNoise(SIGMA, bits=None)


def small_world():
    """Twelve numbers, of which sixteen means of pixels tell all."""
    return LinearToy(torch.randn(1, 8, 8, 12, generator=rng(1)) * 0.05), PoolToy(2)


def write(path, generator, operator, priors, training=TRAINING, **about):
    encoder, cosines = train_encoder(generator, operator, priors, LIKE, training)
    tensors = encoder_tensors(encoder, encoder_probes(generator, operator, priors, LIKE))
    save_file(tensors, path, encoder_card(encoder, cosines, about))
    return encoder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A trained encoder of the small world, on its sphere."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    generator, operator = small_world()
    return write(path, generator, operator, {"z": SpherePrior(radius="sqrt_dim")}), path


def engine(start, generator=None, operator=None, prior=None, **options):
    ours = small_world()
    phase = Phase(
        prior=prior or SpherePrior(radius="sqrt_dim"),
        objective=Objective({"data": L2Consistency()}),
        optimiser=SGD(rate=1e-6),
        stop=StopRule(steps=1),
    )
    return Engine(generator or ours[0], operator or ours[1], [phase], start=start, **options)


def searches(count, restarts=1):
    generator, operator = small_world()
    found = []
    for index in range(count):
        z = SpherePrior(radius="sqrt_dim").manifold.project(torch.randn(1, 12, generator=rng(100 + index)))
        y = operator(generator({"z": z}))[0].detach()
        found += [Search(str(index), y, restart, index=index * restarts + restart) for restart in range(restarts)]
    return found


def test_it_learns_the_posterior_mean():
    """Of x = W z + b with white noise: (W'W + sigma^2)^-1 W'(y - b), and its mean square error is the trace of the covariance."""
    generator, operator = noisy_world()
    encoder, cosines = train_encoder(
        generator, operator, {"z": GaussianPrior()}, LIKE, Training(samples=20_000, steps=2000, width=64, held_out=4000)
    )
    w = generator.weight.detach().reshape(8, 6)
    covariance = torch.linalg.inv(w.T @ w / SIGMA**2 + torch.eye(6))
    z = torch.randn(500, 6, generator=rng(7))
    y = operator.measure(generator({"z": z}).detach(), rng(8))
    exact = (y.flatten(1) - 0.5) @ w @ covariance / SIGMA**2
    guess = encoder(y)["z"]
    bayes = float(covariance.trace() / 6)
    assert float((guess - exact).square().mean()) < 0.2 * bayes
    assert float(encoder.spread**2) == pytest.approx(bayes, rel=0.12)
    assert cosines["z"] == pytest.approx(float(torch.nn.functional.cosine_similarity(exact, z).mean()), abs=0.04)


def test_training_is_settled_by_its_settings():
    generator, operator = noisy_world()
    few = Training(samples=100, steps=5, width=8, held_out=10)
    one, other, third = (
        train_encoder(generator, operator, {"z": GaussianPrior()}, LIKE, Training(**{**vars(few), "seed": seed}))[0]
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())
    assert not torch.equal(one.network[0].weight, third.network[0].weight)


def test_a_search_begins_at_the_guess(made):
    encoder, path = made
    prior = SpherePrior(radius="sqrt_dim")
    for result in engine(EncoderStart(path=str(path))).run(searches(3)):
        y = searches(3)[result.index].measurement
        torch.testing.assert_close(result.latents["z"], prior.manifold.project(encoder(y[None])["z"])[0], rtol=1e-5, atol=1e-5)
        drawn = draw(small_world()[0], {"z": prior}, stream(0, result.key), y)
        random = float((small_world()[1](small_world()[0](drawn))[0] - y).detach().square().mean())
        assert result.mse < 0.2 * random


def test_guesses_ignore_the_batch(made):
    _, path = made
    start = EncoderStart(path=str(path), draws=4)
    alone = [next(engine(start, slots=1).run([search])) for search in searches(4, restarts=2)]
    for got in engine(start, slots=8).run(searches(4, restarts=2)[::-1]):
        assert torch.equal(got.latents["z"], alone[got.index].latents["z"])


def test_restarts_are_strewn_about_the_guess_and_more_draws_are_nearer(made):
    _, path = made
    plain, strewn = (engine(EncoderStart(path=str(path), scatter=scatter)).run(searches(1, restarts=4)) for scatter in (0.0, 0.5))
    same, other = ([result.latents["z"] for result in sorted(found, key=lambda r: r.restart)] for found in (plain, strewn))
    assert all(torch.equal(z, same[0]) for z in same)
    assert torch.equal(other[0], same[0])
    assert len({tuple(z.tolist()) for z in other}) == 4
    one, many = (next(engine(EncoderStart(path=str(path), draws=draws)).run(searches(1))).mse for draws in (1, 64))
    assert many <= one


def test_blocks_that_it_cannot_guess_are_drawn(made, tmp_path):
    _, path = made
    encoder, probes, _ = read_encoder(path)
    blind = tmp_path / "blind.safetensors"
    save_file(encoder_tensors(encoder, probes), blind, encoder_card(encoder, {"z": 0.05}, {}))
    (result,) = engine(EncoderStart(path=str(blind))).run(searches(1))
    drawn = draw(small_world()[0], {"z": SpherePrior(radius="sqrt_dim")}, stream(0, "0"), LIKE)
    assert torch.equal(result.latents["z"], drawn["z"][0])


def test_another_generator_degradation_or_prior_is_refused(made):
    _, path = made
    start = EncoderStart(path=str(path))
    generator, _ = small_world()
    generator.bias.data += 0.01
    with pytest.raises(ValueError, match="expected one trained for this generator, degradation and prior"):
        engine(start, generator)
    with pytest.raises(ValueError, match="expected one trained for this generator, degradation and prior"):
        engine(start, prior=GaussianPrior())
    with pytest.raises(ValueError, match=r"expected one from \(1, 2, 2\) to blocks among"):
        engine(start, LinearToy())


def test_files_that_are_no_encoders_are_refused(tmp_path, made):
    _, path = made
    broken = tmp_path / "broken.safetensors"
    for content in (b"", b"hello", path.read_bytes()[:2000]):
        broken.write_bytes(content)
        with pytest.raises(ValueError, match="expected a file that `pulse encoder train` wrote"):
            EncoderStart(path=str(broken))
    for metadata in ({"format": "other"}, {"format": "pulse encoder", "blocks": "{}", "cosines": "{}"}):
        save_file(load_file(path), broken, metadata)
        with pytest.raises(ValueError, match="expected a file that `pulse encoder train` wrote"):
            EncoderStart(path=str(broken))
    with pytest.raises(ValueError, match="expected a file that `pulse encoder train` wrote"):
        EncoderStart(path=str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize("change", [{"samples": 0}, {"steps": 0}, {"rate": 0.0}, {"decay": -1.0}])
def test_settings_are_checked(change):
    with pytest.raises(ValueError, match="encoder "):
        Training(**change)


def test_scatter_is_checked(made):
    with pytest.raises(ValueError, match="scatter"):
        EncoderStart(path=str(made[1]), scatter=-1.0)
