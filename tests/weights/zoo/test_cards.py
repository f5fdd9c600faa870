"""Cards of weights that are published elsewhere, and their licences."""

import logging
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import generators
from pulse_framework.weights import fetch, read_card
from tests.weights.zoo.served import HASH, make_card

pytestmark = pytest.mark.usefixtures("home")

FOLDER = Path(generators.__file__).parent / "cards"
NVIDIA = sorted(path.stem for path in FOLDER.glob("stylegan[23]-*.yaml"))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_card(path):
    card = read_card(path)
    assert card.name == path.stem
    assert not any(source.startswith("http://") for source in card.sources)
    assert card.name.endswith(f"-{card.resolution[0]}")
    assert card.resolution[0] == card.resolution[1]
    assert (card.sha256 is None) <= all(source.startswith("https://") for source in card.sources)


@pytest.mark.parametrize("name", NVIDIA)
def test_cards_of_nvidia(name):
    card = read_card(FOLDER / f"{name}.yaml")
    (source,) = card.sources
    assert urlsplit(source).hostname in ("nvlabs-fi-cdn.nvidia.com", "api.ngc.nvidia.com")
    assert source.endswith(".pkl")
    assert card.format == "pkl"
    assert card.non_commercial
    assert "NVIDIA Source Code License" in card.licence
    assert card.citation.count("arXiv:") >= 2
    family = name.partition("-")[0]
    assert f"generators.{family}.load" in card.architecture
    assert "/stylegan3/" in source if family == "stylegan3" else "/stylegan2-ada-pytorch/pretrained/" in source


def test_the_zoo_is_there():
    expected = {f"stylegan3-{c}-{data}" for c in "tr" for data in ("ffhq-1024", "ffhqu-256", "afhqv2-512")}
    expected |= {f"stylegan2-afhq{data}-512" for data in ("cat", "dog", "wild")} | {
        f"stylegan2-ffhq-{n}" for n in (256, 512, 1024)
    }
    assert set(NVIDIA) == expected | {"stylegan2-metfaces-1024", "stylegan2-celebahq-256"}
    addresses = {read_card(FOLDER / f"{name}.yaml").sources for name in NVIDIA}
    assert len(addresses) == len(NVIDIA)


@pytest.mark.parametrize(
    ("licence", "answer"),
    [("CC-BY-NC-4.0", True), ("For noncommercial use", True), ("Non-commercial use only", True), ("MIT", False), ("NCSA", False)],
)
def test_non_commercial(licence, answer):
    assert make_card("a", licence=licence).non_commercial is answer


def test_a_non_commercial_licence_is_told_before_a_download(server, caplog):
    card = make_card(f"{server.url}/a", licence="For non-commercial\nuse only.", sha256=HASH)
    fetch(card)
    fetch(card)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, "weights toy: licence: For non-commercial use only.")
    ]
    fetch(make_card(f"{server.url}/a", sha256=HASH, name="free"))
    assert len(caplog.records) == 1
