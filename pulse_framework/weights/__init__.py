"""Pretrained weights: a card says what a file is, ``fetch`` finds it and proves that it is the one.

``card`` reads cards, ``sources`` brings files, ``cache`` keeps them, ``lock`` remembers the hashes that cards do not know. A
downloaded file gets its name in the cache only after its size and SHA-256 are right, as far as they are known, so an interrupted
download leaves nothing behind, and processes that fetch at the same time do not disturb one another. ``PULSE_HOME`` names the
cache; ``PULSE_OFFLINE=1`` forbids the network.
"""

from pulse_framework.weights.cache import Progress, cache_path, fetch, verify
from pulse_framework.weights.card import Card, WeightsError, read_card

__all__ = ["Card", "Progress", "WeightsError", "cache_path", "fetch", "read_card", "verify"]
