"""``pulse bench``: known answers, the numbers of its table from its lines, and the answers of ``pulse upsample``."""

import json
import math
import statistics
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from degradations.downscale import Downscale
from generators.linear import load
from pulse_framework.cli.comparison import Method, compare, radius_error
from pulse_framework.cli.methods import parsed
from pulse_framework.cli.tally import Line, Tally, plot
from pulse_framework.cli.targets import fitted, generated, pictures
from pulse_framework.images import write_png
from pulse_framework.manifolds import Sphere
from pulse_framework.priors import SpherePrior
from pulse_framework.search import Adam, L2Consistency, Objective, single_phase

FIELDS = {
    "method",
    "targets",
    "image",
    "status",
    "mse",
    "psnr_db",
    "truth_mse",
    "truth_db",
    "radius_error",
    "steps",
    "seconds",
}
ADAM = "adam: objective=l2 search.steps=12 search.start.draws=2"
NEWTON = "newton: objective=l2 search=levenberg search.start.draws=32"


@pytest.fixture
def world(linear_file):
    """Options that choose the small generator, and its factor."""
    return ["--generator", "linear", f"generator.path='{linear_file}'", "--factor", "4", "--device", "cpu"]


@pytest.fixture
def faces(tmp_path, linear_file):
    """Three images of the generator, as pictures of its size."""
    images = generated(load(linear_file), {"z": SpherePrior()}, 3, seed=7).images
    folder = tmp_path / "faces"
    folder.mkdir()
    return [write_png(image, folder / f"{index}.png") for index, image in enumerate(images)]


def lines_of(folder):
    return [json.loads(line) for line in (folder / "bench.jsonl").read_text().splitlines()]


def rows_of(text):
    """Cells of the tables, by name of the method; one dictionary for each table."""
    tables, head = [], None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            head = None
        elif head is None:
            head = cells
            tables.append({})
        elif set(cells) != {"---"}:
            tables[-1][cells[0]] = dict(zip(head, cells, strict=True))
    return tables


def test_a_linear_generator_is_solved_and_the_table_is_that_of_the_lines(pulse, world, faces, tmp_path):
    out = tmp_path / "out"
    done = pulse(
        *("bench", "--images", faces[0].parent, "--generated", 6, "-o", out, *world),
        *("--method", ADAM, "--method", NEWTON, "--only", "adam|newton"),
    )
    assert done.status == 0, done.err
    assert sorted(path.name for path in out.iterdir()) == ["bench.jsonl", "bench.md", "bench.svg"]
    lines = lines_of(out)
    assert all(set(line) == FIELDS for line in lines)
    assert len(lines) == 2 * (3 + 6)
    drawn = [line for line in lines if (line["targets"], line["method"]) == ("generated", "newton")]
    assert len(drawn) == 6
    assert all(line["status"] == "converged" for line in drawn)
    assert all(line["psnr_db"] >= 45 - 1e-4 for line in drawn)
    tables = rows_of(done.out)
    assert done.out in (out / "bench.md").read_text()
    for title, table in zip(("pictures", "generated"), tables, strict=True):
        assert set(table) == {"adam", "newton"}
        for name, row in table.items():
            some = [line for line in lines if (line["targets"], line["method"]) == (title, name)]
            seconds = statistics.fmean(line["seconds"] for line in some)
            success = sum(line["mse"] <= 2e-3 for line in some) / len(some)
            assert row["within 2e-3"] == f"{success:.0%}"
            assert row["45 dB"] == f"{sum(line['psnr_db'] >= 45 - 1e-4 for line in some) / len(some):.0%}"
            assert row["median dB"] == f"{statistics.median(line['psnr_db'] for line in some):.1f}"
            assert row["truth > 35 dB"] == f"{sum(line['truth_db'] > 35 for line in some) / len(some):.0%}"
            assert row["radius off by, %"] == f"{100 * max(line['radius_error'] for line in some):.2g}"
            assert row["steps"] == f"{statistics.fmean(line['steps'] for line in some):.0f}"
            assert row["CPU s an image"] == f"{seconds:.2f}"
            assert row["solved a second"] == f"{success / seconds:.2f}"
            assert row["peak MB"] == "" or float(row["peak MB"]) >= 0
            assert all(line["psnr_db"] == pytest.approx(-10 * math.log10(line["mse"]), rel=1e-9) for line in some)
            assert all(line["radius_error"] < 1e-5 for line in some)
    assert tables[1]["newton"]["45 dB"] == "100%"
    ElementTree.parse(out / "bench.svg")


