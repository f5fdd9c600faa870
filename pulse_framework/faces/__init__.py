"""Faces in photos: finding them, cutting them out as a generator wants them, and putting them back."""

from pulse_framework.faces.alignment import FFHQ, Framing, Square, crop, place
from pulse_framework.faces.choose import BACKENDS, detector
from pulse_framework.faces.face import Face, FaceDetector

__all__ = ["BACKENDS", "FFHQ", "Face", "FaceDetector", "Framing", "Square", "crop", "detector", "place"]
