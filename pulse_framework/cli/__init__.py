"""The command line: ``pulse``."""

__all__ = ["main"]


def main() -> None:
    """Run ``pulse``."""
    from pulse_framework.cli.app import app

    app()
