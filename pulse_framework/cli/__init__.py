"""The command line: ``pulse``."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run ``pulse``; an interrupt ends with exit status 130."""
    from pulse_framework.cli.app import app

    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.stderr.write("pulse: interrupted; what was finished is on disk, and the same command goes on from there\n")
        sys.exit(130)
