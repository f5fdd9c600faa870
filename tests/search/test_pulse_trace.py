"""The original search, step by step: latents, noise and measurement given, in float64, on a tiny StyleGAN1."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from degradations.downscale import Downscale
from generators.stylegan1 import StyleGAN1, synthesis_network
from pulse_framework.priors import SpherePrior
from pulse_framework.search import Adam, Engine, Geocross, L2Consistency, Linear1CycleDrop, Objective, Phase, Search, StopRule
from pulse_framework.search.rows import RowStepper

GOLDEN = Path(__file__).parent.parent / "golden"
EPS, TOLERANCE = 2e-3, 1e-5


def read(name):
    with np.load(GOLDEN / f"{name}.npz") as file:
        tensors = {key: torch.from_numpy(file[key]) for key in file if key != "meta"}
        return tensors, json.loads(bytes(file["meta"]))


def near(got, expected):
    torch.testing.assert_close(got, expected, rtol=TOLERANCE, atol=TOLERANCE * float(expected.abs().mean()))


class Original:
    """The settings of a trace as a phase, and its start as latents."""

    def __init__(self, name):
        self.golden, self.meta = read(f"pulse_trace_{name}")
        weights = {
            key.removeprefix("weights/"): value for key, value in read("stylegan1_pulse_32")[0].items() if "weights/" in key
        }
        fit = self.golden["mean"], self.golden["std"]
        self.generator = StyleGAN1(synthesis_network(weights, "golden"), None, fit, zero_noise=self.meta["zero_noise"])
        self.degradation = Downscale(self.meta["factor"])
        self.style = "v" if self.meta["tile"] else "v_plus"
        moved = {self.style: SpherePrior("initial", ndim=1)}
        if self.meta["noise"] == "trainable":
            moved |= {f"noise_{k}": SpherePrior("initial", ndim=2) for k in range(self.meta["trainable_noise"])}
        terms = {"consistency": L2Consistency(weight=100.0, floor=EPS), "geocross": Geocross(weight=0.05)}
        self.steps = self.meta["steps"]
        self.phase = Phase(
            prior=moved,
            objective=Objective(terms),
            optimiser=Adam(rate=0.4),
            schedule=Linear1CycleDrop(),
            stop=StopRule(steps=self.steps, target_mse=EPS, at_target=False),
        )
        style = self.golden["latent0"].squeeze(1) if self.meta["tile"] else self.golden["latent0"]
        noise = {block.name: self.golden[f"noise0/{block.name[6:]}"] for block in self.generator.blocks if "noise" in block.name}
        self.start = {self.style: style, **noise}

    def searches(self):
        for row, y in enumerate(self.golden["lr_target"]):
            yield Search(str(row), y, start={name: value[row] for name, value in self.start.items()})


@pytest.fixture(scope="module", params=["wplus", "tiled"])
def original(request):
    return Original(request.param)


def test_rate(original):
    rates = [original.phase.optimiser.rate * original.phase.schedule(step / original.steps) for step in range(original.steps)]
    near(torch.tensor(rates, dtype=torch.float64), original.golden["lr"])


def test_every_step_of_the_engine(original):
    results = sorted(
        Engine(original.generator, original.degradation, [original.phase]).run(original.searches()), key=lambda result: result.key
    )
    objective, l2 = torch.stack([result.trace for result in results], 1).unbind(2)
    assert objective.dtype == torch.float64
    near(l2, original.golden["l2"])
    near((objective - 100 * l2.clamp(min=EPS)) / 0.05, original.golden["geocross"])
    near(objective.sum(1), original.golden["total"])
    for result, losses in zip(results, original.golden["l2"].T, strict=True):
        assert result.steps == original.steps
        assert result.feasible == bool(losses.min() <= EPS)
        assert result.mse == pytest.approx(float(losses[result.step]), rel=TOLERANCE)


def test_last_image_and_the_latents_after_it(original):
    names = original.phase.priors(original.generator)
    rates = [original.phase.optimiser.rate * original.phase.schedule(step / original.steps) for step in range(original.steps)]
    table = original.phase.optimiser.table(torch.tensor(rates, dtype=torch.float64))
    stepper = RowStepper(original.generator, original.degradation, original.phase, names, table, original.generator)
    y = original.golden["lr_target"]
    none = torch.zeros_like(y[:, 0, 0, 0])
    rows = stepper.start(original.start, y, none + EPS, none, torch.zeros(len(y), 2, dtype=torch.int64))
    for _ in range(original.steps):
        before = {name.removeprefix("latent/"): value for name, value in rows.items() if name.startswith("latent/")}
        stepper.step(rows)
    near(original.generator(before), original.golden["image_last"])
    near(rows[f"latent/{original.style}"].reshape(original.golden["latent_final"].shape), original.golden["latent_final"])
    radius = original.golden["latent0"].norm(dim=2)
    near(rows[f"latent/{original.style}"].reshape(original.golden["latent0"].shape).norm(dim=2), radius)
