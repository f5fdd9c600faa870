"""The package face-alignment: landmarks by FAN, in boxes of S3FD or BlazeFace.

Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D Face Alignment problem?", ICCV 2017, arXiv:1703.07332; Zhang et
al., "S3FD: Single Shot Scale-invariant Face Detector", ICCV 2017. The package downloads its models when it is first used and
keeps them in the cache folder of torch.hub. Here they are put there beforehand, so that what is missing can be said, what is
downloaded is checked against the hash in its name, and nothing in the detector's file is run.
"""

import hashlib
import importlib.util
import logging
import math
import os
import warnings
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pulse_framework.faces.face import Face, FaceDetector
from pulse_framework.faces.zoom import to_bytes, zoomed
from pulse_framework.weights.sources import bring

__all__ = ["FanDetector"]

_HOST = "https://www.adrianbulat.com/downloads/python-fan/"
_BLAZE = "https://github.com/hollance/BlazeFace-PyTorch/raw/master/"
LANDMARKS = f"{_HOST}2DFAN4-11f355bf06.pth.tar"
DETECTORS = {"sfd": (f"{_HOST}s3fd-619a316812.pth",), "blazeface": (f"{_BLAZE}blazeface.pth", f"{_BLAZE}anchors.npy")}
_PIXELS = 1_000_000
"""Larger photos are reduced to as many for the boxes, since S3FD takes 800 bytes for each; landmarks are found at full size."""
_LOG = logging.getLogger(__name__)


class FanDetector(FaceDetector):
    """68 landmarks, of quarters of FAN's heat maps' pixels.

    Args:
        boxes: ``sfd``, the surer, or ``blazeface``, the faster.
        device: Where the networks run: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ValueError: The package is not installed, there is no such detector, or a model is neither in the cache nor to be had.
    """

    name = "face-alignment"

    def __init__(self, boxes: str = "sfd", device: str = "cpu") -> None:
        if boxes not in DETECTORS:
            raise ValueError(f"faces boxes: expected one of {', '.join(DETECTORS)}, got {boxes!r}")
        if importlib.util.find_spec("face_alignment") is None:
            raise ValueError("faces: expected the package face-alignment, got none; pip install pulse-latent[faces]")
        self._network = _loaded(_model(LANDMARKS), tuple(map(_model, DETECTORS[boxes])), boxes, device)

    def __call__(self, photo: Float[Tensor, "3 H W"], path: str = "") -> list[Face]:
        """Faces, surest first."""
        del path
        height, width = photo.shape[-2:]
        part = min(1.0, math.sqrt(_PIXELS / (height * width)))
        if part < 1:
            size = (max(1, round(height * part)), max(1, round(width * part)))
            reduced = functional.interpolate(photo[None], size, mode="area")[0]
        else:
            reduced = photo
        back = np.array([width / reduced.shape[-1], height / reduced.shape[-2]] * 2)
        faces = []
        for row in self._network.face_detector.detect_from_image(to_bytes(reduced)):
            left, top, right, bottom = (float(side) for side in np.asarray(row)[:4] * back)
            box = (left, top, right, bottom)
            faces.append(Face(box, self.within(photo, box), float(row[-1]), self.name))
        faces.sort(key=lambda face: -(face.score or 0.0))
        return faces

    def within(self, photo: Float[Tensor, "3 H W"], box: tuple[float, float, float, float]) -> np.ndarray:
        """The landmarks of the face in a given box (left, top, right, bottom), (68, 2)."""
        pixels, inside, offset, scale = zoomed(photo, box)
        (points,) = self._network.get_landmarks_from_image(pixels, detected_faces=[np.array(inside)])
        return (np.asarray(points, dtype=np.float64) + 0.5) / scale + offset  # the package gives indices of pixels


@lru_cache(maxsize=2)
def _loaded(landmarks: Path, detector: tuple[Path, ...], boxes: str, device: str) -> Any:  # noqa: ANN401 - the package has no types
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import face_alignment

        paths = dict(zip(("path_to_detector", "path_to_anchor"), map(str, detector), strict=False))
        kind = face_alignment.LandmarksType.TWO_D
        try:
            return face_alignment.FaceAlignment(
                kind, device=device, face_detector=boxes, face_detector_kwargs=paths, compile=False
            )
        except Exception as error:
            files = ", ".join(map(str, (landmarks, *detector)))
            why = " ".join(str(error).split())[:300]
            raise ValueError(
                f"faces: expected models of face-alignment in {files}, got {why}; delete what is damaged to fetch it anew"
            ) from error


def _model(url: str) -> Path:
    """Path of a model in torch.hub's cache, downloaded first if need be."""
    import torch

    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.is_file():
        return path
    wanted = f"faces: expected the model {path.name} of face-alignment in {path.parent}, got none"
    by_hand = f"get {url} on another machine and copy it there, or use another backend"
    if os.environ.get("PULSE_OFFLINE", "0") not in ("", "0"):
        raise ValueError(f"{wanted}, and PULSE_OFFLINE forbids the network; unset it, or {by_hand}")
    _LOG.warning("faces: downloading %s to %s, once", url, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(prefix=".fetch-", dir=path.parent) as folder:
            file = bring(url, Path(folder), lambda *_: None)
            _check(file, path.name)
            file.replace(path)
    except Exception as error:
        raise ValueError(f"{wanted}, and the download failed ({' '.join(str(error).split())[:300]}); {by_hand}") from error
    return path


def _check(file: Path, name: str) -> None:
    """Refuse a file whose SHA-256 does not start with the digits at the end of its name, if it has them, as torch.hub's do."""
    _, hyphen, rest = name.partition("-")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if hyphen and not digest.startswith(rest.partition(".")[0]):
        raise ValueError(f"expected a SHA-256 that starts with {rest.partition('.')[0]}, got {digest}")
