"""The main job: from a composed configuration to answers on disk."""

import contextlib
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from pulse_framework.cli.compose import ConfigError, build, build_as, plain
from pulse_framework.cli.operators import Operators, operators_for
from pulse_framework.files import write_atomic
from pulse_framework.interfaces import Degradation, Generator
from pulse_framework.runtime import (
    Group,
    MeasurementData,
    Narrator,
    OutputFolder,
    Profile,
    ProgressBar,
    RayEngine,
    Rejected,
    ResultWriter,
    SearchCheckpoint,
    SearchModule,
    SearchObserver,
    Source,
    Tracker,
    code_version,
    known_pixels,
    remove_checkpoints,
    run_here,
)
from pulse_framework.search import Plan
from pulse_framework.weights import read_card

__all__ = ["Job", "Report", "prepare", "relevant"]

IRRELEVANT = ("slots", "poll_every")
"""Settings of a search that no result depends on."""


@dataclass(frozen=True)
class Report:
    """What became of a run: counts by status, pictures written, inputs skipped because they were done, errors, and dB reached."""

    counts: Counter[str]
    written: list[str]
    skipped: int
    errors: list[Rejected] = field(default_factory=list)
    best_db: Sequence[float] = ()

    def exit_status(self, *, strict: bool) -> int:
        """Status 0 done; 1 some inputs failed (or, when strict, did not converge); 2 nothing could be processed."""
        answered = self.counts["converged"] + self.counts["best_effort"] + self.skipped
        if self.counts["error"] and not answered and not self.counts["failed"]:
            return 2
        return int(bool(self.counts["error"] or self.counts["failed"] or (strict and self.counts["best_effort"])))


@dataclass(frozen=True)
class Job:
    """A run that has been planned and checked; calling it does the work.

    Attributes:
        plan: Settings of the search.
        data: The inputs.
        left: Those to be answered.
        skipped: How many were done by an earlier run.
        generator: G; None when nothing is left.
        operators: A of each group of inputs.
        groups: Group of each input, by its index.
        notes: What the user should know of the inputs, and of what was chosen.
        writer: Writes results, and has recorded the rejected inputs.
        make_trainer: Takes callbacks and logger.
        logger: Where metrics go, if anywhere.
        settings: The resolved configuration.
        keep_known: Whether pictures show observed pixels as they were measured; None: where that is exact.
        several: Whether other processes have a share; all of them have to run it.
        observers: Also hear of answers, after they were written.
        conclude: Called at the end, while the folder is still held.
        engine: Where the search runs: takes ``make_trainer``, callbacks, module and data.
    """

    plan: Plan
    data: MeasurementData
    left: list[Source]
    skipped: int
    generator: Generator | None
    operators: dict[Group, Degradation]
    groups: dict[int, Group]
    notes: list[str]
    writer: ResultWriter
    make_trainer: Callable[..., Any]
    logger: Any
    settings: dict[str, Any]
    keep_known: bool | None = None
    several: bool = False
    observers: Sequence[SearchObserver] = ()
    conclude: Callable[[], None] | None = None
    engine: Callable[..., None] = run_here

    @property
    def leads(self) -> bool:
        """Whether this process is the first of those that have a share, or the only one: it tells what was done."""
        return self.writer.folder.leads

    def __call__(self, *, quiet: bool = False, profile: bool = False) -> Report:
        """Search and write.

        Args:
            quiet: Whether nothing is told on the way.
            profile: Whether a profile is written too.

        Raises:
            KeyboardInterrupt: The user stopped the run; what was finished is on disk.
        """
        try:
            report = self._search(quiet=quiet, profile=profile)
            if self.conclude is not None and self.leads:
                self.conclude()
            return report
        finally:
            self.writer.folder.release()

    def _search(self, *, quiet: bool, profile: bool) -> Report:
        if self.generator is not None:
            image_shape = self.generator.image_shape
            channels = {group: operator.measurement_shape(image_shape)[0] for group, operator in self.operators.items()}
            self.data.choose(self.left, self.groups, channels)
        if self.left or (self.several and self.generator is not None):
            origin = {"code": code_version(), "weights": _weights(self.settings["generator"])} if self.logger else {}
            callbacks = [self.writer, *([Tracker({**self.settings, **origin}, self.writer, self.logger)] if self.logger else [])]
            callbacks += [*self.observers, *([] if quiet else [ProgressBar(len(self.left)), Narrator(len(self.left))])]
            callbacks += [Profile(self.writer.folder.folder)] if profile and self.leads else []
            folder = self.writer.folder
            known = partial(SearchCheckpoint, folder.folder, folder.everything)
            elsewhere = isinstance(self.engine, RayEngine)
            make_trainer = self.make_trainer if elsewhere else partial(self.make_trainer, checkpoint=known)
            self.engine(make_trainer, callbacks, self._module(), self.data)
        elif self.skipped:
            remove_checkpoints(self.writer.folder.folder)
            if not self.writer.is_drawn:  # an earlier run was killed before its last act
                self.writer.draw(self._module(), self.data)
        return Report(self.writer.counts, self.writer.written, self.skipped, self.writer.errors, self.writer.best_db)

    def _module(self) -> SearchModule:
        assert self.generator is not None, "there is a generator where there are sources"
        module = SearchModule(self.generator, self.operators, self.plan, self.keep_known)
        return module.double() if self.settings["trainer"].get("precision") == "64-true" else module


