"""The page of degradations is what its script makes of them."""

import runpy
from pathlib import Path

import numpy as np
import pytest

from pulse_framework.cli.compose import choices

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(DOCS / "degradations_page.py"))


def test_table_is_that_of_the_page(script):
    table, page = script["table"](), (DOCS / "degradations.md").read_text()
    assert f"<!-- table -->\n{table}\n<!-- end -->" in page, "run `python docs/degradations_page.py` and commit what it writes"
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [f"`{name}`" for name in choices("degradation")]


def test_sheet_has_a_picture_of_every_degradation_that_makes_one(script):
    sheet = script["sheet"]()
    pixels, columns, cell = np.asarray(sheet), script["COLUMNS"], script["CELL"]
    pictures = len(choices("degradation")) + 1 - sum(script["operator"](name) is None for name in choices("degradation")) - 3
    rows = -(-pictures // columns)  # without three that give no pictures: sensing, twice, and rows of the Fourier transform
    assert sheet.size == (columns * (cell + 4), rows * (cell + script["CAPTION"] + 4))
    for index in range(pictures):
        left, top = index % columns * (cell + 4), index // columns * (cell + script["CAPTION"] + 4)
        assert pixels[top : top + cell, left : left + cell].std() > 10
