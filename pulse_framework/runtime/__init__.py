"""The runtime: the only importer of Lightning."""

from pulse_framework.runtime.callbacks import Narrator, ProgressBar, ResultWriter
from pulse_framework.runtime.checkpoints import SearchCheckpoint, remove_checkpoints
from pulse_framework.runtime.claim import Claim
from pulse_framework.runtime.data import Group, MeasurementData
from pulse_framework.runtime.elastic import RayEngine, run_here
from pulse_framework.runtime.intake import Rejected, Source, take_in
from pulse_framework.runtime.known import known_pixels
from pulse_framework.runtime.latent_files import write_latents
from pulse_framework.runtime.loggers import csv_logger, tensorboard_logger, wandb_logger
from pulse_framework.runtime.measurements import fits_a_picture, has_measurement
from pulse_framework.runtime.module import Finished, SearchModule, SearchObserver
from pulse_framework.runtime.outputs import OutputFolder
from pulse_framework.runtime.profiling import Profile
from pulse_framework.runtime.ranks import is_started_from_outside
from pulse_framework.runtime.replay import CURVES, check_run, push
from pulse_framework.runtime.stores import Store, bring_inputs, is_url
from pulse_framework.runtime.surroundings import code_version, has_wandb_key, is_offline, unreachable, wandb_url
from pulse_framework.runtime.tracking import Tracker
from pulse_framework.runtime.trainer import make_trainer, predict

__all__ = [
    "CURVES",
    "Claim",
    "Finished",
    "Group",
    "MeasurementData",
    "Narrator",
    "OutputFolder",
    "Profile",
    "ProgressBar",
    "RayEngine",
    "Rejected",
    "ResultWriter",
    "SearchCheckpoint",
    "SearchModule",
    "SearchObserver",
    "Source",
    "Store",
    "Tracker",
    "bring_inputs",
    "check_run",
    "code_version",
    "csv_logger",
    "fits_a_picture",
    "has_measurement",
    "has_wandb_key",
    "is_offline",
    "is_started_from_outside",
    "is_url",
    "known_pixels",
    "make_trainer",
    "predict",
    "push",
    "remove_checkpoints",
    "run_here",
    "take_in",
    "tensorboard_logger",
    "unreachable",
    "wandb_logger",
    "wandb_url",
    "write_latents",
]
