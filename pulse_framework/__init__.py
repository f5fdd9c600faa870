"""PULSE: restore images by searching the latent space of a pretrained generator.

``upsample`` is the whole search in one call; ``interfaces`` is what a plug-in implements; ``search`` is the engine.

Importing the package loads nothing, PyTorch neither: a name of it, or a module, is loaded where it is first asked for.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "api": ("Restoration", "upsample", "upsample_all"),
    "interfaces": ("Degradation", "Generator", "LatentPrior", "LinearDegradation"),
    "latents": ("LatentBlock",),
    "search": ("Plan", "SearchResult", "Status"),
}


def __getattr__(name: str) -> Any:  # noqa: ANN401
    """A public name, or a module of the package, loaded now."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names too."""
    return sorted({*globals(), *__all__})