def test_answers_are_those_of_upsample(pulse, records, world, faces, tmp_path):
    """Of both orders of the methods, and of a run of its own; the identity leaves the pictures what they are."""
    settings = ["search.start.draws=3", "search.steps=15", "search.target_noise=null"]
    chosen = [*world[:3], "--degradation", "identity", "--seed", 3]
    names = {"one": ADAM, "two": "two: " + " ".join(settings), "three": NEWTON}
    found = {}
    for order in (["one", "two", "three"], ["two", "three", "one"], ["two"]):
        out = tmp_path / "-".join(order)
        methods = [text for name in order for text in ("--method", names[name])]
        assert pulse("bench", "--images", faces[0].parent, "-o", out, *chosen, *methods, "--only", "two|adam|newton").status == 0
        mine = {line["image"]: line for line in lines_of(out) if line["method"] == "two"}
        found[tuple(order)] = {image: (line["mse"], line["steps"], line["status"]) for image, line in mine.items()}
    assert pulse("upsample", *faces, "-o", tmp_path / "upsampled", *chosen, *settings).status == 0
    expected = {
        path.name: (line["mse"], line["steps"], line["status"])
        for path, line in zip(faces, sorted(records(tmp_path / "upsampled"), key=lambda line: line["input"]), strict=True)
    }
    assert all(values == expected for values in found.values())


def test_the_order_of_turns_alternates_and_every_image_counts_once(linear_file):
    generator, turns = load(linear_file), []
    plan = single_phase(
        prior=SpherePrior(), objective=Objective({"consistency": L2Consistency()}), optimiser=Adam(rate=0.1), steps=2
    )
    methods = {name: Method(plan, generator) for name in ("one", "other")}
    targets = generated(generator, {"z": SpherePrior()}, 35)
    found = compare(methods, Downscale(4), {"drawn": targets}, lambda *told: turns.append(told[1:3]))
    assert turns == [("one", 16), ("other", 16), ("other", 16), ("one", 16), ("one", 3), ("other", 3)]
    tallies = found.tallies["drawn"]
    for tally in tallies.values():
        assert [line.image for line in tally.lines] == list(targets.keys)
    assert [line.mse for line in tallies["one"].lines] == [line.mse for line in tallies["other"].lines]


def test_default_methods(pulse, world, tmp_path):
    """All of them on a generator that has no ladder: the original's settings are those for one vector."""
    done = pulse("bench", "--generated", 2, "-o", tmp_path / "out", *world, "--quiet")
    assert (done.status, done.err) == (0, "")
    (table,) = rows_of(done.out)
    names = ["original", "default search", "bank of 16384, at most 400 steps", "search=lbfgs", "search=levenberg"]
    assert list(table) == names
    assert table["original"]["steps"] == "100"
    assert float(table["original"]["radius off by, %"]) > 1
    assert float(table["search=levenberg"]["radius off by, %"]) < 0.01
    page = (tmp_path / "out" / "bench.md").read_text()
    assert "- original: `experiment=pulse`" in page
    assert "generator=linear" in page


def test_one_that_is_refused_is_told_and_the_others_go_on(pulse, world, tmp_path):
    refused = ["--method", "styles: search.blocks=[w_plus]", "--method", "far: search/start=file search.start.path='{}'"]
    refused[-1] = refused[-1].format(tmp_path / "no such file.safetensors")
    done = pulse("bench", "--generated", 1, "-o", tmp_path / "out", *world, *refused, "--method", ADAM, "--only", "styles|adam")
    assert done.status == 0
    (table,) = rows_of(done.out)
    assert list(table) == ["adam"]
    (line,) = [line for line in done.out.splitlines() if line.startswith("styles is left out: ")]
    assert "w_plus" in line
    assert f"pulse: {line}" in done.error_lines
    none = pulse("bench", "--generated", 1, "-o", tmp_path / "none", *world, *refused, "--only", "styles")
    assert none.status == 2
    assert "every method was refused" in none.err
    assert not (tmp_path / "none").exists()


def test_a_flat_prior_has_no_radius(pulse, world, tmp_path):
    done = pulse("bench", "--generated", 1, "-o", tmp_path / "out", *world, "prior=gaussian", "--method", ADAM, "--only", "adam")
    assert done.status == 0
    assert rows_of(done.out)[0]["adam"]["radius off by, %"] == ""
    assert lines_of(tmp_path / "out")[0]["radius_error"] is None


