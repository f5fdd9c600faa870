"""README.md of this folder: a section for each script, which rewrites its own and leaves the others alone."""

import re
from pathlib import Path

from pulse_framework.cli.tally import machine

__all__ = ["machine", "write_section"]

PATH = Path(__file__).parent / "README.md"


def write_section(name: str, text: str) -> None:
    """Put the text after the mark of its script, in place of what is there, or at the end."""
    page = PATH.read_text() if PATH.exists() else "# Benchmarks\n\nWritten by `make bench`.\n"
    parts = re.split(r"(?m)^<!-- (\w+) -->\n", page)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True)) | {name: f"\n{text.strip()}\n\n"}
    page = f"{parts[0].strip()}\n\n" + "".join(f"<!-- {key} -->\n{sections[key]}" for key in sections)
    PATH.write_text(page.rstrip() + "\n")
