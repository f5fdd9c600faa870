"""``python -m pulse_framework`` is ``pulse``."""

from pulse_framework.cli import main

main()
