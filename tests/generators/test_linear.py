"""Probabilistic PCA against the eigendecomposition of the covariance; its optimum against the objective, solved in other ways."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from degradations.downscale import Downscale
from generators.linear import LinearGenerator, load
from pulse_framework.priors import FlatPrior, GaussianPrior
from pulse_framework.search import Adam, L2Consistency, Linear1CycleDrop, Objective, PriorEnergy, single_phase
from pulse_framework.testing import GeneratorContract

SHAPE, D = (3, 4, 5), 6
SIZE = 60


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(dtype=torch.float64):
    return LinearGenerator(
        torch.randn(*SHAPE, D, generator=rng(), dtype=dtype), torch.rand(SHAPE, generator=rng(1), dtype=dtype), 0.01
    )


def down(x):
    return torch.nn.functional.avg_pool2d(x, (2, 5))


def data(count=200):
    spread = torch.linspace(2, 0.1, SIZE, dtype=torch.float64)
    return (torch.randn(count, SIZE, generator=rng(), dtype=torch.float64) * spread + 0.5).reshape(count, *SHAPE)


def test_image_is_w_z_plus_mu():
    generator, z = toy(), torch.randn(2, D, generator=rng(2), dtype=torch.float64)
    expected = generator.matrix.numpy().reshape(SIZE, D) @ z.numpy().T + generator.mean.numpy().reshape(SIZE, 1)
    np.testing.assert_allclose(generator({"z": z}).numpy().reshape(2, SIZE), expected.T)


def test_fit_has_the_covariance_of_tipping_and_bishop():
    """W W' + sigma^2 I keeps the D largest eigenvalues of the covariance, and averages the others."""
    images = data()
    generator = LinearGenerator.fit(images, D)
    rows = images.flatten(1).numpy()
    values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
    values = np.concatenate([np.full(SIZE - D, values[: SIZE - D].mean()), values[SIZE - D :]])
    W = generator.matrix.numpy().reshape(SIZE, D)
    np.testing.assert_allclose(W @ W.T + generator.noise_variance.item() * np.eye(SIZE), vectors * values @ vectors.T, atol=1e-12)
    np.testing.assert_allclose(generator.mean.flatten().numpy(), rows.mean(0), atol=1e-12)
    assert generator.blocks[0].shape == (D,)
    assert generator.image_shape == SHAPE


def test_fit_of_noiseless_images_is_exact():
    """With no noise and few images every image is generated, by some latent."""
    images = data(D + 1)
    generator = LinearGenerator.fit(images, D)
    assert generator.noise_variance.item() < 1e-25
    torch.testing.assert_close(generator({"z": generator.optimum(lambda x: x, images)}), images)


def test_signs_of_the_columns_are_fixed():
    W = LinearGenerator.fit(data(), D).matrix.reshape(SIZE, D)
    assert (W.gather(0, W.abs().argmax(0, keepdim=True)) > 0).all()


@pytest.mark.parametrize(("count", "latent_dim"), [(4, 4), (100, SIZE), (100, 0)])
def test_fit_needs_enough_images_and_entries(count, latent_dim):
    with pytest.raises(ValueError, match=f"got {latent_dim}; lower it, or give more images"):
        LinearGenerator.fit(data(count), latent_dim)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize(("consistency_weight", "energy_weight"), [(1.0, 0.01), (100.0, 0.5), (3.0, 0.0)])
def test_gradient_of_the_objective_vanishes_at_the_optimum(dtype, tolerance, consistency_weight, energy_weight):
    generator, y = toy(dtype), torch.rand(3, 3, 2, 1, generator=rng(3), dtype=dtype)
    z = generator.optimum(down, y, consistency_weight, energy_weight).requires_grad_()
    assert z.dtype == dtype
    mse = (down(generator({"z": z})) - y).square().flatten(1).mean(1)
    (gradient,) = torch.autograd.grad((consistency_weight * mse + energy_weight * z.square().sum(1) / 2).sum(), z)
    assert gradient.abs().max() < tolerance * consistency_weight


def test_optimum_is_that_of_the_normal_equations():
    generator, y, c, e = toy(), torch.rand(2, 3, 2, 1, generator=rng(3), dtype=torch.float64), 5.0, 0.3
    A = torch.stack([down(pixel.reshape(1, *SHAPE)).flatten() for pixel in torch.eye(SIZE, dtype=torch.float64)], 1).numpy()
    B, b = A @ generator.matrix.reshape(SIZE, D).numpy(), y.flatten(1).numpy().T - A @ generator.mean.reshape(SIZE, 1).numpy()
    expected = np.linalg.solve(2 * c / 6 * B.T @ B + e * np.eye(D), 2 * c / 6 * B.T @ b)
    np.testing.assert_allclose(generator.optimum(down, y, c, e).numpy(), expected.T, rtol=1e-10)


