"""Cards are read strictly."""

import dataclasses

import pytest

from pulse_framework.weights import WeightsError, read_card
from tests.weights.toy import ROOT, content, write_card

pytestmark = pytest.mark.usefixtures("home")

CARDS = sorted(
    path for package in ("generators", "pulse_framework/features") for path in (ROOT / package / "cards").glob("*.yaml")
)


def test_card_is_what_the_file_says(tmp_path):
    extra = {"notes": "Beware.", "framing": {"by": "ffhq", "scale": 0.8}}
    card = read_card(write_card(tmp_path, "a.pt", "https://example.org/a.pt", **extra))
    expected = content("a.pt", "https://example.org/a.pt", name="toy", folder=tmp_path, **extra)
    assert dataclasses.asdict(card) == expected | {"sources": ("a.pt", "https://example.org/a.pt"), "resolution": (8, 8)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sha265": "0"}, r"got \['sha265'\]; remove or rename"),
        ({"sha256": "AB"}, "key 'sha256': expected 64 lower-case hexadecimal digits, in quotes, or null, got 'AB'"),
        ({"sha256": 12}, "key 'sha256'"),
        ({"size": "14 MB"}, "key 'size': expected a number of bytes, or null, got '14 MB'"),
        ({"size": True}, "key 'size'"),
        ({"format": "../x"}, "key 'format'"),
        ({"licence": ""}, "key 'licence': expected text"),
        ({"framing": "ffhq"}, "key 'framing': expected \"by\" and, if they are not 1 and 0, the numbers"),
        ({"framing": {"scale": 1}}, "key 'framing'"),
        ({"framing": {"by": "eyes"}}, "key 'framing'"),
        ({"framing": {"by": "ffhq", "scale": "0.8"}}, "key 'framing'"),
        ({"framing": {"by": "ffhq", "left": 1}}, "key 'framing'"),
        ({"resolution": 64}, "key 'resolution': expected .height, width. in pixels, got 64"),
        ({"sources": []}, "key 'sources'"),
        ({"sources": "a.pt"}, "key 'sources'"),
        ({"sources": ["ftp://example.org/a.pt"]}, "key 'sources'"),
        ({"sources": ["http://example.org/a.pt"]}, "key 'sources'"),
        ({"sources": ["hf://file"]}, "key 'sources'"),
        ({"sources": ["pypi:package/file"]}, "key 'sources'"),
        ({"sources": ["pypi:--index-url==1/file"]}, "key 'sources'"),
    ],
)
def test_malformed_cards_are_refused(tmp_path, changes, message):
    with pytest.raises(WeightsError, match=message) as error:
        read_card(write_card(tmp_path, "a.pt", **changes))
    assert "toy.yaml" in str(error.value)


def test_missing_keys_are_refused(tmp_path):
    (tmp_path / "toy.yaml").write_text("size: 3")
    with pytest.raises(WeightsError, match=r"got none of \['alignment', .*'sources'\]; add them"):
        read_card(tmp_path / "toy.yaml")


@pytest.mark.parametrize("text", ["", "- a", "{", "\x00"])
def test_files_that_are_no_cards_are_refused(tmp_path, text):
    (tmp_path / "toy.yaml").write_text(text)
    with pytest.raises(WeightsError, match=r"toy\.yaml: expected"):
        read_card(tmp_path / "toy.yaml")


@pytest.mark.parametrize(
    "path", ["absent.yaml", "pkg://no_such_package/a.yaml", "pkg://generators", "pkg://os.path/a", "pkg://yaml/a.yaml"]
)
def test_absent_cards(path):
    with pytest.raises(WeightsError, match=f"card .*{path.rpartition('/')[2]}"):
        read_card(path)


@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_cards_of_the_package(path):
    assert read_card(f"pkg://{path.relative_to(ROOT)}") == read_card(path)


def test_there_are_cards():
    assert "digiface-dcgan-64" in [path.stem for path in CARDS]
