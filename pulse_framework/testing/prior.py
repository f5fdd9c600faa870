"""The laws of a latent prior. A prior's test subclasses ``PriorContract`` and supplies ``make``."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pulse_framework.interfaces import LatentPrior
from pulse_framework.testing.checks import close, equal, left_alone, rng

__all__ = ["PriorContract"]


class PriorContract(ABC):
    """Laws of ``LatentPrior``.

    Attributes:
        shape: Shape of one item.
        mean: Mean of every entry of a sample.
        second_moment: Mean square of every entry of a sample.
        covariance: Of an entry with the next one.
        draws: Samples behind the moments, which must be right within five standard errors.
    """

    shape: tuple[int, ...] = (16,)
    mean: float = 0.0
    second_moment: float = 1.0
    covariance: float = 0.0
    draws: int = 4000

    @abstractmethod
    def make(self) -> LatentPrior:
        """An instance on the CPU, the same at every call."""

    def oracle(self, latent: Tensor) -> Tensor | None:
        """Energy of each item in closed form, up to a constant, where one exists."""
        return None

    def test_sample_lies_on_the_manifold(self) -> None:
        """And has the shape asked for, in float32, on the CPU."""
        prior = self.make()
        for seed in range(5):
            item = prior.sample(self.shape, rng(seed))
            assert tuple(item.shape) == self.shape, f"sample: expected shape {self.shape}, got {tuple(item.shape)}"
            assert item.dtype == torch.float32, f"sample: expected float32, got {item.dtype}"
            close(item, prior.manifold.project(item), "sample against its projection", 1e-6)

    def test_same_rng_gives_the_same_sample(self) -> None:
        """All randomness is in the argument."""
        prior = self.make()
        equal(prior.sample(self.shape, rng(1)), prior.sample(self.shape, rng(1)), "second sample of one stream")

    def test_streams_give_different_samples(self) -> None:
        """Two streams, and the first two samples of one stream."""
        prior, one = self.make(), rng(1)
        first, second, other = prior.sample(self.shape, one), prior.sample(self.shape, one), prior.sample(self.shape, rng(2))
        assert not torch.equal(first, second), "expected the second sample of a stream to differ from the first"
        assert not torch.equal(first, other), "expected samples of two streams to differ"

    def test_moments_match_theory(self) -> None:
        """Mean and mean square of every entry; covariance of neighbours."""
        prior, one = self.make(), rng(3)
        x = torch.stack([prior.sample(self.shape, one).flatten() for _ in range(self.draws)]).double()
        pairs = (x - self.mean) * (x.roll(1, 1) - self.mean)
        laws = [("mean", x, self.mean), ("mean square", x.square(), self.second_moment)]
        for what, values, expected in [*laws, ("covariance", pairs, self.covariance)] if x.shape[1] > 2 else laws:
            bound = 5 * values.std(0) / self.draws**0.5 + 1e-6
            error = (values.mean(0) - expected).abs()
            assert bool((error <= bound).all()), (
                f"{what}: expected {expected} within {float(bound.max()):.3f}, off by {float(error.max()):.3f}"
            )

    def test_energy_is_one_number_per_item(self) -> None:
        """Finite, the same alone or in a batch, in the dtype of the latent."""
        prior, latent = self.make(), self._latent()
        energy = prior.energy(latent)
        assert tuple(energy.shape) == (len(latent),), f"energy: expected shape {(len(latent),)}, got {tuple(energy.shape)}"
        assert energy.dtype == latent.dtype, f"energy: expected {latent.dtype}, got {energy.dtype}"
        for row in range(len(latent)):
            close(prior.energy(latent[row : row + 1])[0], energy[row], f"energy of row {row} alone")

    def test_energy_has_a_true_gradient(self) -> None:
        """Finite, and that of finite differences; an energy without a graph is a constant."""
        prior = self.make()

        def total(latent: Tensor) -> Tensor:
            return prior.energy(latent) + 0 * latent.flatten(1).sum(1)

        assert torch.autograd.gradcheck(total, (self._latent().requires_grad_(),))

    def test_nothing_is_altered(self) -> None:
        """Neither the latent nor the prior nor the global random stream."""
        prior, latent = self.make(), self._latent()
        with left_alone(prior, latent):
            prior.energy(latent)
            prior.sample(self.shape, rng())

    def test_agrees_with_the_oracle(self) -> None:
        """Where a closed form is given: energies differ as it says."""
        latent = torch.cat([self._latent(), 1.5 * self._latent()])
        expected = self.oracle(latent)
        if expected is not None:
            energy = self.make().energy(latent)
            close(energy - energy[0], expected - expected[0], "energy above that of the first item")

    def _latent(self) -> Tensor:
        return torch.stack([self.make().sample(self.shape, rng(seed)) for seed in range(3)]).double()
