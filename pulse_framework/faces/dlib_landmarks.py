"""dlib's frontal face detector and its 68 landmarks, for machines without a network.

The detector (histograms of oriented gradients, five views) is part of dlib; the shape predictor of Kazemi and Sullivan, "One
Millisecond Face Alignment with an Ensemble of Regression Trees", CVPR 2014, is a file of the package face-recognition-models.
That file is found without importing the package, whose import needs what current installers leave out. It was trained on iBUG
300-W, whose licence excludes commercial use.
"""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pulse_framework.faces.face import Face, FaceDetector
from pulse_framework.faces.zoom import to_bytes, zoomed

__all__ = ["DlibDetector", "dlib_missing"]

_MODEL = "shape_predictor_68_face_landmarks.dat"
_ADVICE = "pip install pulse-latent[faces]"
_SMALLEST = 80
"""Side of the smallest face that the detector sees, in pixels; a photo is doubled to see those of half the size."""
_PIXELS = 16_000_000
"""Largest doubled photo."""


def dlib_missing() -> str:
    """What is missing for this detector, in words; empty if it can work."""
    if importlib.util.find_spec("dlib") is None:
        return "dlib is not installed"
    return "" if _model() else f"face-recognition-models, with {_MODEL}, is not installed"


class DlibDetector(FaceDetector):
    """Faces that look ahead, from about 20 pixels a side, with 68 landmarks, each on a small face's own enlargement.

    Args:
        threshold: Least score that counts; the detector's own threshold is 0, and its errors are mostly just above it.

    Raises:
        ValueError: dlib or its model is not installed.
    """

    name = "dlib"

    def __init__(self, threshold: float = 0.25) -> None:
        if missing := dlib_missing():
            raise ValueError(f"faces: expected the detector dlib, got none, since {missing}; {_ADVICE}")
        self.threshold = threshold

    def __call__(self, photo: Float[Tensor, "3 H W"], path: str = "") -> list[Face]:
        """Faces, surest first."""
        del path
        detector, _ = _loaded()
        pixels = to_bytes(photo)
        boxes, scores, _ = detector.run(pixels, _doublings(*pixels.shape[:2]), self.threshold)
        faces = []
        for box, score in zip(boxes, scores, strict=True):
            sides = (float(box.left()), float(box.top()), float(box.right() + 1), float(box.bottom() + 1))
            faces.append(Face(sides, self.within(photo, sides), float(score), self.name))
        return faces

    def within(self, photo: Float[Tensor, "3 H W"], box: tuple[float, float, float, float]) -> np.ndarray:
        """The landmarks of the face in a given box (left, top, right, bottom), (68, 2)."""
        import dlib

        pixels, inside, offset, scale = zoomed(photo, box)
        left, top, right, bottom = (round(side) for side in inside)
        found = _loaded()[1](pixels, dlib.rectangle(left, top, right - 1, bottom - 1))
        return np.array([[point.x + 0.5, point.y + 0.5] for point in found.parts()]) / scale + offset


def _model() -> Path | None:
    spec = importlib.util.find_spec("face_recognition_models")
    folders = spec.submodule_search_locations if spec else None
    paths = [Path(folder, "models", _MODEL) for folder in folders or ()]
    return next((path for path in paths if path.is_file()), None)


@lru_cache(maxsize=1)
def _loaded() -> tuple[Any, Any]:
    import dlib

    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(_model()))


def _doublings(height: int, width: int) -> int:
    """How often the photo is doubled: twice, for faces of 20 pixels, unless it is too large for that."""
    return next((times for times in (2, 1) if height * width * 4**times <= _PIXELS), 0)