def prepare(
    config: DictConfig,
    *,
    allow: Sequence[str] = (),
    overwrite: bool = False,
    data: MeasurementData | None = None,
    describe: Callable[[Source, dict[str, Any]], dict[str, Any]] | None = None,
) -> Job:
    """Build and check everything that a run needs, cheapest first; record the inputs that cannot be processed.

    Args:
        config: A composed configuration.
        allow: Packages, beyond this project's own, whose targets may be called.
        overwrite: Whether results in the folder may be replaced.
        data: The inputs, if they are not simply those of the configuration.
        describe: Says more in the lines of an input; see ``OutputFolder``.

    Raises:
        ConfigError: The configuration cannot be built.
        ValueError: The output folder cannot be used.
    """
    if OmegaConf.is_missing(config, "output"):
        raise ConfigError("output: expected a folder to write to, got none; give output=DIR")
    plan = build_as(Plan, config.search, allow)
    data = build_as(MeasurementData, config.data, allow) if data is None else data
    if not data.sources and not data.rejected:
        raise ConfigError("inputs: expected image files or folders, got none; name at least one")
    make_trainer = build(config.trainer, allow)
    several = make_trainer().world_size > 1
    engine = build(config.engine, allow)
    if isinstance(engine, RayEngine) and several:
        raise ConfigError("trainer.devices: expected 1 with engine=ray, got several processes; use more workers instead")
    if isinstance(engine, RayEngine) and config.trainer.checkpoint_every is not None:
        raise ConfigError("trainer.checkpoint_every: expected null with engine=ray, whose workers keep nothing; leave it out")
    keep_known = _keep_known(config)
    rejected, generator = list(data.rejected), None
    operators = Operators()
    if data.sources:
        generator = build_as(Generator, config.generator, allow)
        operators = operators_for(config, data.sources, generator.image_shape, allow)
        rejected += operators.rejected
        plan.check(generator, operators.made.values())
        plan.start.check(source.key for source in data.sources)
        for operator in operators.made.values():
            plan.engine(generator, operator)
            if keep_known and known_pixels(operator, generator.image_shape, keep_known) is None:
                raise ConfigError(
                    "keep_known: expected a degradation with a mask that keeps the image's size, got another; set null"
                )
    settings = plain(config)
    folder = OutputFolder(
        Path(str(settings["output"])),
        generator=settings["choices"]["generator"],
        degradation=settings["choices"]["degradation"],
        samples=plan.samples,
        settings=relevant(settings),
        own={index: (own.name, plain(own.node)) for index, own in operators.own.items()},
        overwrite=overwrite,
        describe=describe,
    )
    with contextlib.ExitStack() as undo:
        undo.callback(folder.release)
        bad = {item.path for item in rejected}
        fit = [source for source in data.sources if source.path not in bad]
        left = folder.remaining(fit)
        logger = build(config.logger, allow) if left and config.logger and folder.leads else None
        folder.strike_rejected(rejected)
        writer = ResultWriter(folder)
        if folder.leads:
            write_atomic(folder.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings)).encode())
            for item in rejected:
                writer.reject(item)
        undo.pop_all()  # from here on the job holds the folder
    skipped = len(fit) - len(left)
    notes = [*operators.notes, *([plan.told] if plan.told and left else [])]
    known = (operators.made, operators.groups, notes)
    told = {"keep_known": keep_known, "several": several, "engine": engine}
    return Job(plan, data, left, skipped, generator, *known, writer, make_trainer, logger, settings, **told)


def _keep_known(config: DictConfig) -> bool | None:
    keep: object = config.get("keep_known")
    if keep is not None and not isinstance(keep, bool):
        raise ConfigError(f"keep_known: expected true, false or null, got {keep!r}; correct it")
    return keep


def _weights(generator: dict[str, Any]) -> dict[str, Any]:
    """What the weights of a generator are: what their card says, or the hash of their file."""
    path = generator.get("path")
    if isinstance(path, dict) and "card" in path:
        return {**asdict(read_card(path["card"])), "folder": None}
    if isinstance(path, str) and Path(path).is_file():
        with Path(path).open("rb") as file:
            return {"file": path, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    return {}


def relevant(settings: dict[str, Any]) -> dict[str, Any]:
    """What a result depends on besides the input."""
    search = {key: value for key, value in settings["search"].items() if key not in IRRELEVANT}
    kept = {"keep_known": settings.get("keep_known")}
    kept |= {group: settings[group] for group in ("generator", "degradation")}
    kept |= {name: settings["trainer"].get(name) for name in ("precision", "tf32", "channels_last")}
    return {**kept, "search": search, "version": version("pulse-latent")}