def test_unreadable_pictures_are_named_and_skipped(pulse, world, faces, tmp_path):
    (faces[0].parent / "broken.png").write_bytes(b"no picture")
    whole = faces[2].read_bytes()
    faces[2].write_bytes(whole[: len(whole) // 2])
    options = ["-o", tmp_path / "out", *world, "--method", ADAM, "--only", "adam", "--quiet"]
    done = pulse("bench", "--images", faces[0].parent, *options)
    assert done.status == 1
    assert sorted(line["image"] for line in lines_of(tmp_path / "out")) == ["0.png", "1.png"]
    assert len(done.error_lines) == 2
    assert all(name in done.err for name in ("broken.png", "2.png"))
    for path in faces[:2]:
        path.unlink()
    none = pulse("bench", "--images", faces[0].parent, *options, "--overwrite")
    assert none.status == 2
    assert "not one picture could be read" in none.err


def test_an_interrupted_run_says_so(pulse, world, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("pulse_framework.cli.bench.compare", interrupted)
    done = pulse("bench", "--generated", 1, "-o", tmp_path / "out", *world, "--quiet", "--only", "default")
    assert (done.status, done.error_lines) == (130, ["pulse: interrupted; nothing was written"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected --images DIR or --generated N, got neither"),
        (["--images", "{folder}/nowhere"], "expected a folder of pictures, got nothing of that name"),
        (["--generated", "1", "somewhere"], "expected KEY=VALUE, got 'somewhere'; name pictures by --images"),
        (["--generated", "1", "--method", "mine: search.nope=1"], "method 'mine': search.nope: expected one of"),
        (["--generated", "1", "--method", "mine: search.steps=0"], "method 'mine': "),
        (["--generated", "1", "--method", "search.steps=1"], "expected NAME: KEY=VALUE KEY=VALUE ..., got"),
        (["--generated", "1", "--method", "mine: steps"], "expected NAME: KEY=VALUE KEY=VALUE ..., got 'steps' in"),
        (["--generated", "1", "--method", "a: search=lbfgs", "--method", "a: search=adam"], "got 'a' twice"),
        (["--generated", "1", "--method", "a: generator=digiface-dcgan-64"], "compare generators in runs of their own"),
        (["--generated", "1", "--method", "a: degradation.factor=2"], "expected the degradation of all methods"),
        (["--generated", "1", "--only", "nothing"], "which fits none"),
        (["--generated", "1", "--only", "("], "expected a regular expression"),
        (["--generated", "1", "--degradation", "real_esrgan"], ""),
        (["--generated", "1", "trainer.precision=64-true"], "trainer.precision: expected 32-true"),
        (["--generated", "1", "-o", "{folder}/taken"], "expected no bench.md, got one"),
        (["--images", "{folder}/array.npy"], "expected an array (N, h, w) of grey pictures"),
    ],
)
def test_what_is_wrong_is_told_before_any_work(pulse, world, tmp_path, arguments, message, monkeypatch):
    monkeypatch.setattr("pulse_framework.cli.bench.compare", lambda *_: pytest.fail("expected no search"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "bench.md").write_text("")
    np.save(tmp_path / "array.npy", np.zeros((2, 3)))
    done = pulse("bench", "-o", tmp_path / "out", *world, *(text.format(folder=tmp_path) for text in arguments))
    assert (done.status, len(done.error_lines)) == (2, 1), done.err
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_a_method_of_the_command_line():
    entry = parsed("by two : search.start.path='a b' +search.x=\"c d\" search.steps=3")
    assert (entry.name, entry.most_numbers) == ("by two", None)
    assert entry.tries == (("search.start.path='a b'", '+search.x="c d"', "search.steps=3"),)
    assert parsed("plain:").tries == ((),)


def test_radius_of_vectors_and_maps():
    latents = {"z": torch.full((2, 4), 1.1), "noise": torch.full((1, 3, 3), 0.95), "flat": torch.zeros(5)}
    spheres = {"z": Sphere(ndim=1), "noise": Sphere(ndim=2), "elsewhere": Sphere()}
    assert radius_error(latents, spheres) == pytest.approx(0.1)
    assert radius_error(latents, {"noise": Sphere(ndim=2)}) == pytest.approx(0.05)
    assert radius_error(latents, {}) is None


def test_what_is_not_finite_counts_as_not_found():
    line = Line(
        method="m",
        targets="t",
        image="a",
        status="failed",
        mse=math.inf,
        truth_mse=math.inf,
        radius_error=None,
        steps=3,
        seconds=0.0,
    )
    record = json.loads(line.json())
    assert [record[key] for key in ("mse", "psnr_db", "truth_mse", "truth_db", "radius_error")] == [None] * 5
    tally = Tally([line])
    assert tally.row("a | b") == "| a \\| b | 0% | 0% | -inf | 0% |  | 3 | 0.00 |  |  |"
    assert "a &lt; b" in plot({"t": {"a < b": tally}})


def test_pictures_are_cropped_to_the_middle_and_resized(tmp_path):
    ramp = torch.linspace(0, 1, 40).expand(3, 20, 40).clone()
    assert torch.equal(fitted(ramp, (3, 20, 20)), ramp[:, :, 10:30])
    small = fitted(ramp, (3, 10, 10))
    expected = torch.nn.functional.interpolate(ramp[None, :, :, 10:30], (10, 10), mode="bicubic", antialias=True).clamp(0, 1)[0]
    assert torch.equal(small, expected)
    colours = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    luma = 0.299 * colours[0] + 0.587 * colours[1] + 0.114 * colours[2]
    assert torch.allclose(fitted(colours, (1, 8, 8)), luma[None])
    np.save(tmp_path / "grey.npy", (255 * colours).round().byte().numpy())
    targets, rejected = pictures(tmp_path / "grey.npy", (3, 8, 8), 2)
    assert (len(targets.keys), rejected) == (2, [])
    assert torch.allclose(targets.images, (255 * colours[:2, None]).round().expand(-1, 3, -1, -1) / 255)
