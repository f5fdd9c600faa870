"""The search: engine, phases, objective, optimisers, schedules, results."""

from pulse_framework.search.annealing import annealed
from pulse_framework.search.bank import LatentBank
from pulse_framework.search.encoder_start import EncoderStart
from pulse_framework.search.engine import Engine
from pulse_framework.search.file_start import FileStart
from pulse_framework.search.geocross import Geocross
from pulse_framework.search.jittered import JitteredAdam
from pulse_framework.search.langevin import Langevin
from pulse_framework.search.latent_terms import Coupling, GaussianEnergy, LatentNorm, PairwiseCosine
from pulse_framework.search.lbfgs import LBFGS
from pulse_framework.search.levenberg import LevenbergMarquardt
from pulse_framework.search.likelihoods import (
    GaussianLikelihood,
    HuberConsistency,
    NoiseLikelihood,
    PoissonLikelihood,
    StudentLikelihood,
)
from pulse_framework.search.noise_terms import NoiseAutocorrelation
from pulse_framework.search.objective import Evaluation, L1Consistency, L2Consistency, Objective, PriorEnergy, Term
from pulse_framework.search.optimisers import NGD, SGD, Adam, Adamax, FirstOrder, Iterate, Optimiser
from pulse_framework.search.parts import PREFIX, part
from pulse_framework.search.perceptual import FeatureConsistency
from pulse_framework.search.phases import Phase, Search, StopRule, mse_from_db, psnr_db
from pulse_framework.search.plan import Answer, Plan
from pulse_framework.search.progress import Progress, Snapshot
from pulse_framework.search.result import SearchResult, Status, StopReason
from pulse_framework.search.schedules import Constant, CosineRamps, Linear1Cycle, Linear1CycleDrop, Schedule
from pulse_framework.search.settings import Settings, by_target, multi_phase, single_phase
from pulse_framework.search.starting import MeanStart, NearestDraw, Start
from pulse_framework.search.streams import draw, stream

__all__ = [
    "LBFGS",
    "NGD",
    "PREFIX",
    "SGD",
    "Adam",
    "Adamax",
    "Answer",
    "Constant",
    "CosineRamps",
    "Coupling",
    "EncoderStart",
    "Engine",
    "Evaluation",
    "FeatureConsistency",
    "FileStart",
    "FirstOrder",
    "GaussianEnergy",
    "GaussianLikelihood",
    "Geocross",
    "HuberConsistency",
    "Iterate",
    "JitteredAdam",
    "L1Consistency",
    "L2Consistency",
    "Langevin",
    "LatentBank",
    "LatentNorm",
    "LevenbergMarquardt",
    "Linear1Cycle",
    "Linear1CycleDrop",
    "MeanStart",
    "NearestDraw",
    "NoiseAutocorrelation",
    "NoiseLikelihood",
    "Objective",
    "Optimiser",
    "PairwiseCosine",
    "Phase",
    "Plan",
    "PoissonLikelihood",
    "PriorEnergy",
    "Progress",
    "Schedule",
    "Search",
    "SearchResult",
    "Settings",
    "Snapshot",
    "Start",
    "Status",
    "StopReason",
    "StopRule",
    "StudentLikelihood",
    "Term",
    "annealed",
    "by_target",
    "draw",
    "mse_from_db",
    "multi_phase",
    "part",
    "psnr_db",
    "single_phase",
    "stream",
]
