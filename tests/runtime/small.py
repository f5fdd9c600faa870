"""Searches for three images by a small generator, through a real ``Trainer.predict``."""

import torch
from torch import nn

from degradations.downscale import Downscale
from generators.module import ModuleGenerator
from pulse_framework.priors import SpherePrior
from pulse_framework.runtime import MeasurementData, OutputFolder, ResultWriter, SearchModule, Tracker, make_trainer, predict
from pulse_framework.search import Adam, L2Consistency, Objective, single_phase

COUNT, STEPS = 3, 6


def generator():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Unflatten(1, (8, 1, 1)), nn.ConvTranspose2d(8, 8, 4), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1), nn.Tanh()
    )
    return ModuleGenerator(network, (8,))


def plan(**settings):
    objective = Objective(terms={"consistency": L2Consistency(weight=100.0)})
    return single_phase(prior=SpherePrior(), objective=objective, optimiser=Adam(rate=0.2), steps=STEPS, **settings)


def folder(path, **settings):
    known = {"generator": "g", "degradation": "d", "samples": 1, "settings": {}}
    return OutputFolder(path, **{**known, **settings})


def search(data, *callbacks, precision="32-true", **settings):
    module = SearchModule(generator(), {(4, 4): Downscale(2)}, plan(**settings))
    predict(make_trainer("cpu", precision=precision, callbacks=callbacks), module, data)


def tracked(place, make_logger, name="out"):
    """A run of which a logger hears, with the inputs in ``place/in``; its writer."""
    kept = folder(place / name)
    writer = ResultWriter(kept)
    tracker = Tracker({"search": {"steps": STEPS}, "code": "1.2.3"}, writer, make_logger(str(place / name)))
    search(MeasurementData([place / "in"]), writer, tracker)
    kept.release()
    return writer
