"""The three interfaces a plug-in can implement."""

from pulse_framework.interfaces.degradation import Degradation, LinearDegradation
from pulse_framework.interfaces.generator import Generator
from pulse_framework.interfaces.prior import LatentPrior

__all__ = ["Degradation", "Generator", "LatentPrior", "LinearDegradation"]
