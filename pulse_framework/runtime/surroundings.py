"""What a run finds around it: which code it is, whether a server answers, whether there is a key of Weights & Biases."""

import os
import subprocess
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

__all__ = ["code_version", "has_wandb_key", "is_offline", "unreachable", "wandb_url"]

PATIENCE = 3.0
"""Seconds that a server has for an answer."""


def code_version(root: Path | None = None) -> str:
    """The package's version; in a git checkout the commit besides, and ``dirty`` where files differ from it.

    Args:
        root: The checkout; None: where this package lies.
    """
    root = root or Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return version("pulse-latent")
    describe = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        done = subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - no shell
    except (OSError, subprocess.SubprocessError):
        return version("pulse-latent")
    return f"{version('pulse-latent')}+{done.stdout.strip()}"


def is_offline() -> bool:
    """Whether ``PULSE_OFFLINE`` forbids the network."""
    return os.environ.get("PULSE_OFFLINE", "0") not in ("", "0")


def unreachable(url: str) -> str:
    """Why the server of an address does not answer, whatever the answer would be; empty if it does."""
    import requests

    if is_offline():
        return "PULSE_OFFLINE forbids the network"
    parts = urlsplit(url)
    try:
        requests.head(f"{parts.scheme}://{parts.netloc}", timeout=PATIENCE, allow_redirects=False)
    except requests.RequestException as error:
        return f"{type(error).__name__} within {PATIENCE:.0f} s"
    return ""


def wandb_url() -> str:
    """Address of the W&B server in use."""
    import wandb

    return os.environ.get("WANDB_BASE_URL") or str(wandb.setup().settings.base_url)  # W&B reads the environment only once


def has_wandb_key() -> bool:
    """Whether W&B has a key to log in with, in the environment or in the user's netrc; nobody is asked, no server either."""
    from requests.utils import get_netrc_auth

    return bool(os.environ.get("WANDB_API_KEY") or get_netrc_auth(wandb_url()))
