"""What searches have found, counted: a line for each answer, a row of a table for each method, and success against cost."""

import colorsys
import json
import math
import platform
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from html import escape

import torch

from pulse_framework.search import mse_from_db, psnr_db

__all__ = ["CLOSE", "SCORES", "Line", "Tally", "machine", "plot", "table"]

CLOSE, EXACT, TRUE = 2e-3, mse_from_db(45), mse_from_db(35)
"""Mean square errors that count: PULSE's eps; 45 dB; and, of the image itself, 35 dB."""
ROUNDING = 1 + 1e-6
"""Of a target in float32, as searches have it."""

SCORES = (
    '"Within 2e-3" and "45 dB" are shares of answers whose degraded image is so near to the measurement (2e-3 is PULSE\'s eps);'
    ' "truth" is recovered where the answer is within 35 dB of the image that was measured; "radius" is how far the worst answer'
    ' is from the sphere of radius √d, where latents move on spheres; "solved a second" is the share within 2e-3 over the seconds'
    ' of an image; "steps" are those of the search that answers;'
    ' "peak" is what a method adds to the memory of the process at its largest, in MB of 2^20 bytes.'
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One answer.

    Attributes:
        method: Name of the method.
        targets: Name of the set of images that were measured.
        image: Key of the image.
        status: As of a ``SearchResult``.
        mse: Mean square of A(answer) - y, in [0, 1] units; infinite if no iterate was finite.
        truth_mse: Mean square of the answer itself minus the image that was measured; infinite as ``mse``.
        radius_error: Largest deviation from the radius √d of what moved on spheres, relative to it; None where nothing did.
        steps: Iterates evaluated.
        seconds: Its share of the seconds of all that was searched for together.
    """

    method: str
    targets: str
    image: str
    status: str
    mse: float
    truth_mse: float
    radius_error: float | None
    steps: int
    seconds: float

    def json(self) -> str:
        """As one JSON object; errors are in dB besides, and what is not finite is null."""
        fields = asdict(self) | {"psnr_db": psnr_db(self.mse), "truth_db": psnr_db(self.truth_mse)}
        known = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in fields.items()}
        return json.dumps(known, ensure_ascii=False)


@dataclass
class Tally:
    """What a method has found so far.

    Attributes:
        lines: Its answers.
        peak: Megabytes that its searches add to memory at their largest, what its start keeps included; None where that cannot be
            measured.
        start: Seconds of its start and a first search, which count for no image.
        start_peak: Megabytes that those add at their largest.
    """

    lines: list[Line] = field(default_factory=list)
    peak: float | None = None
    start: float = 0.0
    start_peak: float | None = None

    def share(self, bound: float) -> float:
        """Share of answers within a mean square error."""
        return sum(line.mse <= bound * ROUNDING for line in self.lines) / len(self.lines)

    @property
    def success(self) -> float:
        """Share of answers within PULSE's eps."""
        return self.share(CLOSE)

    @property
    def each(self) -> float:
        """Seconds an image."""
        return statistics.fmean(line.seconds for line in self.lines)

    def row(self, name: str) -> str:
        """A line of the table."""
        radii = [line.radius_error for line in self.lines if line.radius_error is not None]
        cells = [
            name.replace("|", "\\|"),
            f"{self.success:.0%}",
            f"{self.share(EXACT):.0%}",
            f"{statistics.median(psnr_db(line.mse) for line in self.lines):.1f}",
            f"{sum(line.truth_mse < TRUE for line in self.lines) / len(self.lines):.0%}",
            f"{100 * max(radii):.2g}" if radii else "",
            f"{statistics.fmean(line.steps for line in self.lines):.0f}",
            f"{self.each:.2f}",
            f"{self.success / self.each:.2f}" if self.each else "",
            _megabytes(self.peak),
        ]
        return "| " + " | ".join(cells) + " |"

    def once(self, clock: str = "CPU s") -> str:
        """What came before the first image, for all of them, in words."""
        peak = _megabytes(self.start_peak)
        return f"{self.start:.1f} {clock}" + (f" and {peak} MB" if peak else "")


def table(tallies: Mapping[str, Tally], clock: str = "CPU s") -> str:
    """Markdown, a row for each method.

    Args:
        tallies: By name of the method; each has at least one line.
        clock: What seconds are called.
    """
    columns = ["method", "within 2e-3", "45 dB", "median dB", "truth > 35 dB", "radius off by, %", "steps", f"{clock} an image"]
    head = [*columns, "solved a second", "peak MB"]
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return "\n".join([*lines, *(tally.row(name) for name, tally in tallies.items())])


def machine() -> str:
    """What the numbers were measured on."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def plot(groups: Mapping[str, Mapping[str, Tally]], clock: str = "CPU seconds") -> str:
    """Success against seconds an image, a panel for each set of targets, as SVG.

    Args:
        groups: By title, tallies by name of the method; all sets have the same methods.
        clock: What seconds are called.
    """
    width, height, left = 330, 260, 40
    names = list(next(iter(groups.values())))
    most = max(tally.each for tallies in groups.values() for tally in tallies.values()) or 1.0
    total = max(width * len(groups), 480)
    tall = height + 48 + 18 * len(names)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{tall}" font-family="sans-serif">']
    parts.append('<rect width="100%" height="100%" fill="white"/>')
    for panel, (title, tallies) in enumerate(groups.items()):
        x0 = panel * width + left
        parts.append(f'<text x="{x0}" y="16" font-size="12">{escape(title)}: success at 2e-3 against {clock} an image</text>')
        parts.append(f'<path d="M{x0} 30V{height}H{x0 + width - 70}" fill="none" stroke="black"/>')
        for share in (0, 50, 100):
            y = height - share / 100 * (height - 40)
            parts.append(f'<text x="{x0 - 38}" y="{y + 4}" font-size="11">{share} %</text>')
        for number, tally in enumerate(tallies.values()):
            x = x0 + (tally.each / most) ** 0.5 * (width - 80)  # a root scale, so that the quick ones are apart
            y = height - tally.success * (height - 40)
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{_colour(number)}"/>')
            right, down = ((7, 4), (-3, -8), (-3, 16))[number % 3]  # so that those of neighbours do not meet
            parts.append(f'<text x="{x + right:.1f}" y="{y + down:.1f}" font-size="11">{number + 1}</text>')
        end = f'<text x="{x0 + width - 80}" y="{height + 22}" font-size="11" text-anchor="middle">'
        parts.append(f"{end}{most:.2g} s (root scale)</text>")
    for number, name in enumerate(names):
        y = height + 46 + 18 * number
        parts.append(f'<circle cx="{left}" cy="{y - 4}" r="5" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{left + 10}" y="{y}" font-size="12">{number + 1}  {escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _megabytes(size: float | None) -> str:
    return "" if size is None else f"{size:.0f}"


def _colour(number: int) -> str:
    """Ten hues that are apart, then the same ones darker, as all viewers know them."""
    lightness = 0.2 if number // 10 % 2 else 0.45
    red, green, blue = (round(255 * value) for value in colorsys.hls_to_rgb(number % 10 / 10, lightness, 0.7))
    return f"#{red:02x}{green:02x}{blue:02x}"
