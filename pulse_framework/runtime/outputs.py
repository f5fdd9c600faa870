"""The folder of a run: what is there already, and how results are written to it.

Every file appears whole or not at all (temporary name, flush, rename), and a line of ``results.jsonl`` is only written after the
files that it names. Latents carry a fingerprint of the input's bytes and the settings, by which a later run into the same
folder knows what is done.
"""

import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from pulse_framework.files import remove_parts, write_atomic
from pulse_framework.images import png_bytes, write_png
from pulse_framework.provenance import COMPOSITE, SYNTHETIC, png_text, said
from pulse_framework.runtime.claim import Claim
from pulse_framework.runtime.intake import Rejected, Source
from pulse_framework.runtime.latent_files import DAMAGED, fingerprint_of, write_latents
from pulse_framework.runtime.module import Finished
from pulse_framework.runtime.ranks import leads
from pulse_framework.runtime.spread import distances, mean_and_deviation
from pulse_framework.search import SearchResult, Status, psnr_db

__all__ = ["OutputFolder"]


RESULTS = "results.jsonl"


class OutputFolder:
    """Where one run writes.

    Of several processes the first holds the folder and decides what is left; the others' lines are in hidden files until the end.

    Args:
        folder: Made if it is missing.
        generator: Name of the generator, for the records.
        degradation: Name of the degradation, for the records.
        samples: Samples of each image.
        settings: Everything that a result depends on besides the input.
        overwrite: Whether results of other settings may be replaced.
        own: Name and settings of the degradation of inputs that have one of their own, by index.
        describe: Says more of an input: takes it and one of its lines, and gives the line that is written.

    Raises:
        ValueError: The folder cannot be made or written to, or another run is writing to it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        generator: str,
        degradation: str,
        samples: int,
        settings: Mapping[str, Any],
        overwrite: bool = False,
        own: Mapping[int, tuple[str, Mapping[str, Any]]] | None = None,
        describe: Callable[[Source, dict[str, Any]], dict[str, Any]] | None = None,
    ) -> None:
        self.folder, self.generator, self.degradation = folder, generator, degradation
        self.samples, self.overwrite = samples, overwrite
        self._settings, self._own, self._describe = dict(settings), dict(own or {}), describe
        self.leads = leads()
        self.results = folder / (RESULTS if self.leads else f".results-{uuid.uuid4().hex}.jsonl")
        self._claim: Claim | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.leads:
                write_atomic(folder / ".writable", b"")
                (folder / ".writable").unlink()
                self._claim = Claim(folder)
                remove_parts(folder)
        except OSError as error:
            raise ValueError(f"output {folder}: expected a folder to write to, got: {error.strerror}; choose another") from error

    @property
    def everything(self) -> dict[str, Any]:
        """All that results depend on besides the inputs."""
        return {**self._settings, "own": sorted(json.dumps(own, sort_keys=True) for own in self._own.values())}

    def release(self) -> None:
        """Let other runs have the folder."""
        if self._claim:
            self._claim.release()

    def stems(self, source: Source) -> list[str]:
        """Names, without ending, of the files of each sample."""
        return [source.name] if self.samples == 1 else [f"{source.name}_{k}" for k in range(self.samples)]

    def fingerprint(self, source: Source) -> str:
        """Identifies the input's bytes and everything else the result depends on."""
        _, changes = self._degradation_of(source)
        digest = hashlib.sha256(json.dumps({**self._settings, **changes}, sort_keys=True).encode())
        digest.update(source.key.encode() + b"\0")
        try:
            digest.update(source.path.read_bytes())
        except OSError:
            return ""
        return digest.hexdigest()

    def remaining(self, sources: Iterable[Source]) -> list[Source]:
        """Those that are not done; what older runs recorded of them is struck from ``results.jsonl``.

        To any process but the first, which decides for all, everything is left.

        Raises:
            ValueError: Results of other settings or inputs are in the way, and may not be replaced.
        """
        sources = list(sources)
        if not self.leads:
            return sources
        self.merge()
        written = self._written()
        for source in sources:
            if source.path.resolve() in {(self.folder / f"{stem}.png").resolve() for stem in self.stems(source)}:
                raise ValueError(
                    f"output {self.folder}: expected a folder that is not the input's, got {source.path}; choose another"
                )
        recorded = set().union(*written.values())
        left = sources if self.overwrite else [source for source in sources if not self._done(source, recorded)]
        older = {source: {name.removesuffix(".png") for name in written.get(str(source.path), ())} for source in left}
        names = {source: set(self.stems(source)) | older[source] for source in left}
        taken = [stem for source in left for stem in sorted(names[source]) if not self._may_replace(source, stem)]
        if taken and not self.overwrite:
            raise ValueError(
                f"output {self.folder}: expected no results of other settings or inputs, got {taken[0]}.png and "
                f"{len(taken) - 1} more; choose another folder or add --overwrite"
            )
        stale = {stem for source in left for stem in names[source] - set(self.stems(source))}
        several = {source.name for source in left if f"{source.name}_0" in stale}
        stale |= {f"{name}_{what}" for name in several for what in ("mean", "std")} - set().union(*names.values())
        self._strike({str(source.path) for source in left}, {f"{stem}.png" for stems in names.values() for stem in stems})
        for stem in stale:
            (self.folder / f"{stem}.png").unlink(missing_ok=True)
            (self.folder / f"{stem}.safetensors").unlink(missing_ok=True)
        return left

    def write_answer(self, finished: Finished) -> list[Path]:
        """Write pictures and latents of an answered image, then its lines; returns the pictures.

        Of several samples also mean and standard deviation of every pixel, the latter doubled: 1/2 is the most there is.
        """
        source, written = finished.source, []
        fingerprint = self.fingerprint(source)
        apart = distances(finished.answer.samples)
        sound = [p for p, r in zip(finished.pictures, finished.answer.samples, strict=True) if r.status is not Status.FAILED]
        if len(sound) > 1:
            mean, deviation = mean_and_deviation(sound)
            told = png_text(said(self.generator, finished.answer.samples[0].seed))
            write_png(mean, self.folder / f"{source.name}_mean.png", told)
            write_png(2 * deviation, self.folder / f"{source.name}_std.png", told)
        for sample, (stem, result) in enumerate(zip(self.stems(source), finished.answer.samples, strict=True)):
            output, latent = f"{stem}.png", f"{stem}.safetensors"
            if result.status is not Status.FAILED:
                name, own = self._degradation_of(source)
                settings = {**self._settings, **own}
                text = said(self.generator, result.seed, degradation=name, restart=result.restart, settings=settings)
                whole = finished.pictures[sample] is result.image
                content = png_bytes(finished.pictures[sample], png_text(text, SYNTHETIC if whole else COMPOSITE))
                metadata = {
                    "generator": self.generator,
                    "degradation": self._degradation_of(source)[0],
                    "key": result.key,
                    "seed": str(result.seed),
                    "restart": str(result.restart),
                    "step": str(result.step),
                    "fingerprint": fingerprint,
                    "picture": hashlib.sha256(content).hexdigest(),
                }
                write_latents(self.folder / latent, result.latents, metadata)
                write_atomic(self.folder / output, content)
                written.append(self.folder / output)
            line = self._record(source, sample, result, finished.errors[sample], output, latent)
            line |= apart[sample] if self.samples > 1 else {}
            self._append(self._describe(source, line) if self._describe else line)
        return written

    def latents(self, source: Source) -> list[dict[str, Tensor]]:
        """Latent blocks, without N, of the samples that are there of an image, best first."""
        paths = [self.folder / f"{stem}.safetensors" for stem in self.stems(source)]
        return [load_file(path) for path in paths if path.exists()]

    def write_rejected(self, rejected: Rejected) -> None:
        """Record an input that could not be processed."""
        self._append(self._line(rejected.path, status="error", error=rejected.error))

    def strike_rejected(self, rejected: Iterable[Rejected]) -> None:
        """Strike what older runs recorded of inputs that cannot be processed."""
        if self.leads:
            self._strike({str(item.path) for item in rejected})

    def _degradation_of(self, source: Source) -> tuple[str, dict[str, Any]]:
        """Name of an input's degradation, and the settings in which it differs from the run."""
        if source.index not in self._own:
            return self.degradation, {}
        name, settings = self._own[source.index]
        return name, {"degradation": settings}

    def _line(self, path: Path, **known: str | float | Mapping[str, Any] | None) -> dict[str, Any]:
        fields = ("output", "sample", "seed", "status", "mse", "psnr_db", "target_db", "steps", "seconds")
        line: dict[str, Any] = {"input": str(path), **dict.fromkeys(fields)}
        line |= {"generator": self.generator, "degradation": self.degradation, "latent": None}
        return line | known

    def _record(
        self, source: Source, sample: int, result: SearchResult, errors: Mapping[str, float], output: str, latent: str
    ) -> dict[str, Any]:
        failed = result.status is Status.FAILED
        blind = {"parameters": None if failed else result.parameters} if result.parameters else {}
        if errors and not failed:
            blind["parameter_errors"] = {name: error if math.isfinite(error) else None for name, error in errors.items()}
        return self._line(
            source.path,
            degradation=self._degradation_of(source)[0],
            output=None if failed else output,
            sample=sample,
            seed=result.seed,
            status=result.status.value,
            mse=None if failed else result.mse,
            psnr_db=_db(result.mse),
            target_db=_db(result.target_mse),
            steps=result.steps,
            seconds=round(result.seconds, 4),
            latent=None if failed else latent,
            **blind,
            **({"retried": True} if result.retried else {}),
        )

    def _append(self, line: Mapping[str, Any]) -> None:
        """Add one line in one write, flushed to the disk."""
        with self.results.open("ab") as file:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def merge(self) -> None:
        """Put the lines of other processes into ``results.jsonl``, each once."""
        parts = sorted(self.folder.glob(".results-*.jsonl"))
        if parts:
            texts = [json.dumps(line).encode() for path in (self.results, *parts) for line in _lines_of(path)]
            write_atomic(self.results, b"".join(text + b"\n" for text in dict.fromkeys(texts)))
        for path in parts:
            path.unlink()

    def _lines(self) -> list[dict[str, Any]]:
        return _lines_of(self.results)

    def _written(self) -> dict[str, set[str]]:
        """Names of the pictures recorded of each input."""
        written: dict[str, set[str]] = {}
        for line in self._lines():
            written.setdefault(line["input"], set()).update([line["output"]] if line.get("output") else [])
        return written

    def _strike(self, inputs: set[str], outputs: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        """Drop the lines of some inputs and pictures, and lines that were cut short."""
        if self.results.exists():
            kept = [line for line in self._lines() if line["input"] not in inputs and line.get("output") not in outputs]
            write_atomic(self.results, b"".join(json.dumps(line).encode() + b"\n" for line in kept))

    def _done(self, source: Source, recorded: Set[str]) -> bool:
        """Whether every sample is there and recorded, made of these bytes with these settings."""
        wanted = self.fingerprint(source)
        return bool(wanted) and all(
            f"{stem}.png" in recorded
            and fingerprint_of(self.folder / f"{stem}.safetensors", picture=self.folder / f"{stem}.png") == wanted
            for stem in self.stems(source)
        )

    def _may_replace(self, source: Source, stem: str) -> bool:
        """Whether there is no such picture, or it is part of an answer to this very search that was cut short or damaged."""
        wanted, latent = self.fingerprint(source), self.folder / f"{stem}.safetensors"
        there = (self.folder / f"{stem}.png").exists()
        return not there or (latent.exists() and fingerprint_of(latent) in ({wanted, DAMAGED} if wanted else {DAMAGED}))


def _lines_of(path: Path) -> list[dict[str, Any]]:
    """What a file of lines holds, but for those that were cut short."""
    lines = []
    for text in path.read_bytes().splitlines() if path.exists() else ():
        try:
            line = json.loads(text)
            lines += [line] if isinstance(line, dict) and "input" in line else []
        except ValueError:
            continue
    return lines


def _db(mse: float | None) -> float | None:
    """A mean square error in dB; None where there is none, or it is 0 or not finite."""
    return psnr_db(mse) if mse and math.isfinite(mse) else None
