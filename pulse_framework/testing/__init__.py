"""Contract suites for plug-ins, toy worlds with known answers, and plug-ins that break one law each.

A plug-in's test file subclasses a suite, names the class ``Test...`` and supplies ``make``; pytest then runs every law::

    class TestMyGenerator(GeneratorContract):
        def make(self) -> Generator:
            torch.manual_seed(0)
            return MyGenerator(network=tiny_network())
"""

from pulse_framework.testing.degradation import DegradationContract, LinearDegradationContract
from pulse_framework.testing.engine import EngineContract
from pulse_framework.testing.generator import GeneratorContract
from pulse_framework.testing.manifold import ManifoldContract
from pulse_framework.testing.prior import PriorContract

__all__ = [
    "DegradationContract",
    "EngineContract",
    "GeneratorContract",
    "LinearDegradationContract",
    "ManifoldContract",
    "PriorContract",
]
