"""Very many images: nothing of an image that is done stays in memory."""

import gc

import pytest
import torch
from torch import nn

from degradations.downscale import Downscale
from generators.module import ModuleGenerator
from pulse_framework.images import write_png
from pulse_framework.priors import SpherePrior
from pulse_framework.runtime import (
    MeasurementData,
    OutputFolder,
    ResultWriter,
    SearchModule,
    SearchObserver,
    make_trainer,
    predict,
)
from pulse_framework.search import Adam, L2Consistency, Objective, single_phase

COUNT, QUEUE = 96, 8


class Census(SearchObserver):
    """Tensors and other tracked objects that are alive at the first answer of each queue; ``keep`` holds on to what it hears."""

    def __init__(self, keep):
        self.keep, self.kept, self.heard, self.counts = keep, [], 0, []

    def on_answer(self, module, finished):
        self.kept += [finished] if self.keep else []
        if self.heard % QUEUE == 0:
            gc.collect()
            alive = gc.get_objects()
            self.counts.append((sum(issubclass(type(thing), torch.Tensor) for thing in alive), len(alive)))
        self.heard += 1


@pytest.fixture(autouse=True)
def apart():
    """What was there before the run is left out of the census, which is quicker so."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def data(tmp_path):
    (tmp_path / "in").mkdir()
    rng = torch.Generator().manual_seed(0)
    for index in range(COUNT):
        write_png(torch.rand(3, 2, 2, generator=rng), tmp_path / "in" / f"{index}.png")
    return MeasurementData([tmp_path / "in"], queue=QUEUE)


@pytest.mark.parametrize("keep", [False, True], ids=["a run", "one that keeps its answers"])
def test_nothing_of_a_done_image_stays(data, tmp_path, keep):
    network = nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.ConvTranspose2d(4, 3, 4), nn.Sigmoid())
    objective = Objective(terms={"consistency": L2Consistency()})
    plan = single_phase(prior=SpherePrior(), objective=objective, optimiser=Adam(rate=0.1), steps=2, slots=4)
    writer = ResultWriter(OutputFolder(tmp_path / "out", generator="g", degradation="d", samples=1, settings={}))
    census = Census(keep)
    module = SearchModule(ModuleGenerator(network, (4,), pixel_range=(0.0, 1.0)), {(2, 2): Downscale(2)}, plan)
    predict(make_trainer("cpu", callbacks=[writer, census]), module, data)
    writer.folder.release()
    assert census.heard == COUNT
    (tensors, objects), (last_tensors, last_objects) = census.counts[4], census.counts[-1]  # the grid has its rows by then
    images = COUNT - 4 * QUEUE - QUEUE
    if keep:
        assert last_tensors - tensors >= images
        assert last_objects - objects >= images
    else:
        assert last_tensors == tensors
        assert last_objects - objects < images / 4
