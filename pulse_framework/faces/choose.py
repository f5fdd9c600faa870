"""Which detector there is."""

import logging
from pathlib import Path

from pulse_framework.faces.dlib_landmarks import DlibDetector, dlib_missing
from pulse_framework.faces.face import FaceDetector
from pulse_framework.faces.fan import FanDetector
from pulse_framework.faces.given import GivenFaces

__all__ = ["BACKENDS", "detector"]

BACKENDS = ("auto", "face-alignment", "blazeface", "dlib")
"""Names of detectors; anything else is a file of boxes or landmarks."""

_LOG = logging.getLogger(__name__)


def detector(backend: str = "auto", device: str = "cpu") -> FaceDetector:
    """The detector of a name.

    ``auto`` is face-alignment, and dlib where face-alignment or its models cannot be had, which is logged as a warning.

    Args:
        backend: ``auto``, ``face-alignment`` (with boxes of S3FD), ``blazeface`` (face-alignment with boxes of BlazeFace),
            ``dlib``, or the path of a JSON or CSV file.
        device: Of face-alignment's networks.

    Raises:
        ValueError: It cannot be had.
    """
    if backend in ("face-alignment", "blazeface"):
        return FanDetector("sfd" if backend == "face-alignment" else "blazeface", device)
    if backend == "dlib":
        return DlibDetector()
    if backend != "auto":
        if not Path(backend).is_file():
            raise ValueError(f"faces backend: expected one of {', '.join(BACKENDS)}, or a file of boxes, got {backend!r}")
        return GivenFaces(backend)
    try:
        return FanDetector(device=device)
    except ValueError as error:
        if missing := dlib_missing():
            raise ValueError(
                f"{error}. The offline detector is of no help: {missing}; pip install pulse-latent[faces]"
            ) from error
        _LOG.warning("%s. Using dlib instead", error)
        return DlibDetector()
