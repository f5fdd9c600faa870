"""The runtime: a real ``Trainer.predict``, precision, devices and sharding."""

import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from degradations.downscale import Downscale
from generators.module import ModuleGenerator
from pulse_framework.images import write_png
from pulse_framework.runtime import MeasurementData, ResultWriter, SearchModule, SearchObserver, make_trainer, predict
from pulse_framework.search.rows import RowStepper
from tests.runtime.small import COUNT, folder, generator, plan, search


class Heard(SearchObserver):
    def __init__(self):
        self.finished, self.progress, self.grad = [], [], []

    def on_answer(self, module, finished):
        self.finished.append(finished)
        self.grad.append(torch.is_inference_mode_enabled())

    def on_progress(self, module, progress):
        self.progress.append(progress)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("32-true", torch.float32), ("64-true", torch.float64), ("bf16-mixed", torch.float32)]
)
def test_search_through_a_real_trainer(data, precision, dtype):
    heard = Heard()
    search(data, heard, precision=precision)
    assert sorted(finished.source.name for finished in heard.finished) == ["0", "1", "2"]
    assert heard.progress[-1].evaluations <= COUNT * 6
    for finished in heard.finished:
        (result,) = finished.answer.samples
        assert (result.key, result.steps) == (finished.source.key, 6)
        assert result.latents["z"].dtype == dtype
        mse = (finished.degraded[0] - finished.measurement).square().mean().item()
        assert result.mse == pytest.approx(mse, rel=1e-4)
        image = generator().to(dtype)({"z": result.latents["z"][None]})[0]
        assert float((image - result.image).abs().max()) < (0.05 if precision == "bf16-mixed" else 1e-5)
        assert result.trace[-1, 0] < result.trace[0, 0]
        assert bool(result.image.isfinite().all())
        z = result.latents["z"]  # on its sphere
        assert float(z.norm()) == pytest.approx(8**0.5, rel=1e-12 if dtype is torch.float64 else 1e-6)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_every_precision_finds_what_float32_finds(data, precision):
    def found(precision):
        heard = Heard()
        search(data, heard, precision=precision)
        return {finished.source.name: finished.answer.samples[0] for finished in heard.finished}

    for name, result in found("32-true").items():
        other = found(precision)[name]
        gain = float(result.trace[0, 0]) - result.objective
        assert gain > 0
        assert abs(result.objective - other.objective) < (0.1 if precision == "bf16-mixed" else 1e-4) * gain


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", "float32"), ("64-true", "float64"), ("bf16-mixed", "float32")])
def test_latents_and_the_optimiser_keep_their_precision(data, precision, dtype, monkeypatch):
    seen, step = set(), RowStepper.step

    def spied(self, rows):
        step(self, rows)
        seen.update((key, str(value.dtype)) for key, value in rows.items() if value.dtype.is_floating_point)

    monkeypatch.setattr(RowStepper, "step", spied)
    search(data, precision=precision)
    assert {("latent/z", f"torch.{dtype}"), ("state/z/momentum", f"torch.{dtype}"), ("state/z/square", f"torch.{dtype}")} <= seen
    assert {of for _, of in seen} == {f"torch.{dtype}"}


class Overflowing(nn.Module):
    """Infinite above a threshold, under autocast alone: bfloat16 keeps 8 bits, and 1 is what is left of 1.003."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, z):
        one = torch.where(z[:, :1] > 0, 1.003, 2.0) @ torch.ones(1, 1)
        return self.network(z) + 1e-12 / (one.float() - 1)[:, :, None, None]


def test_a_search_that_reduced_precision_loses_says_so_in_its_line(data, tmp_path):
    def lines(precision):
        torch.manual_seed(0)
        whole = ModuleGenerator(Overflowing(generator().network), (8,))
        writer = ResultWriter(folder(tmp_path / precision))
        module = SearchModule(whole, {(4, 4): Downscale(2)}, plan())
        predict(make_trainer("cpu", precision=precision, callbacks=[writer]), module, data)
        text = (tmp_path / precision / "results.jsonl").read_text().splitlines()
        return {line["input"]: line for line in map(json.loads, text)}

    rough, full = lines("bf16-mixed"), lines("32-true")
    again = [name for name, line in rough.items() if "retried" in line]
    assert 0 < len(again) < COUNT
    for name, line in rough.items():
        stem = f"{Path(name).stem}.png"
        same = (tmp_path / "bf16-mixed" / stem).read_bytes() == (tmp_path / "32-true" / stem).read_bytes()
        assert same == (name in again)
        assert line["psnr_db"] == pytest.approx(full[name]["psnr_db"], abs=0.5)
    assert not any("retried" in line for line in full.values())


def test_inference_mode_is_refused(data):
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False
    )
    with pytest.raises(RuntimeError, match="inference_mode=False"):
        predict(trainer, SearchModule(generator(), {(4, 4): Downscale(2)}, plan()), data)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"device": "cpu", "precision": "16-mixed"}, "use bf16-mixed or 32-true"),
        ({"device": "cpu", "precision": "8"}, "expected one of 32-true"),
        ({"device": "tpu"}, "expected one of auto"),
        ({"device": "cuda"}, "use device auto or cpu"),
        ({"device": "mps"}, "use device auto or cpu"),
    ],
)
def test_devices_and_precisions_that_are_not_there(settings, cure, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=cure):
        make_trainer(**settings)


def test_channels_last_finds_what_the_ordinary_layout_finds(data):
    def found(**settings):
        heard, layouts = Heard(), []
        module = SearchModule(generator(), {(4, 4): Downscale(2)}, plan())
        heard.on_progress = lambda module, progress: layouts.append(
            {
                weight.is_contiguous(memory_format=torch.channels_last)
                for weight in module.generator.parameters()
                if weight.ndim == 4
            }
        )
        predict(make_trainer("cpu", callbacks=[heard], **settings), module, data)
        return {finished.source.name: finished.answer.samples[0] for finished in heard.finished}, layouts

    usual, before = found()
    other, after = found(channels_last=True)
    assert all(layout == {True} for layout in after)
    assert not any(layout == {True} for layout in before)
    for name, result in usual.items():
        torch.testing.assert_close(other[name].image, result.image, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_used_if_asked_for(tf32):
    try:
        make_trainer("cpu", tf32=tf32)
        assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (tf32, tf32)
    finally:
        make_trainer("cpu")


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_processes_share_the_images_without_padding(data, world):
    class Strategy:
        """The first process tells the others what is left, whatever they think."""

        def broadcast(self, indices):
            return list(range(COUNT))

    class Trainer:
        strategy = Strategy()

        def __init__(self, rank):
            self.global_rank, self.world_size = rank, world

    shares = []
    for rank in range(world):
        data.choose(data.sources[: COUNT - rank], {}, {})
        data.trainer = Trainer(rank)
        assert len(data.predict_dataloader()) > 0  # all meet at the end
        shares.append([index for batch in data.predict_dataloader() for index in batch["indices"]])
    assert sorted(index for share in shares for index in share) == list(range(COUNT))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_queues_hold_one_shape_and_no_more_than_asked(tmp_path):
    torch.manual_seed(0)
    for index, side in enumerate((4, 5, 4, 4, 5)):
        write_png(torch.rand(3, side, side), tmp_path / f"{index}.png")
    batches = list(MeasurementData([tmp_path], queue=2).predict_dataloader())
    assert [batch["indices"] for batch in batches] == [[0, 2], [3], [1, 4]]
    assert [tuple(batch["measurements"].shape) for batch in batches] == [(2, 3, 4, 4), (1, 3, 4, 4), (2, 3, 5, 5)]
