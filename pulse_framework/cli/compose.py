"""From configuration to objects: the only user of Hydra's composition and instantiation.

Configurations are data. A ``_target_`` is only called if it belongs to this project's packages, to a plug-in registered by an
installed distribution (entry points ``pulse_framework.generators`` and ``pulse_framework.degradations``), or to a package that
the user has allowed by name on the command line; never because a file says so.
"""

import importlib.metadata
import importlib.resources
import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, OverrideParseException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

__all__ = [
    "MARK",
    "ConfigError",
    "build",
    "build_as",
    "choices",
    "configs_folder",
    "load",
    "named",
    "plain",
    "register_plugins",
    "sweep",
]

MARK = "_draw_"
"""Key of a value that is drawn for each image; see ``draws``."""
PACKAGES = ("pulse_framework", "generators", "degradations")
GROUPS = {"generators": "generator", "degradations": "degradation"}


class ConfigError(ValueError):
    """A configuration that cannot be composed or built; the message is one line with the cure."""


def configs_folder() -> Path:
    """The configuration groups: inside the installed package, or beside it in a checkout."""
    inside = Path(str(importlib.resources.files("pulse_framework") / "configs"))
    return inside if inside.is_dir() else inside.parent.parent / "configs"


def register_plugins() -> dict[str, str]:
    """Make every entry point a choice of its group; returns their targets, which are allowed to be called.

    A plug-in cannot take a name that the project uses.
    """
    targets: dict[str, str] = {}
    for kind, group in GROUPS.items():
        for point in importlib.metadata.entry_points(group=f"pulse_framework.{kind}"):
            target = point.value.replace(":", ".")
            targets[f"{group}/{point.name}"] = target
            if (configs_folder() / group / f"{point.name}.yaml").exists():
                continue
            ConfigStore.instance().store(group=group, name=point.name, node={"_target_": target}, provider=point.value)
    return targets


def load(overrides: Sequence[str] = (), config_dir: Path | None = None) -> DictConfig:
    """Compose the whole configuration.

    Args:
        overrides: ``KEY=VALUE`` and ``GROUP=CHOICE``, in Hydra's grammar.
        config_dir: A folder of the user's own groups, which come in addition.

    Raises:
        ConfigError: A key or choice is unknown, or an override cannot be parsed.
    """
    register_plugins()
    extra = [f"hydra.searchpath=[{_quoted(f'file://{_folder(config_dir)}')}]"] if config_dir else []
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(configs_folder().resolve()), version_base="1.3"):
            config = compose("config", overrides=[*extra, *overrides], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    return named(config, config.hydra.runtime.choices)


def named(config: DictConfig, chosen: Mapping[str, str]) -> DictConfig:
    """The configuration without Hydra's own part, and with the chosen generator and degradation by name under ``choices``."""
    config = config.copy()
    with open_dict(config):
        config.pop("hydra", None)
        config.choices = {group: chosen[group] for group in GROUPS.values()}
    return config


def sweep(
    job: Callable[[DictConfig, Mapping[str, str], str], None], overrides: Sequence[str], config_dir: Path | None = None
) -> None:
    """Run a Hydra multirun: ``job(configuration, choices, folder)`` for every point of the sweep.

    Raises:
        ConfigError: No output folder is named, or a point of the sweep cannot be composed.
    """
    if not any(text.lstrip("+").startswith("output=") for text in overrides):
        raise ConfigError("output: expected a folder to write to, got none; give output=DIR")

    def task(config: DictConfig) -> None:
        hydra_config = HydraConfig.get()
        job(config, hydra_config.runtime.choices, hydra_config.runtime.output_dir)

    register_plugins()
    GlobalHydra.instance().clear()
    before, environment = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    own = ["--config-dir", str(_folder(config_dir))] if config_dir else []
    sys.argv = ["pulse run", "--multirun", *own, *quiet, *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors are raised here rather than printed there
    try:
        hydra.main(config_path=str(configs_folder().resolve()), config_name="config", version_base="1.3")(task)()
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error)) from error
    finally:
        sys.argv = before
        if environment is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = environment


def plain(node: DictConfig) -> dict[str, Any]:
    """A resolved copy as ordinary dictionaries and lists.

    Raises:
        ConfigError: An interpolation has no value.
    """
    try:
        resolved = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error)) from error
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def build(node: DictConfig, allow: Iterable[str] = ()) -> Any:  # noqa: ANN401
    """Call the ``_target_`` of a node, its parts first.

    Args:
        node: Part of a composed configuration.
        allow: Packages or full names, beyond this project's own, that a ``_target_`` may be of.

    Raises:
        ConfigError: A target is not allowed or cannot be imported, a value is missing, or what is called refuses its values.
    """
    plugins = set(register_plugins().values())
    for key, target in _targets(node):
        if target not in plugins:
            _check_target(key or _key(node), target, (*PACKAGES, *allow))
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it logs what it also raises
    try:
        return instantiate(node, _convert_="all")
    except (InstantiationException, MissingMandatoryValue) as error:
        raise ConfigError(_explain(error, _key(node))) from error


