"""The command line: ``pulse``."""

import gc

__all__ = ["main"]


def main() -> None:
    """Run ``pulse``."""
    gc.disable()  # what is imported stays; looking through it for garbage again and again takes a quarter of the start
    from pulse_framework.cli.app import app

    gc.freeze()
    gc.enable()
    app()
