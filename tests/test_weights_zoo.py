"""Weights that are published elsewhere: their cards, hashes that nobody told us, and servers as they are."""

import dataclasses
import hashlib
import json
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import generators
from pulse_framework.weights import Card, WeightsError, cache_path, fetch, lock, read_card, sources, verify

FOLDER = Path(generators.__file__).parent / "cards"
NVIDIA = sorted(path.stem for path in FOLDER.glob("stylegan[23]-*.yaml"))
DATA = bytes(range(256)) * 1000
OTHER = DATA[::-1]
HASH = hashlib.sha256(DATA).hexdigest()
PAGE = b"\n<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("PULSE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PULSE_OFFLINE", raising=False)
    return tmp_path / "home" / "weights"


class Server(ThreadingHTTPServer):
    """Gives one body at every path, in as many bytes an answer as ``cuts`` says; ``/moved`` leads elsewhere."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.cuts, self.headers, self.ranges, self.asked = DATA, [], {}, True, []
        self.target = "/there"
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if self.path == "/moved":
            return self.answer(302, b"<html>moved</html>", {"Location": server.target, "Content-Type": "text/html"})
        if self.path == "/absent":
            return self.answer(404, PAGE, {"Content-Type": "text/html"})
        same = self.headers.get("If-Range") in (server.headers.get("ETag"), server.headers.get("Last-Modified"))
        if wanted and server.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            size = len(server.body)
            return self.answer(206, server.body[start:], server.headers | {"Content-Range": f"bytes {start}-{size - 1}/{size}"})
        return self.answer(200, server.body, server.headers)

    def answer(self, status, body, headers):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: self.server.cuts.pop(0)] if status < 300 and self.server.cuts else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def make_card(*places, name="toy", **changes):
    values = dict.fromkeys(("architecture", "citation", "alignment"), "none")
    values |= {"sha256": None, "size": None, "format": "pkl", "licence": "MIT", "resolution": (8, 8)}
    return Card(name, places, **(values | changes))


def files(home):
    return sorted(path.name for path in home.rglob("*") if path.is_file())


# Cards


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


# Hashes that are recorded


def test_first_fetch_records_the_hash_and_says_so_once(server, home, caplog):
    card = make_card(f"{server.url}/a")
    path = fetch(card)
    assert path == cache_path(card) == home / "toy.pkl"
    assert json.loads((home / "lock.json").read_text()) == {"toy": {"sha256": HASH, "size": len(DATA), "url": f"{server.url}/a"}}
    told = f"weights toy: the card knows no hash; SHA-256 {HASH} of this file is recorded in {home / 'lock.json'}"
    assert [r.getMessage() for r in caplog.records] == [f"{told} and checked from now on"]
    assert fetch(card) == verify(card) == path
    assert len(caplog.records) == len(server.asked) == 1
    assert fetch(make_card(f"{server.url}/a", name="other")).read_bytes() == DATA
    assert sorted(json.loads((home / "lock.json").read_text())) == ["other", "toy"]
    assert files(home) == ["lock.json", "lock.lock", "other.pkl", "toy.pkl"]


@pytest.mark.parametrize("changed", [OTHER, DATA + b"more"])
def test_another_file_is_refused_ever_after(server, home, changed):
    card = make_card(f"{server.url}/a")
    fetch(card).unlink()
    server.body = changed
    with pytest.raises(WeightsError) as error:
        fetch(card)
    told = f"weights toy: expected a file of 256000 bytes with SHA-256 {HASH}, as recorded in {home / 'lock.json'}, got "
    assert str(error.value).startswith(told)
    assert f"{server.url}/a: expected " in str(error.value)
    assert str(error.value).endswith(f"delete 'toy' from {home / 'lock.json'} and fetch again")
    assert files(home) == ["lock.json", "lock.lock"]
    (home / "lock.json").write_text("{}")
    assert fetch(card).read_bytes() == changed


def test_damage_in_the_cache_is_found_by_the_record(server):
    card = make_card(f"{server.url}/a")
    fetch(card).write_bytes(OTHER)
    with pytest.raises(WeightsError, match=rf"expected SHA-256 {HASH}, got .*; run `pulse weights fetch toy`"):
        verify(card)
    assert fetch(card).read_bytes() == DATA


def test_verify_needs_a_hash(tmp_path, home):
    (tmp_path / "a.pkl").write_bytes(DATA)
    card = make_card("a.pkl", folder=tmp_path)
    with pytest.raises(WeightsError, match=r"expected a hash in the card or in .*lock.json, got none to check it with; run"):
        verify(card)
    assert fetch(card) == verify(card) == tmp_path / "a.pkl"
    (tmp_path / "a.pkl").write_bytes(OTHER)
    with pytest.raises(WeightsError, match="expected SHA-256"):
        fetch(card)


def test_offline_uses_the_cache_and_what_was_copied_there(server, home, monkeypatch):
    card, copied = make_card(f"{server.url}/a"), make_card(f"{server.url}/b", name="copied")
    fetch(card)
    monkeypatch.setenv("PULSE_OFFLINE", "1")
    assert fetch(card).read_bytes() == DATA
    with pytest.raises(WeightsError, match=rf"PULSE_OFFLINE forbids the network.*copy it to {home / 'copied.pkl'}"):
        fetch(copied)
    (home / "copied.pkl").write_bytes(OTHER)
    assert fetch(copied) == verify(copied) == home / "copied.pkl"
    assert json.loads((home / "lock.json").read_text())["copied"]["url"] == ""
    assert len(server.asked) == 1


def test_a_known_size_is_checked_without_a_hash(server, home):
    with pytest.raises(WeightsError, match=r"expected a file of 3 bytes .*expected 3 bytes, got 256000"):
        fetch(make_card(f"{server.url}/a", size=3))
    assert files(home) == []
    assert fetch(make_card(f"{server.url}/a", sha256=HASH)).name == f"toy-{HASH[:12]}.pkl"
    assert files(home) == [f"toy-{HASH[:12]}.pkl"]


def test_cards_of_one_name_are_not_mixed_up(server):
    fetch(make_card(f"{server.url}/a"))
    with pytest.raises(WeightsError, match=f"a record of {server.url}/b, got one of {server.url}/a; rename the card, or delete"):
        fetch(make_card(f"{server.url}/b"))


@pytest.mark.parametrize("text", ["", "[]", '{"toy": {}}', '{"toy": {"sha256": "0", "size": 1, "url": ""}}', "\x00"])
def test_an_unreadable_lock_file_is_explained(server, home, text):
    home.mkdir(parents=True)
    (home / "lock.json").write_text(text)
    with pytest.raises(WeightsError, match=r"lock file .*lock.json: expected .*; repair it, or delete it") as error:
        fetch(make_card(f"{server.url}/a"))
    assert "\n" not in str(error.value)
    assert server.asked == []


def test_records_of_many_at_once(tmp_path):
    """No writer loses the record of another, and the first of one name wins."""
    file, kept = tmp_path / "sub" / "lock.json", []

    def write(index):
        kept.append(lock.record(file, f"card{index % 4}", lock.Record(f"{index:064x}", index, "here")))

    threads = [threading.Thread(target=write, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [record for record, new in kept if new]
    assert len(winners) == 4
    assert {record for record, _ in kept} == set(winners)
    assert [lock.recall(file, f"card{index}") in winners for index in range(4)] == [True] * 4
    assert sorted(path.name for path in file.parent.iterdir()) == ["lock.json", "lock.lock"]


# Licences


def test_a_non_commercial_licence_is_told_before_a_download(server, caplog):
    card = make_card(f"{server.url}/a", licence="For non-commercial\nuse only.", sha256=HASH)
    fetch(card)
    fetch(card)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [
        (logging.WARNING, "weights toy: licence: For non-commercial use only.")
    ]
    fetch(make_card(f"{server.url}/a", sha256=HASH, name="free"))
    assert len(caplog.records) == 1


# Servers


@pytest.mark.parametrize("header", [{"ETag": '"1"'}, {"Last-Modified": "Wed, 21 Oct 2020 07:28:00 GMT", "ETag": 'W/"1"'}])
def test_cut_connections_are_resumed(server, header):
    server.headers, server.cuts, seen = header, [100_000, 50_000], []
    path = fetch(make_card(f"{server.url}/a"), progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == DATA
    assert [wanted for _, wanted in server.asked] == [None, "bytes=98304-", "bytes=147456-"]
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {len(DATA)}


@pytest.mark.parametrize("case", ["no version", "no ranges", "changed"])
def test_cut_connections_restart_where_they_cannot_be_resumed(server, case, monkeypatch):
    server.headers, server.cuts = {} if case == "no version" else {"ETag": '"1"'}, [100_000]
    server.ranges = case != "no ranges"
    if case == "changed":
        answer = Handler.answer

        def once(self, *args):
            answer(self, *args)
            self.server.headers, self.server.body = {"ETag": '"2"'}, OTHER

        monkeypatch.setattr(Handler, "answer", once)
    assert fetch(make_card(f"{server.url}/a")).read_bytes() == (OTHER if case == "changed" else DATA)
    assert len(server.asked) == 2


def test_a_connection_that_is_always_cut(server, home):
    server.headers, server.cuts = {"ETag": '"1"'}, [1000] * 9
    with pytest.raises(WeightsError, match=r"/a: .*Incomplete"):
        fetch(make_card(f"{server.url}/a"))
    assert len(server.asked) == 4
    assert files(home) == []


def test_redirects_are_followed_unless_they_lose_encryption(server, home, monkeypatch):
    assert fetch(make_card(f"{server.url}/moved")).read_bytes() == DATA
    assert [path for path, _ in server.asked] == ["/moved", "/there"]
    monkeypatch.setattr(sources, "_HERE", ())
    with pytest.raises(WeightsError, match=r"/moved: expected an encrypted connection, got a redirect to http://.*/there"):
        fetch(make_card(f"{server.url}/moved", name="unsafe"))
    assert "unsafe.pkl" not in files(home)


@pytest.mark.parametrize("sha256", [None, HASH])
@pytest.mark.parametrize("header", [{"Content-Type": "text/html; charset=utf-8"}, {}])
@pytest.mark.parametrize("body", [PAGE, b"\xef\xbb\xbf<?xml version='1.0'?><html/>"])
def test_a_page_is_no_weights(server, home, header, body, sha256):
    server.body, server.headers = body, header
    with pytest.raises(WeightsError, match="/a: expected weights, got an HTML page; open the address in a browser"):
        fetch(make_card(f"{server.url}/a", sha256=sha256))
    assert files(home) == []


def test_a_page_copied_by_hand_is_no_weights(server, home):
    home.mkdir(parents=True)
    (home / "toy.pkl").write_bytes(PAGE)
    assert fetch(make_card(f"{server.url}/a")).read_bytes() == DATA


def test_binary_files_may_start_with_the_sign_of_a_page(server):
    """A .safetensors starts with a length in eight bytes, which may be 60, the code of ``<``."""
    server.body = (60).to_bytes(8, "little") + DATA
    assert fetch(make_card(f"{server.url}/a")).read_bytes() == server.body


@pytest.mark.parametrize(("place", "body", "reason"), [("/absent", DATA, "404"), ("/a", b"", "got an empty file")])
def test_nothing_is_recorded_of_a_failure(server, home, place, body, reason):
    server.body = body
    with pytest.raises(WeightsError, match=rf"{place}: .*{reason}"):
        fetch(make_card(server.url + place))
    assert files(home) == []


def test_known_hashes_are_checked_before_the_name(server, home):
    server.body = OTHER
    card = make_card(f"{server.url}/a", sha256=HASH)
    with pytest.raises(WeightsError, match=f"expected SHA-256 {HASH}"):
        fetch(card)
    assert files(home) == []
    fetch(dataclasses.replace(card, sha256=None))
    assert files(home) == ["lock.json", "lock.lock", "toy.pkl"]
