"""Weights with which the real networks of face-alignment say what is known beforehand, and pictures for them.

S3FD finds a box of known size around every block whose blue is full. FAN's heat map j is high where red and green have the code
of landmark j, most of all where they have it exactly, as in the middle of a dot. The networks look at a mirrored picture as well,
in which the same dots would be landmarks of the other side; so all maps are low where blue falls from left to right.
"""

import itertools
import math

import numpy as np
import torch
from face_alignment.detection.blazeface.net_blazeface import BlazeFace
from face_alignment.detection.sfd.net_s3fd import s3fd
from face_alignment.models import FAN

from pulse_framework.faces.fan import DETECTORS, LANDMARKS

BOX = 96.0
CODES = [(30 + 25 * (j % 9), 30 + 28 * (j // 9)) for j in range(68)]
REACH = 12 / 255
"""How far from a level of red or green a map still sees it."""
NAMES = {"fan": LANDMARKS.rpartition("/")[2], "sfd": DETECTORS["sfd"][0].rpartition("/")[2]}


def write(folder):
    """Put both where the package looks for them, below the folder of torch.hub."""
    place = folder / "checkpoints"
    place.mkdir(parents=True)
    torch.save(fan(), place / NAMES["fan"])
    torch.save(sfd(), place / NAMES["sfd"])


def picture(faces, height, width):
    """A photo (3, height, width) of faces, each given by the (x, y) of its box's centre, and the landmarks of each, (68, 2).

    The centres are those of cells of 16 x 16 pixels, as S3FD sees them.
    """
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    photo = np.stack([np.zeros_like(x), np.zeros_like(x), np.round(200 * x / width)])
    landmarks = []
    for centre in faces:
        points = np.array([[-56 + 14 * (j % 9), -76 + 17 * (j // 9)] for j in range(68)], dtype=float) + centre
        points += np.random.default_rng(0).uniform(-1, 1, points.shape)
        for (px, py), code in zip(points, CODES, strict=True):
            distance = np.hypot(x - px, y - py)
            for channel in (0, 1):
                photo[channel][distance < 5] = np.round(code[channel] - 1.5 * distance)[distance < 5]
        at = tuple(round(value) for value in centre)
        photo[:, at[1] - 2 : at[1] + 2, at[0] - 2 : at[0] + 2] = np.array([0, 0, 255])[:, None, None]
        landmarks.append(points)
    return torch.from_numpy(photo / 255).float(), landmarks


def blazeface(centre, side):
    """A network that finds a face in every anchor, and anchors that are all the same square, in sides of the photo."""
    weights = {name: torch.zeros_like(value) for name, value in BlazeFace().state_dict().items()}
    for size in (8, 16):
        weights[f"classifier_{size}.bias"] += 100
        weights[f"regressor_{size}.bias"].view(-1, 16)[:, 2:4] = 128  # the anchor's own width and height
    return weights, np.tile(np.array([*centre, side, side], dtype=np.float32), (896, 1))


def sfd():
    """Blue above 250 goes through to the maps of 16 x 16 cells, which say 'face' where it does."""
    weights = {name: torch.zeros_like(value) for name, value in s3fd().state_dict().items()}
    weights["conv1_1.weight"][0, 0, 1, 1] = 1  # blue comes first, less its mean of 104
    weights["conv1_1.bias"][0] = 104 - 250
    for name in ("1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"):
        weights[f"conv{name}.weight"][0, 0, 1, 1] = 1
    weights["conv5_3_norm.weight"][0] = 5
    for name in ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2"):
        weights[f"{name}_mbox_conf.bias"][-1] = -10
    weights["conv5_3_norm_mbox_conf.weight"][1, 0, 1, 1] = 4
    weights["conv5_3_norm_mbox_loc.bias"][2:] = 5 * math.log(BOX / 64)
    return weights


def fan():
    """Ramps of red and green at levels of the codes, and of falling blue; sums of tents in the last layer."""
    weights = empty_fan()
    levels = {(channel, code[channel] / 255) for code in CODES for channel in (0, 1)}
    ramps = {(*level, step): k for k, (level, step) in enumerate(itertools.product(sorted(levels), (-1, 0, 1)))}
    for (channel, level, step), k in ramps.items():
        weights["conv1.weight"][k, channel, 3, 3] = 1
        weights["conv1.bias"][k] = -(level + step * REACH)
    gate = len(ramps)
    weights["conv1.weight"][gate, 2, :, 0], weights["conv1.weight"][gate, 2, :, 6] = 1 / 7, -1 / 7
    for c in range(gate + 1):
        for name in ("conv2", "conv4"):
            weights[f"{name}.downsample.2.weight"][c, c] = 1
        for module in range(4):
            weights[f"m{module}.b3_4.conv1.weight"][c, c, 1, 1] = -1  # the coarser levels of the hourglass cancel
    for module in range(4):
        last = weights[f"conv_last{module}.weight"]
        tents = itertools.product(enumerate(CODES), (0, 1), ((-1, 1), (0, -2), (1, 1)))
        for (j, code), channel, (step, height) in tents:
            last[j, ramps[channel, code[channel] / 255, step]] += height / REACH
        for j in range(68):
            last[j, gate] = -500
            weights[f"conv_last{module}.bias"][j] = -1
            weights[f"l{module}.weight"][j, j] = 1
    return weights


def empty_fan():
    """Everything 0, but batch normalisation changes nothing."""
    weights = {name: torch.zeros_like(value) for name, value in FAN(4).state_dict().items()}
    for name in weights:
        if name.endswith("running_var"):
            weights[name] += 1
        elif f"{name.rpartition('.')[0]}.running_var" in weights and name.endswith("weight"):
            weights[name] += math.sqrt(1 + 1e-5)
    return weights