def build_as(wanted: type, node: DictConfig, allow: Iterable[str] = ()) -> Any:  # noqa: ANN401
    """Build a node and check what it is.

    Raises:
        ConfigError: As ``build``; or it is something else.
    """
    made = build(node, allow)
    if not isinstance(made, wanted):
        got = f"{type(made).__name__} (_target_ {node.get('_target_')})"
        raise ConfigError(f"{_key(node)}: expected it to make a {wanted.__name__}, got {got}; name another _target_")
    return made


def choices(group: str, config_dir: Path | None = None) -> list[str]:
    """Names that a group of the configuration offers, plug-ins included."""
    folders = [configs_folder(), *([config_dir] if config_dir else [])]
    names = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
    return sorted(names | {key.split("/", 1)[1] for key in register_plugins() if key.startswith(f"{group}/")})


def _targets(node: DictConfig) -> Iterator[tuple[str, str]]:
    """Every ``_target_`` below a node, with its key."""
    try:
        pending: list[tuple[str, Any]] = [("", OmegaConf.to_container(node, resolve=True))]
    except OmegaConfBaseException as error:
        raise ConfigError(_explain(error)) from error
    while pending:
        key, value = pending.pop()
        if isinstance(value, dict):
            if MARK in value:
                where = f"{_key(node)}.{key}".rstrip(".")
                raise ConfigError(f"{where}: expected a value, got one that is to be drawn ({MARK}); give a value")
            if "_target_" in value:
                yield key, str(value["_target_"])
            pending += [(f"{key}.{name}".lstrip("."), item) for name, item in value.items()]
        elif isinstance(value, list):
            pending += [(f"{key}[{i}]", item) for i, item in enumerate(value)]


def _check_target(key: str, target: str, allowed: Sequence[str]) -> None:
    """Refuse a target outside the allow-list, and one that an allowed module only happens to import."""
    if not _within(target, allowed):
        raise ConfigError(
            f"{key}: expected a _target_ of {', '.join(PACKAGES)} or an allowed package, got {target}; if you trust it, add "
            f"--allow {target.split('.', maxsplit=1)[0]}"
        )
    try:
        found = get_object(target)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{key}: expected a _target_ that can be imported, got {target} ({error})".replace("\n", " ")
        ) from error
    home = getattr(found, "__module__", None)
    if not callable(found) or home is None or not _within(home, allowed):
        raise ConfigError(f"{key}: expected a class or function of an allowed package, got {target}, which is of {home}")


def _within(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _folder(config_dir: Path) -> Path:
    """The user's folder of configuration groups, in full."""
    if not config_dir.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: expected a folder of configuration groups, got none; check the path")
    return config_dir.resolve()


def _quoted(text: str) -> str:
    """Text as a value of Hydra's grammar, whatever characters it has."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _key(node: DictConfig) -> str:
    """Where a node is in the configuration."""
    return node._get_full_key(None) or "configuration"


def _explain(error: Exception, where: str = "") -> str:
    """One line out of Hydra's several, about the cause rather than the machinery; ``where`` is the node that was built."""
    cause: BaseException = error
    while isinstance(cause, InstantiationException | ConfigCompositionException) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, TypeError) and ": expected" not in str(cause):  # not one of ours: say at least where it comes from
        inside, why = re.search(r"full_key: (\S+)", str(error)), " ".join(str(cause).split())
        return f"{inside[1] if inside else where}: expected values of the right kinds, got: {why}; correct them"
    if isinstance(cause, OverrideParseException):
        why = " ".join(str(cause).split("See https://")[0].split())
        return f"override {cause.override}: expected KEY=VALUE, got {why}; quote special characters, as in KEY='a,b'"
    key = getattr(cause, "full_key", None) or "a setting"
    if isinstance(cause, MissingMandatoryValue):
        return f"{key}: expected a value, got none; give {key}=VALUE"
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        known = ", ".join(str(name) for name in cause.parent_node or () if name not in ("hydra", "_target_"))
        return f"{key}: expected one of {known}, got an unknown key; check its spelling"
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    hidden = ("Config search path:", "provider=", "See https://", "full_key:", "object_type=", "set the environment")
    text = " ".join(line for line in lines if not line.lower().startswith(tuple(h.lower() for h in hidden)))
    return text or type(cause).__name__
