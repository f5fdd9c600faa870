"""Faces that somebody else found: boxes or landmarks from a file.

JSON: an object with the photos' paths or names as keys and lists of faces as values, or such a list for every photo. A face is
``{"box": [left, top, right, bottom], "landmarks": [[x, y], ...], "score": s}`` with either of the first two; the sidecars of
``pulse align`` are files of this kind. CSV: a header and a line for each face, with columns ``file``, then ``left, top, right,
bottom``, or ``x0, y0, x1, y1, ...`` for 5 or 68 landmarks, or both, and ``score`` if there is one.
"""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from pulse_framework.faces.face import Face, FaceDetector

__all__ = ["GivenFaces"]

_SIDES = ("left", "top", "right", "bottom")


class GivenFaces(FaceDetector):
    """What a JSON or CSV file says.

    A photo is looked up by its whole path as given, else by its file name. A photo that the file does not name has no faces.

    Args:
        path: Of the file.

    Raises:
        ValueError: It cannot be read or says something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.name = self.path.name
        try:
            text = self.path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"faces {path}: expected a readable JSON or CSV file, got {error}; check the path") from error
        self._faces = self._rows(text) if self.path.suffix.lower() == ".csv" else self._entries(text)

    def __call__(self, photo: Float[Tensor, "3 H W"], path: str = "") -> list[Face]:
        """The faces of the photo at this path, in the file's order."""
        del photo
        for key in (path, Path(path).name, ""):
            if key in self._faces:
                return self._faces[key]
        return []

    def _entries(self, text: str) -> dict[str, list[Face]]:
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"faces {self.path}: expected JSON, got {error}; name a CSV file .csv") from error
        if isinstance(content, dict) and isinstance(content.get("faces"), list):  # a sidecar of pulse align
            content = {str(content.get("photo", "")): content["faces"]}
        named = content if isinstance(content, dict) else {"": content}
        faces: dict[str, list[Face]] = {}
        for key, entries in named.items():
            if not isinstance(entries, list):
                raise ValueError(f"faces {self.path}, {key!r}: expected a list of faces, got {type(entries).__name__}")
            faces[key] = [self._face(entry, f"{key!r}, face {i}") for i, entry in enumerate(entries)]
        return faces

    def _rows(self, text: str) -> dict[str, list[Face]]:
        faces: dict[str, list[Face]] = {}
        for number, row in enumerate(csv.DictReader(text.splitlines(), skipinitialspace=True), 2):
            entry: dict[str, Any] = {"score": row["score"]} if row.get("score") else {}
            if all(row.get(side) for side in _SIDES):
                entry["box"] = [row[side] for side in _SIDES]
            count = next((n for n in (68, 5) if row.get(f"x{n - 1}") and row.get(f"y{n - 1}")), 0)
            if count:
                entry["landmarks"] = [[row.get(f"x{i}"), row.get(f"y{i}")] for i in range(count)]
            faces.setdefault(row.get("file") or "", []).append(self._face(entry, f"line {number}"))
        return faces

    def _face(self, entry: object, where: str) -> Face:
        where = f"faces {self.path}, {where}"
        if not isinstance(entry, dict) or not (entry.get("box") or entry.get("landmarks")):
            raise ValueError(f"{where}: expected a box or landmarks, got {str(entry)[:80]}; see docs/faces.md")
        try:
            points = np.array(entry["landmarks"], dtype=np.float64) if entry.get("landmarks") else None
            if points is not None and not entry.get("box"):
                Face((0, 0, 1, 1), points)  # of the right shape, before anything is made of them
                (left, top), (right, bottom) = points.min(0), points.max(0)
            else:
                left, top, right, bottom = (float(side) for side in entry["box"])
            score = None if entry.get("score") is None else float(entry["score"])
            return Face((float(left), float(top), float(right), float(bottom)), points, score, self.name)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: expected numbers in pixels, got {' '.join(str(error).split())}; correct it") from error
