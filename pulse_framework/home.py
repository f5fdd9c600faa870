"""Where this machine keeps what need not be fetched or computed twice."""

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(name: str) -> Path:
    """The folder of one kind of files: in ``PULSE_HOME``, or in the user's cache folder. It need not exist."""
    import platformdirs

    home = os.environ.get("PULSE_HOME")
    return (Path(home).expanduser() if home else platformdirs.user_cache_path("pulse", appauthor=False)) / name
