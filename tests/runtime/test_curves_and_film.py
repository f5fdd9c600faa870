"""Curves against plain sums, and the film of the first images."""

import io

import pytest
import torch
from PIL import Image

from pulse_framework.runtime.curves import Curves
from pulse_framework.runtime.film import FRAMES, SHOWN, Film, read_film
from pulse_framework.search import SearchResult, Snapshot, StopReason, psnr_db


def test_curves_are_kept_between_runs():
    searches = [result([[float(3 - i), 0.1 / (i + 1)] for i in range(length)], radius=[1.0] * length) for length in (2, 3)]
    whole, first = Curves(), Curves()
    for search in searches:
        whole.add(search)
    first.add(searches[0])
    second = Curves.read(first.written())
    second.add(searches[1])
    assert second.rows() == whole.rows()
    assert second.count == 2
    assert Curves.read(Curves().written()).rows() == []


def result(trace, **watched):
    trace = torch.tensor(trace)
    known = {"key": "k", "restart": 0, "seed": 0, "index": 0, "latents": {}, "image": torch.zeros(3, 1, 1), "objective": 0.0}
    known |= {"mse": 0.0, "feasible": False, "target_mse": None, "step": 0, "steps": len(trace), "reason": StopReason.BUDGET}
    return SearchResult(**known, seconds=0.0, trace=trace, watched={name: torch.tensor(v) for name, v in watched.items()})


def test_curves_are_those_of_plain_sums():
    curves = Curves()
    curves.add(result([[4.0, 0.1], [5.0, 0.2], [1.0, 0.01]], radius=[1.0, 2.0, 3.0]))
    curves.add(result([[2.0, 0.001]], radius=[5.0], other=[7.0]))
    rows = curves.rows()
    assert [row["objective"] for row in rows] == [3.0, 3.0, 1.5]
    assert [row["psnr_db"] for row in rows] == pytest.approx([(psnr_db(mse) + psnr_db(0.001)) / 2 for mse in (0.1, 0.1, 0.01)])
    assert [row["psnr_db_worst"] for row in rows] == pytest.approx([psnr_db(0.1), psnr_db(0.1), psnr_db(0.01)])
    assert [row["radius"] for row in rows] == [3.0, 2.0, 3.0]
    assert [row.get("other") for row in rows] == [7.0, None, None]


def test_curves_do_not_depend_on_the_order():
    searches = [result([[float(3 - i), 0.1 / (i + 1)] for i in range(length)]) for length in (1, 3, 2)]
    one, other = Curves(), Curves()
    for search in searches:
        one.add(search)
    for search in reversed(searches):
        other.add(search)
    for row, expected in zip(one.rows(), other.rows(), strict=True):
        assert row == pytest.approx(expected)


def test_iterates_that_are_not_finite_are_left_out_of_the_curves():
    curves = Curves()
    curves.add(result([[float("nan"), float("nan")], [2.0, 0.1]], radius=[float("nan"), 1.0]))
    assert curves.rows() == [
        {},
        {"objective": 2.0, "psnr_db": pytest.approx(10.0), "psnr_db_worst": pytest.approx(10.0), "radius": 1.0},
    ]


def shot(key, step, value, restart=0):
    return Snapshot(key, 0, restart, step, torch.full((3, 8, 8), value))


def test_film_keeps_the_first_images_at_few_steps():
    film = Film()
    for step in range(1, 1001):
        film.add([shot(str(i), step, step / 1000) for i in range(SHOWN + 3)] + [shot("0", step, 0.0, restart=1)])
    frames = list(film)
    steps = [step for step, _ in frames]
    assert len(frames) <= FRAMES + 1
    assert steps == sorted(set(steps))
    assert steps[-1] > 900
    for step, frame in frames:
        assert frame.shape == (3, 128, SHOWN * 132 - 4)
        assert float(frame[0, 0, 0]) == pytest.approx(step / 1000)


def test_film_goes_through_its_file_with_equal_frames_too():
    film = Film()
    for step in range(1, 9):
        film.add([shot("a", step, min(step, 4) * 51 / 255)])
    assert film.gif()[:6] == b"GIF89a"
    with Image.open(io.BytesIO(film.gif())) as image:
        assert b"trainedAlgorithmicMedia" in image.info["comment"]
    kept = read_film(film.gif())
    assert [step for step, _ in kept] == list(range(1, 9))
    for (_, expected), (_, got) in zip(film, kept, strict=True):
        torch.testing.assert_close(got, expected)
    assert Film().gif() == b""
