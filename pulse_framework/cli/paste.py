"""Answers put back into their photos, as soon as all faces of one are answered."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_framework.cli.compose import ConfigError
from pulse_framework.cli.found import Faces, Found, Photos, read_json
from pulse_framework.files import write_atomic
from pulse_framework.grid import grid
from pulse_framework.images import png_bytes, read_image
from pulse_framework.provenance import COMPOSITE, png_text, said
from pulse_framework.runtime import Finished, SearchModule, SearchObserver, Source

__all__ = ["Paste", "Pasting"]

RECORD = "photo.json"
"""What was made of a photo, beside its measurements."""
SUFFIXES = (".png", ".tif", ".webp")
OVERVIEW = 2048
"""Most pixels a side of each half of a picture of before and after."""


@dataclass(frozen=True)
class Pasting:
    """What is made of answers.

    Attributes:
        scale: How many times larger the photo becomes.
        before_after: Whether there is a picture of both.
        only_crops: Whether nothing is put back.
        copy: Whether a photo without faces is written too.
        samples: Answers of each face.
        generator: Its name.
        seed: Of the run.
        settings: Everything else that a result depends on.
    """

    scale: int
    before_after: bool
    only_crops: bool
    copy: bool
    samples: int
    generator: str
    seed: int
    settings: Mapping[str, Any]

    def names(self, faces: Faces) -> list[str]:
        """Of what is made of a photo, without ending: one for each sample."""
        return [faces.name] if self.samples == 1 or not faces.found else [f"{faces.name}_{k}" for k in range(self.samples)]

    def crop(self, faces: Faces, face: Found, sample: int) -> str:
        """Name of the picture of a face."""
        return f"{faces.stem(face)}{'' if self.samples == 1 else f'_{sample}'}.png"


@dataclass
class Paste(SearchObserver):
    """Writes each photo once its last face is answered, and at the end what is missing.

    Attributes:
        photos: Decodes photos.
        output: The folder.
        how: What is made.
        inputs: The photos, each once.
        written: Files written, in order.
        restored: How many photos have new faces.
        best_db: Consistency of the best answer of each face with the pixels that it covers, in dB.
    """

    photos: Photos
    output: Path
    how: Pasting
    inputs: Sequence[Faces]
    written: list[Path] = field(default_factory=list)
    restored: int = 0
    best_db: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._of = {faces.path(face): (faces, face.share) for faces in self.inputs for face in faces.found}
        self._left: dict[Path, set[Path]] = {}
        self._done: set[Path] = set()
        self._recorded: set[str] = set()
        self._read = 0

    def expect(self, sources: Sequence[Source]) -> None:
        """Hear which faces are to be answered."""
        for source in sources:
            self._left.setdefault(self._of[source.path][0].folder, set()).add(source.path)

    def check_free(self, *, overwrite: bool) -> None:
        """Refuse to write over a photo, or, unless told to, over what is not an earlier run's of these settings.

        Raises:
            ConfigError: Something is in the way.
        """
        given = {faces.source.path.resolve() for faces in self.inputs}
        for faces in self.inputs:
            record = read_json(faces.folder / RECORD)
            ours = set(record.get("files", ())) if record.get("settings") == self._settings(faces) else set()
            for stem in self.how.names(faces):
                made = [f"{stem}{suffix}" for suffix in {*SUFFIXES, faces.source.path.suffix, "_before_after.png"}]
                for name in (name for name in made if (self.output / name).exists()):
                    if (self.output / name).resolve() in given:
                        raise ConfigError(
                            f"output {self.output}: expected a folder that is not the input's, got {self.output / name}; choose"
                            " another"
                        )
                    if not (overwrite or name in ours or self.how.only_crops):
                        raise ConfigError(
                            f"output {self.output}: expected no {name} of other settings or inputs, got one; choose another"
                            " folder or add --overwrite"
                        )

    def on_answer(self, module: SearchModule, finished: Finished) -> None:
        """One face less; with the last one its photo is written."""
        faces, share = self._of[finished.source.path]
        self.best_db.append(finished.answer.samples[0].psnr_db + 10 * math.log10(share))
        left = self._left[faces.folder]
        left.discard(finished.source.path)
        if not left:
            self._put_back(faces)

    def conclude(self) -> None:
        """Write what no answer of this run has led to."""
        for faces in self.inputs:
            if faces.folder not in self._done:
                self._put_back(faces)

    def _settings(self, faces: Faces) -> dict[str, Any]:
        how = self.how
        made = {"generator": how.generator, "seed": how.seed, "samples": how.samples}
        return {"photo": faces.print, "scale": how.scale, "before_after": how.before_after, **made}

    def _put_back(self, faces: Faces) -> None:
        """Write what is made of a photo, unless it is there."""
        self._done.add(faces.folder)
        if os.environ.get("LOCAL_RANK", "0") != "0":  # the first process of several has all answers
            return
        outputs = self._outputs()
        crops = [
            [(face, self.output / name) for face in faces.found if (name := self.how.crop(faces, face, k)) in outputs]
            for k in range(len(self.how.names(faces)))
        ]
        self.restored += any(crops)
        if self.how.only_crops or not (any(crops) or (self.how.copy and not faces.found)):
            return
        now = {"settings": self._settings(faces), "faces": [[_sha256(path) for _, path in some] for some in crops]}
        known = read_json(faces.folder / RECORD)
        before = known.get("files", {})
        if {key: known.get(key) for key in now} == now and all(_sha256(self.output / name) == of for name, of in before.items()):
            return
        if not faces.found and self.how.scale == 1:
            self._copy(faces, now)
            return
        files: dict[str, str] = {}
        photo = self.photos(faces.source.path).enlarged(self.how.scale)
        planned = [f"{stem}{suffix}" for stem in self.how.names(faces) for suffix in (photo.suffix, "_before_after.png")]
        write_atomic(faces.folder / RECORD, json.dumps({**now, "faces": None, "files": dict.fromkeys(planned, "")}).encode())
        for stem, some in zip(self.how.names(faces), crops, strict=True):
            text = said(self.how.generator, self.how.seed, settings=self.how.settings) if some else {}
            canvas = photo
            for face, path in some:
                canvas = canvas.with_face(read_image(path), face.square.scaled(self.how.scale))
            made = self.output / f"{stem}{photo.suffix}"
            made.parent.mkdir(parents=True, exist_ok=True)
            canvas.write(made, text)
            self._keep(made, files)
            if some and self.how.before_after:
                pair = grid([[photo.overview(OVERVIEW), canvas.overview(OVERVIEW)]])
                both = self.output / f"{stem}_before_after.png"
                write_atomic(both, png_bytes(pair, png_text(text, COMPOSITE)))
                self._keep(both, files)
        write_atomic(faces.folder / RECORD, json.dumps({**now, "files": files}).encode())

    def _copy(self, faces: Faces, now: Mapping[str, Any]) -> None:
        """Write a photo without faces as it is, byte for byte."""
        made, files = self.output / f"{faces.name}{faces.source.path.suffix}", dict[str, str]()
        made.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(
            faces.folder / RECORD,
            json.dumps({**now, "faces": None, "files": {made.relative_to(self.output).as_posix(): ""}}).encode(),
        )
        write_atomic(made, faces.source.path.read_bytes())
        self._keep(made, files)
        write_atomic(faces.folder / RECORD, json.dumps({**now, "files": files}).encode())

    def _outputs(self) -> set[str]:
        """Pictures of faces that are in ``results.jsonl``, which is read on from where it was read to."""
        results = self.output / "results.jsonl"
        if results.exists():
            with results.open("rb") as file:
                file.seek(self._read)
                lines = [json.loads(text) for text in file]
                self._read = file.tell()
            self._recorded |= {line["output"] for line in lines if line.get("output")}
        return self._recorded

    def _keep(self, path: Path, files: dict[str, str]) -> None:
        self.written.append(path)
        files[path.relative_to(self.output).as_posix()] = _sha256(path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""