def test_without_energy_the_optimum_is_the_shortest_least_squares_solution():
    """Two measured entries and six latents: many solutions."""
    generator, y = toy(), torch.rand(4, 2, 1, generator=rng(3), dtype=torch.float64)

    def corner(x):
        return x[:, 0, :2, :1]

    B, offset = generator.matrix[0, :2, 0], generator.mean[0, :2, 0]
    expected = torch.linalg.lstsq(B, (y[:, :, 0] - offset).T, driver="gelsd").solution.T
    torch.testing.assert_close(generator.optimum(corner, y), expected)


def test_repeated_columns_in_float32():
    """Where columns are copies of others the optimum is the shortest, and rounding in A must not be taken for a difference."""
    generator, y = toy(torch.float32), torch.rand(2, 3, 2, 1, generator=rng(3))
    generator.matrix[..., 4:] = 2 * generator.matrix[..., :2]
    expected = toy(torch.float64)
    expected.matrix.copy_(generator.matrix)
    expected.mean.copy_(generator.mean)
    torch.testing.assert_close(generator.optimum(down, y), expected.optimum(down, y.double()).float(), rtol=1e-4, atol=1e-4)


def test_affine_operators_are_taken_and_others_refused():
    generator, z = toy(), torch.randn(2, D, generator=rng(2), dtype=torch.float64)
    x = generator({"z": z})
    torch.testing.assert_close(generator.optimum(lambda x: 2 * x + 3, 2 * x + 3), z)
    with pytest.raises(ValueError, match="expected an affine operator"):
        generator.optimum(torch.tanh, x.tanh())
    with pytest.raises(ValueError, match=r"expected y of shape \(N, \*\(3, 2, 1\)\), got \(2, 3, 4, 5\)"):
        generator.optimum(down, x)


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"got \(3, 4, 5, 6\) and \(3, 4, 4\)"):
        LinearGenerator(torch.zeros(3, 4, 5, 6), torch.zeros(3, 4, 4))


def test_file_keeps_the_generator(tmp_path):
    generator = toy()
    save_file(generator.state_dict(), tmp_path / "w.safetensors")
    state = load(tmp_path / "w.safetensors").state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in generator.state_dict().items())


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"matrix": torch.zeros(1)}, r"expected matrix, mean and noise_variance, got \['matrix'\]"),
        ({"matrix": torch.zeros(1), "mean": torch.zeros(1), "noise_variance": torch.zeros(1)}, r"expected matrix \(C, H, W, D\)"),
        ({"matrix": torch.zeros(1), "mean": torch.zeros(1), "noise_variance": torch.zeros(2)}, "w.safetensors"),
    ],
)
def test_other_files_are_refused(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "w.safetensors")


class TestContract(GeneratorContract):
    def make(self):
        return toy(torch.float32)

    def oracle(self, latents):
        generator = toy(torch.float32)
        return torch.einsum("chwd,nd->nchw", generator.matrix.double(), latents["z"]) + generator.mean.double()


@pytest.mark.parametrize(("prior", "weight"), [(FlatPrior(), 0.0), (GaussianPrior(), 0.05)])
def test_engine_reaches_the_closed_form_optimum(prior, weight):
    """Least squares, and maximum a posteriori, through a real operator: latents, image and objective to 1e-6."""
    torch.manual_seed(0)
    generator, operator = (
        LinearGenerator(torch.randn(3, 8, 8, 5, dtype=torch.float64) / 5, torch.rand(3, 8, 8).double()),
        Downscale(2),
    )
    terms = {"data": L2Consistency(weight=10.0), "energy": PriorEnergy(weight=weight)}
    plan = single_phase(
        prior=prior, objective=Objective(terms), optimiser=Adam(rate=0.1), schedule=Linear1CycleDrop(), steps=500, target_db=None
    )
    measurements = torch.rand(3, 3, 4, 4, dtype=torch.float64)
    engine = plan.engine(generator, operator)
    for answer in plan.run(engine, ((str(i), y) for i, y in enumerate(measurements))):
        best, y = answer.samples[0], measurements[answer.index]
        z = generator.optimum(operator, y[None], consistency_weight=10.0, energy_weight=weight)[0]
        expected = generator({"z": z[None]})
        residual = (operator(expected)[0] - y).square().mean()
        torch.testing.assert_close(best.latents["z"], z, rtol=0, atol=1e-6)
        torch.testing.assert_close(best.image, expected[0], rtol=0, atol=1e-6)
        assert best.objective == pytest.approx(float(10 * residual + weight * z.square().sum() / 2), abs=1e-6)
        assert best.mse == pytest.approx(float(residual), abs=1e-6)
