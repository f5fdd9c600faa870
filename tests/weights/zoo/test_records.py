"""Hashes that nobody told us are recorded at the first fetch and checked from then on."""

import dataclasses
import json
import threading

import pytest

from pulse_framework.weights import WeightsError, cache_path, fetch, lock, verify
from tests.weights.zoo.served import DATA, HASH, OTHER, files, make_card

pytestmark = pytest.mark.usefixtures("home")


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


def test_known_hashes_are_checked_before_the_name(server, home):
    server.body = OTHER
    card = make_card(f"{server.url}/a", sha256=HASH)
    with pytest.raises(WeightsError, match=f"expected SHA-256 {HASH}"):
        fetch(card)
    assert files(home) == []
    fetch(dataclasses.replace(card, sha256=None))
    assert files(home) == ["lock.json", "lock.lock", "toy.pkl"]
