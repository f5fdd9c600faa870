"""A file of weights as small as a test needs, and its card."""

import hashlib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 1000


def content(*places, **changes):
    return {
        "sources": list(places),
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "size": len(DATA),
        "format": "pt",
        "architecture": "none",
        "licence": "MIT",
        "citation": "nobody",
        "resolution": [8, 8],
        "alignment": "none",
    } | changes


def write_card(folder, *places, **changes):
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(content(*places, **changes)))
    return path


def leftovers(home):
    return [path.name for path in home.rglob("*") if path.name.startswith(".")]
