"""Random values of a configuration: streams, distributions against closed forms, and what is refused."""

import math
from collections import Counter

import pytest
from omegaconf import OmegaConf

from pulse_framework.cli.compose import ConfigError, build
from pulse_framework.cli.draws import is_random, resolve

COUNT = 800


def drawn(value, seed=0, key="a.png"):
    node = OmegaConf.create({"degradation": {"value": value}}).degradation
    return OmegaConf.to_container(resolve(node, seed, key))["value"]


def many(value, count=COUNT):
    return [drawn(value, key=str(i)) for i in range(count)]


UNIFORM = {"_draw_": "uniform", "low": -1.0, "high": 3.0}
CHAIN = {"_draw_": "shuffle", "items": [1, {"x": UNIFORM}, {"_draw_": "maybe", "p": 0.5, "item": 2}]}


def test_the_same_image_and_seed_give_the_same_values_whatever_else_there_is():
    both = {"one": UNIFORM, "two": UNIFORM}
    assert drawn(both) == drawn(both)
    assert drawn(both)["one"] != drawn(both)["two"]
    assert drawn({"one": UNIFORM})["one"] == drawn(both)["one"]
    assert len({drawn(UNIFORM), drawn(UNIFORM, seed=1), drawn(UNIFORM, key="b.png")}) == 3
    assert drawn(CHAIN) == drawn(CHAIN)


def test_nothing_is_altered_and_what_is_not_random_stays():
    node = OmegaConf.create({"degradation": {"a": [1, "x", None, 2.5], "b": UNIFORM, "c": "${degradation.a}"}}).degradation
    before = OmegaConf.to_container(node)
    made = resolve(node, 0, "a")
    assert OmegaConf.to_container(node) == before
    assert made.a == made.c == [1, "x", None, 2.5]
    assert (is_random(node), is_random(made)) == (True, False)
    with pytest.raises(ConfigError, match=r"degradation\.b: .*to be drawn"):
        build(OmegaConf.create({"degradation": {"_target_": "degradations.identity.Identity", "b": UNIFORM}}).degradation)


def test_uniform():
    values = many(UNIFORM)
    assert -1 <= min(values) < -0.95
    assert 2.95 < max(values) <= 3
    assert sum(values) / len(values) == pytest.approx(1, abs=4 * 4 / math.sqrt(12 * len(values)))
    assert all(float(f"{value:.6g}") == value for value in values)
    assert drawn({"_draw_": "uniform", "low": 2, "high": 2}) == 2


def test_log_uniform_has_a_uniform_logarithm():
    values = [math.log10(value) for value in many({"_draw_": "log_uniform", "low": 1, "high": 10000})]
    assert 0 <= min(values) < 0.05
    assert 3.95 < max(values) <= 4
    assert sum(values) / len(values) == pytest.approx(2, abs=4 * 4 / math.sqrt(12 * len(values)))


def test_integer_includes_both_ends():
    counts = Counter(many({"_draw_": "integer", "low": -1, "high": 2}))
    assert set(counts) == {-1, 0, 1, 2}
    assert all(type(value) is int for value in counts)
    assert max(abs(count - COUNT / 4) for count in counts.values()) < 4 * math.sqrt(COUNT * 0.25 * 0.75)


def test_choice_follows_its_weights():
    counts = Counter(many({"_draw_": "choice", "items": ["a", "b", "c"], "weights": [1, 0, 3]}))
    assert set(counts) == {"a", "c"}
    assert abs(counts["c"] - 0.75 * COUNT) < 4 * math.sqrt(COUNT * 0.25 * 0.75)
    assert set(many({"_draw_": "choice", "items": [UNIFORM, None]}, 20)) > {None}


def test_shuffle_gives_every_order_alike_and_takes_its_place_in_a_list():
    counts = Counter(tuple(items) for items in many({"_draw_": "shuffle", "items": [1, 2, 3]}, 600))
    assert len(counts) == 6
    assert max(abs(count - 100) for count in counts.values()) < 4 * math.sqrt(600 * (1 / 6) * (5 / 6))
    made = many([0, {"_draw_": "shuffle", "items": [1, 2]}, 3], 20)
    assert set(map(tuple, made)) == {(0, 1, 2, 3), (0, 2, 1, 3)}


def test_ordered_items_of_a_shuffle_keep_their_order():
    """Of the 6 orders of 3 things, those with c before a become the ones with a before c: 3 orders, alike."""
    counts = Counter(tuple(items) for items in many({"_draw_": "shuffle", "items": ["a", "b", "c"], "ordered": [0, 2]}, 600))
    assert set(counts) == {("a", "b", "c"), ("b", "a", "c"), ("a", "c", "b")}
    assert max(abs(count - 200) for count in counts.values()) < 4 * math.sqrt(600 * (1 / 3) * (2 / 3))
    made = {tuple(drawn({"_draw_": "shuffle", "items": [0, 1, 2, 3], "ordered": [3, 1]}, key=str(i))) for i in range(200)}
    assert len(made) == 12
    assert all(order.index(3) < order.index(1) for order in made)


def test_a_list_that_is_chosen_takes_its_place_in_a_list():
    pick = {"_draw_": "choice", "items": [[1, 2], [2, {"_draw_": "maybe", "p": 1, "item": 1}], 4]}
    assert set(map(tuple, many([0, pick, 3], 30))) == {(0, 1, 2, 3), (0, 2, 1, 3), (0, 4, 3)}
    assert drawn({"_draw_": "choice", "items": [[1, 2]]}) == [1, 2]


def test_maybe_is_there_as_often_as_it_says():
    sizes = Counter(len(items) for items in many([0, {"_draw_": "maybe", "p": 0.2, "item": {"x": UNIFORM}}]))
    assert abs(sizes[2] - 0.2 * COUNT) < 4 * math.sqrt(COUNT * 0.2 * 0.8)
    assert many([{"_draw_": "maybe", "p": 0, "item": 1}, {"_draw_": "maybe", "p": 1, "item": 2}], 5) == [[2]] * 5
    assert {len(items) for items in many(CHAIN, 20)} == {2, 3}


WRONG = {
    "one of uniform, log_uniform": {"_draw_": "normal", "mean": 0},
    "with low, high": {"_draw_": "uniform", "low": 0},
    "got high, low, step": {"_draw_": "integer", "low": 0, "high": 1, "step": 1},
    "low at most high": {"_draw_": "uniform", "low": 1, "high": 0},
    "low above 0": {"_draw_": "log_uniform", "low": 0, "high": 1},
    "integers low and high": {"_draw_": "integer", "low": 0.5, "high": 1},
    "numbers low and high": {"_draw_": "uniform", "low": "0", "high": 1},
    "a list of items": {"_draw_": "choice", "items": []},
    "2 weights": {"_draw_": "choice", "items": [1, 2], "weights": [1]},
    "not all 0": {"_draw_": "choice", "items": [1, 2], "weights": [0, 0]},
    "places among 2 items": {"_draw_": "shuffle", "items": [1, 2], "ordered": [2]},
    "places that differ": {"_draw_": "shuffle", "items": [1, 2], "ordered": [0, 0]},
    "a probability p": [{"_draw_": "maybe", "p": 2, "item": 1}],
    "inside a list": {"_draw_": "maybe", "p": 0.5, "item": 1},
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_descriptions_are_refused_in_one_line(message):
    with pytest.raises(ConfigError, match=r"^degradation\.value") as caught:
        drawn(WRONG[message])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
