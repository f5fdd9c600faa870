"""Batch widths that keep the bits: matrix products and convolutions may round differently from one width to the next."""

import logging
import math

import torch

from pulse_framework.search.jobs import Job, Starts
from pulse_framework.search.noise import noise_key
from pulse_framework.search.phases import Search
from pulse_framework.search.rows import NoRoomError, Rows, RowStepper, arrange
from pulse_framework.search.streams import draw, stream

__all__ = ["Widths", "first_row"]

_LOG = logging.getLogger(__name__)

COMPARED = 2**13
"""Pixels compared: short sums may round alike by chance, so that small images need many made-up searches."""
MOST = 16
"""Made-up searches, at most."""


class Widths:
    """Chooses batch widths whose bits were compared with those of the width ``lane``.

    Args:
        starts: Of the searches.
        slots: The widest; a power of two.
        lane: The width of reference; None is 1 on a CPU, else 8.
    """

    def __init__(self, starts: Starts, slots: int, lane: int | None) -> None:
        self.starts, self.slots, self.lane = starts, slots, lane
        self._probes: dict[tuple[object, ...], tuple[Rows, list[int]]] = {}

    def choose(self, stepper: RowStepper, index: int, count: int) -> int:
        """The batch width for ``count`` searches of phase ``index``: one that gives the bits of ``lane``, as narrow as can be.

        Less than ``count`` only where no width so large keeps the bits.
        """
        wide = [2**power for power in range((count - 1).bit_length(), self.slots.bit_length())]
        lane = self.lane_of(stepper)
        narrow = [2**power for power in reversed(range(count.bit_length())) if 2**power > lane]
        for width in wide + ([] if count <= lane else narrow):
            if width == lane or (width <= self.slots and self._keeps_bits(stepper, index, width)):
                return width
        return lane

    def narrow(self, slots: int) -> None:
        """From now on no more rows than these: more do not fit in memory."""
        text = "%d searches at once do not fit in memory; going on with %d (next time: search.slots=%d)"
        _LOG.warning(text, 2 * slots, slots, slots)
        self.slots = slots

    def lane_of(self, stepper: RowStepper) -> int:
        """The width of reference on the device of the searches."""
        return self.lane or (1 if stepper.table.device.type == "cpu" else 8)

    def _keeps_bits(self, stepper: RowStepper, index: int, width: int) -> bool:
        """Whether a row comes out the same, bit for bit, at this width and at the width ``lane``."""
        lane = self.lane_of(stepper)
        try:
            (got, numbers), (reference, places) = (self._probe(stepper, index, count) for count in (width, lane))
        except NoRoomError:
            if width <= lane:
                raise
            self.narrow(width // 2)
            return False
        order = [places.index(number) for number in numbers]
        return all(torch.equal(value, reference[key][order]) for key, value in got.items())

    def _probe(self, stepper: RowStepper, index: int, width: int) -> tuple[Rows, list[int]]:
        """Two steps of made-up searches, always the same ones, at one width; and the number of the one in each place."""
        like = stepper.table
        autocast = torch.is_autocast_enabled(like.device.type) and torch.get_autocast_dtype(like.device.type)
        key = (index, width, like.device, like.dtype, autocast)
        if key not in self._probes:
            made = self._made_up(stepper, index)
            places = [row % len(made) for row in range(max(len(made), width))]
            places += places[: -len(places) % width]
            batches = [places[begin : begin + width] for begin in range(0, len(places), width)]
            parts = [self._two_steps(stepper, [made[place] for place in batch]) for batch in batches]
            self._probes[key] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}, places
        return self._probes[key]

    def _made_up(self, stepper: RowStepper, index: int) -> list[Rows]:
        like, made = stepper.table, []
        pixels = math.prod(stepper.generator.image_shape)
        for row in range(max(self.lane_of(stepper), min(MOST, COMPARED // pixels))):
            rng = stream(0, "probe", row)
            measurement = torch.rand(self.starts.measurement_shape, generator=rng).to(like)
            latents = draw(stepper.generator, stepper.priors, rng, measurement, self.starts.spaces[index])
            made.append(first_row(stepper, Job(Search("probe", measurement, row), latents, rng)))
        return made

    @staticmethod
    def _two_steps(stepper: RowStepper, made: list[Rows]) -> Rows:
        rows = arrange({}, [], made, len(made))
        for _ in range(2):
            stepper.step(rows)
        checked = [name for name in rows if name.startswith(("latent/", "state/", "best/"))]
        return {name: rows[name].cpu() for name in checked} | {"trace": rows["trace"][:, :2].cpu()}


def first_row(stepper: RowStepper, job: Job) -> Rows:
    """The one row of a search that begins, or goes on."""
    if job.row is not None:
        row, job.row = job.row, None
        return row
    y, search = job.search.measurement[None], job.search
    keys = noise_key(search.seed, search.key, search.restart, job.phase)[None]
    return stepper.start(
        job.latents, stepper.corrected(y, job.latents), y.new_full((1,), job.threshold), y.new_full((1,), job.noise or 0.0), keys
    )
