"""Latent priors: the sphere of PULSE, the Gaussians of CSGM and of a fit, and no preference at all."""

from pulse_framework.priors.gaussian_fit import MahalanobisPrior
from pulse_framework.priors.normal import FlatPrior, GaussianPrior
from pulse_framework.priors.sphere import SpherePrior

__all__ = ["FlatPrior", "GaussianPrior", "MahalanobisPrior", "SpherePrior"]
