"""What is written down is true: plug-ins are complete, commands and code of the pages run, links lead somewhere."""

import ast
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from pulse_framework.cli.app import app
from pulse_framework.images import write_png

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUPS = {"generators": "generator", "degradations": "degradation"}
MODULES = [f"{kind}/{path.name}" for kind in GROUPS for path in sorted((ROOT / kind).glob("[!_]*.py"))]
FAST = ["search.start.draws=1", "search.restarts=1", "search.steps=2", "trainer.device=cpu"]
SHORT = {"upsample": FAST, "run": FAST, "restore": FAST, "encoder": ["--samples", "64", "--steps", "2"]}
SHORT["bench"] = ["--only", "default|mine", "search.steps=2", "search.start.draws=1", "--device", "cpu"]


def blocks(page, language):
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def files(page, language):
    """Fenced blocks that begin with a comment naming the file they are."""
    found = (re.match(r"# (\S+/\S+|\S+\.toml)\n", text) and text for text in blocks(page, language))
    return {text.splitlines()[0].removeprefix("# "): text for text in found if text}


def rows(page):
    """Lines of tables."""
    return [line for line in page.read_text().splitlines() if line.startswith("|")]


def configs(group):
    return sorted((ROOT / "configs" / group).glob("*.yaml"))


def targets(node):
    """Every ``_target_`` in a configuration."""
    if isinstance(node, dict):
        yield from ([node["_target_"]] if "_target_" in node else [])
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from targets(part)


def tried(path, module):
    """Whether a contract class of a test file makes something of a module, itself or through helpers of the file."""
    tree = ast.parse(path.read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == module
        for alias in node.names
    }
    defined = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}

    def used(node, seen):
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} - seen
        return names.union(*(used(defined[name], seen | names) for name in names & set(defined)))

    uses = [used(node, set()) for node in defined.values() if isinstance(node, ast.ClassDef)]
    return any(names & imported and any(name.endswith("Contract") for name in names) for names in uses)


@pytest.mark.parametrize("module", MODULES)
def test_plugin_is_complete(module):
    """A file, a configuration, a contract case, a row of the README and a line of the changelog."""
    kind, stem = Path(module).parent.name, Path(module).stem
    name = f"{kind}.{stem}"
    named = [
        path for path in configs(GROUPS[kind]) if any(t.startswith(f"{name}.") for t in targets(yaml.safe_load(path.read_text())))
    ]
    assert named, f"{module}: expected a configuration in configs/{GROUPS[kind]} that names it, got none"
    cases = [path for path in (ROOT / "tests" / kind).glob("test_*.py") if tried(path, name)]
    assert cases, f"{module}: expected a contract case in tests/{kind}, got none"
    assert any(f"]({module})" in row for row in rows(ROOT / "README.md")), (
        f"{module}: expected a row of the README that links to it"
    )
    assert f"`{module}`" in (ROOT / "CHANGELOG.md").read_text(), f"{module}: expected a line of the changelog that names it"


def test_every_generator_is_in_the_law_that_keeps_generators_apart():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (apart,) = (set(contract["modules"]) for contract in contracts if contract["type"] == "independence")
    assert {f"generators.{Path(module).stem}" for module in MODULES if module.startswith("generators/")} <= apart


@pytest.mark.parametrize("group", ["generator", "degradation"])
def test_choice_has_a_row_and_a_line(group):
    first = {row.split("|")[1].strip() for row in rows(ROOT / "README.md")}
    for path in configs(group):
        assert f"`{path.stem}`" in first, f"{path.stem}: expected a row of the README"
        assert f"`{path.stem}`" in (ROOT / "CHANGELOG.md").read_text(), f"{path.stem}: expected a line of the changelog"


@pytest.mark.parametrize("group", ["prior", "objective", "search", "experiment"])
def test_choice_is_named_in_readme_configuration_and_changelog(group):
    for page in ("README.md", "CHANGELOG.md", "docs/configuration.md"):
        missing = [path.stem for path in configs(group) if f"`{path.stem}`" not in (ROOT / page).read_text()]
        assert not missing, f"{page}: expected the choices of {group}, got none of {missing}"


def test_every_setting_of_the_search_is_explained_with_its_default():
    settings = yaml.safe_load((ROOT / "configs/search/adam.yaml").read_text())
    table = {cells[1].strip(): cells[2].strip() for row in rows(ROOT / "docs/configuration.md") if (cells := row.split("|"))}
    for key, value in settings.items():
        if key not in ("_target_", "defaults"):
            assert f"`{key}`" in table, f"{key}: expected a row"
            if not isinstance(value, dict | str):
                assert table[f"`{key}`"] == yaml.safe_dump(value).split("\n")[0], f"{key}: expected the default {value}"


def test_every_command_is_shown():
    commands = [item.name or item.callback.__name__ for item in app.registered_commands]
    commands += [group.name for group in app.registered_groups]
    assert {"upsample", "bench", "encoder"} <= set(commands)
    pages = "\n".join(page.read_text() for page in PAGES if page.name != "CHANGELOG.md")
    missing = [name for name in commands if not re.search(rf"pulse {name}\b", pages)]
    assert not missing, f"expected every command in the README or the docs, got none of {missing}"


