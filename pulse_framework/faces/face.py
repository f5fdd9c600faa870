"""What a detector finds. Points are (x, y) in pixels of the upright photo, from the outer corner of its first pixel."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

__all__ = ["Face", "FaceDetector"]


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a photo.

    Attributes:
        box: Left, top, right and bottom, in pixels; the first pixel reaches from 0 to 1 and has its centre at (0.5, 0.5).
        landmarks: Points (x, y), (68, 2) in the order of iBUG 300-W, or (5, 2): the eye at the left of the picture, the one at
            the right, the tip of the nose, the mouth's left and right corners. None where only the box is known.
        score: Confidence, higher is surer, in units of the detector's own; None if the detector gives none.
        found_by: Name of the detector.

    Raises:
        ValueError: The box has no area, or the landmarks have another shape or are not finite.
    """

    box: tuple[float, float, float, float]
    landmarks: np.ndarray | None = None
    score: float | None = None
    found_by: str = ""

    def __post_init__(self) -> None:
        left, top, right, bottom = self.box
        if not np.isfinite(self.box).all() or not (left < right and top < bottom):
            raise ValueError(f"face box: expected left < right and top < bottom, in pixels, got {self.box}; correct it")
        if self.landmarks is not None:
            points = np.asarray(self.landmarks, dtype=np.float64)
            if points.shape not in ((68, 2), (5, 2)) or not np.isfinite(points).all():
                raise ValueError(
                    f"face landmarks: expected 68 or 5 finite points (x, y), got an array of shape {points.shape}; correct them"
                )
            object.__setattr__(self, "landmarks", points)

    @property
    def size(self) -> float:
        """The smaller side of the box, in pixels."""
        return min(self.box[2] - self.box[0], self.box[3] - self.box[1])

    @property
    def five(self) -> np.ndarray | None:
        """Centres of the eyes, tip of the nose, corners of the mouth, (5, 2); of 68 landmarks an eye's are averaged."""
        points = self.landmarks
        if points is None or len(points) == 5:
            return points
        return np.stack([points[36:42].mean(0), points[42:48].mean(0), points[30], points[48], points[54]])


class FaceDetector(ABC):
    """Finds faces in a photo.

    Attributes:
        name: For reports.
    """

    name: str = ""

    @abstractmethod
    def __call__(self, photo: Float[Tensor, "3 H W"], path: str = "") -> list[Face]:
        """The faces, surest first.

        Args:
            photo: Upright, RGB in [0, 1].
            path: Where it is from, for detectors that read what others found, and for errors.

        Raises:
            ValueError: The detector cannot do its work on this photo.
        """
