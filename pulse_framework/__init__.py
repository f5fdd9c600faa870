"""PULSE: restore images by searching the latent space of a pretrained generator.

``upsample`` is the whole search in one call; ``interfaces`` is what a plug-in implements; ``search`` is the engine.
"""

from pulse_framework.api import Restoration, upsample, upsample_all
from pulse_framework.interfaces import Degradation, Generator, LatentPrior, LinearDegradation
from pulse_framework.latents import LatentBlock
from pulse_framework.search import Plan, SearchResult, Status

__all__ = [
    "Degradation",
    "Generator",
    "LatentBlock",
    "LatentPrior",
    "LinearDegradation",
    "Plan",
    "Restoration",
    "SearchResult",
    "Status",
    "upsample",
    "upsample_all",
]