def test_every_promise_names_a_test_that_there_is():
    named = [re.findall(r"`(test_\w+)`", row) for row in rows(ROOT / "docs/reliability.md")]
    promises = [names for names in named if names]
    assert len(promises) > 5
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in {name for names in promises for name in names}:
        assert f"def {name}(" in written, f"docs/reliability.md: expected a test {name}, got none"


def test_completeness_is_not_vacuous(tmp_path):
    assert {"generators/dcgan.py", "degradations/downscale.py"} <= set(MODULES)
    case = tmp_path / "test_x.py"
    case.write_text(
        "from a.b import F\nclass TestF(XContract):\n    def make(self):\n        return help()\ndef help():\n    return F()\n"
    )
    assert tried(case, "a.b")
    assert not tried(case, "a.c")
    case.write_text("from a.b import F\nclass TestF(XContract):\n    def make(self):\n        return 1\ndef test_f():\n    F()\n")
    assert not tried(case, "a.b")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), f"{page.name}: {link}"
    for other, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        text = (page.parent / other if other else page).read_text()
        heads = {
            re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-")
            for head in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert anchor in heads, f"{page.name}: {other}#{anchor}"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the pictures that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, side in (("photo.png", 8), ("photos/a.png", 8), ("photos/b.png", 16), ("large.png", 64)):
        write_png(torch.rand(3, side, side, generator=torch.Generator().manual_seed(side)), name)
    shutil.copy(ROOT / "examples" / "portrait.jpg", "portrait.jpg")
    shutil.copy(ROOT / "examples/portrait.jpg", tmp_path)
    return tmp_path


def run(command):
    """One line of a page, in this process; searches are cut short."""
    name, *arguments = shlex.split(command, comments=True)
    assert name == "pulse", command
    climbing = ["search.steps=20"] if "search/start=encoder" in arguments else []  # an encoder guesses for the first rung
    done = CliRunner().invoke(app, [*arguments, *SHORT.get(arguments[0], []), *climbing])
    assert done.exit_code == 0, f"{command}: {done.output}"


@pytest.mark.weights
@pytest.mark.parametrize("page", ["README.md", "docs/configuration.md", "docs/faces.md", "docs/tracking.md", "docs/weights.md"])
def test_commands_run(page, place):
    commands = [line for block in blocks(ROOT / page, "sh") for line in block.splitlines() if line.strip()]
    assert commands
    for command in commands:
        run(command)


@pytest.mark.weights
def test_python_of_the_readme_runs(place):
    (code,) = blocks(ROOT / "README.md", "python")
    code = code.replace("samples=2", "samples=2, steps=2, overrides=['search.start.draws=1']")
    space = {}
    exec(code, space)
    assert space["found"].images.shape == (2, 3, 64, 64)
    assert space["found"].latents["v_plus"].shape == (2, 10, 128)
    assert space["found"].latents["noise_0"].shape == (2, 1, 4, 4)


@pytest.mark.weights
@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example_runs(script, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.name, "-o", str(tmp_path / "out put"), "--steps", "2", "--draws", "1"])
    runpy.run_path(str(script), run_name="__main__")
    assert list((tmp_path / "out put").glob("*.png"))
    printed = capsys.readouterr().out
    assert "dB" in printed
    assert "different" not in printed
    assert len(script.read_text().splitlines()) <= 46


def test_the_plugin_page_works(place, monkeypatch):
    page = ROOT / "docs/plugin.md"
    written = files(page, "python") | files(page, "yaml")
    assert {"my_plugins/waves.py", "my_plugins/blocks.py", "tests/test_waves.py", "tests/test_blocks.py"} < set(written)
    for name, text in written.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)

    environment = {**os.environ, "PYTHONPATH": str(place)}
    environment = {key: value for key, value in environment.items() if not key.startswith(("COV_CORE", "COVERAGE", "PYTEST"))}
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(pytest_run, cwd=place, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) > 20

    monkeypatch.syspath_prepend(str(place))
    (commands,) = blocks(page, "sh")
    for command in commands.splitlines():
        run(command)
    assert (place / "out/sample_0000.png").exists()
    assert '"degradation": "block_mean"' in (place / "out/results.jsonl").read_text()
    refused = CliRunner().invoke(app, shlex.split(commands.splitlines()[0].replace("--allow my_plugins", "--overwrite")))
    assert refused.exit_code == 2

    points = tomllib.loads(files(page, "toml")["pyproject.toml"])["project"]["entry-points"]
    folder = place / "my_plugins-0.1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugins\nVersion: 0.1.0\n")
    sections = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items()) for group, names in points.items()
    )
    (folder / "entry_points.txt").write_text("\n".join(sections))
    listed = CliRunner().invoke(app, ["list"]).output
    assert "generators\twaves\n" in listed
    assert "degradations\tblock_mean\n" in listed
    run("pulse upsample small -o installed --generator waves degradation=block_mean +degradation.size=4")
