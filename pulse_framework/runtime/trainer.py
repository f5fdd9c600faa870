"""The Lightning trainer of a run: device, precision and loggers, from plain settings."""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Literal

import pytorch_lightning as pl
import torch

from pulse_framework.memory import keep_freed
from pulse_framework.runtime.checkpoints import SearchCheckpoint
from pulse_framework.runtime.ranks import local_processes
from pulse_framework.runtime.together import Together, end_others

__all__ = ["make_trainer", "predict"]

DEVICES = {"auto": "auto", "cpu": "cpu", "cuda": "cuda", "mps": "mps"}
TALKATIVE = (
    "pytorch_lightning.utilities.rank_zero",
    "lightning_fabric.utilities.distributed",
    "pytorch_lightning.trainer.connectors.signal_connector",
)
"""Loggers of Lightning that say what the commands say themselves."""
PRECISIONS = ("32-true", "64-true", "bf16-mixed", "16-mixed")


def make_trainer(
    device: str = "auto",
    devices: int = 1,
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = "32-true",
    *,
    nodes: int = 1,
    tf32: bool = False,
    channels_last: bool = False,
    keep_memory: bool = True,
    checkpoint_every: int | None = None,
    callbacks: Sequence[pl.Callback] = (),
    checkpoint: Callable[[int | None], SearchCheckpoint] | None = None,
) -> pl.Trainer:
    """A trainer for ``predict`` with gradients, which writes nothing of its own.

    Args:
        device: ``auto`` picks CUDA, then MPS, then the CPU.
        devices: How many of them on each machine; under torchrun 1 stands for as many as it has started.
        precision: Of the generator; latents, A and the objective stay in float32 (float64 under ``64-true``).
        nodes: How many machines; torchrun says so itself.
        tf32: Whether CUDA's matrix products and convolutions in float32 may round to TF32's 10 bits, which is faster.
        channels_last: Whether the generator's weights lie with their channels last, which may be faster.
        keep_memory: Whether memory that a step on a CPU has freed stays with the process, which is faster and needs more of it;
            what one trainer has set holds for the process. See ``memory.keep_freed``.
        checkpoint_every: Steps after which the searches under way are written down, again and again; None: they never are.
        checkpoint: Makes the observer that does so.
        callbacks: Observers; loggers are the business of one of them, ``Tracker``.

    Raises:
        ValueError: The device is not there, or lacks the precision; or a number is out of range.
    """
    actual = _actual(device, precision)
    if (started := local_processes()) is not None:
        if devices not in (1, started[0]):
            raise ValueError(f"trainer devices: expected {started[0]}, as many as torchrun started, got {devices}; leave it out")
        devices, nodes = started
    if checkpoint_every is not None and (checkpoint_every < 1 or devices * nodes != 1):
        raise ValueError(
            f"trainer checkpoint_every: expected at least 1 step, and one device, or null, got {checkpoint_every} steps and "
            f"{devices * nodes} devices"
        )
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    if keep_memory and actual == "cpu":
        keep_freed()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    more: list[pl.Callback] = [*([ChannelsLast()] if channels_last else []), *([Together()] if devices * nodes != 1 else [])]
    if checkpoint:
        more.append(checkpoint(checkpoint_every))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(GPU|MPS) available but not used.*")
        return pl.Trainer(
            accelerator=actual,
            devices=devices,
            num_nodes=nodes,
            precision=precision,
            callbacks=[*callbacks, *more],
            logger=False,
            inference_mode=False,
            use_distributed_sampler=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )


def _actual(device: str, precision: str) -> str:
    """The device that is meant, if it is there and has the precision."""
    if device not in DEVICES:
        raise ValueError(f"trainer device: expected one of {', '.join(DEVICES)}, got {device!r}")
    if precision not in PRECISIONS:
        raise ValueError(f"trainer precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    actual = next(name for name in ("cuda", "mps", "cpu") if there[name]) if device == "auto" else device
    if not there[actual]:
        raise ValueError(f"trainer device: expected a machine with {actual}, got none; use device auto or cpu")
    if precision == "16-mixed" and actual == "cpu":
        raise ValueError("trainer precision: expected one that a CPU has, got 16-mixed; use bf16-mixed or 32-true")
    if precision == "64-true" and actual == "mps":
        raise ValueError("trainer precision: expected one that MPS has, got 64-true; use 32-true, or device cpu")
    return actual


class ChannelsLast(pl.Callback):
    """Lays the generator's weights out with their channels last."""

    def on_predict_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Once they are where they are used."""
        module.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def predict(trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule) -> None:
    """Run Lightning's predict loop for what its callbacks do, from the checkpoint of a ``SearchCheckpoint`` among them.

    Raises:
        KeyboardInterrupt: The user stopped it; Lightning would end the process with status 1.
        Exception: What failed; of several processes, those that this one has started are ended, and a note says which it was.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", module="pytorch_lightning")
            warnings.filterwarnings("ignore", message=".*does not have many workers", module="pytorch_lightning")
            path = next((other.usable() for other in _callbacks(trainer) if isinstance(other, SearchCheckpoint)), None)
            trainer.predict(module, datamodule=data, return_predictions=False, ckpt_path=path, weights_only=True)
            trainer.strategy.barrier("all processes have written their answers")
    except SystemExit:
        raise KeyboardInterrupt from None
    except Exception as error:
        if trainer.world_size > 1:
            error.add_note(f"in the process of rank {trainer.global_rank}, one of {trainer.world_size}")
            end_others(trainer)
        raise


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]
