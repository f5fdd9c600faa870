"""Servers as they are: cut connections, redirects, pages in place of files."""

import pytest

from pulse_framework.weights import WeightsError, fetch, sources
from tests.weights.zoo.served import DATA, HASH, OTHER, PAGE, Handler, files, make_card

pytestmark = pytest.mark.usefixtures("home")


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
