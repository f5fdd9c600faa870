"""Latent priors: the sphere of PULSE, the Gaussian of CSGM, and no preference at all."""

from pulse_framework.priors.normal import FlatPrior, GaussianPrior
from pulse_framework.priors.sphere import SpherePrior

__all__ = ["FlatPrior", "GaussianPrior", "SpherePrior"]
