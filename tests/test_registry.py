from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from magistral.errors import UnknownName
from magistral.registry import Registry, nearest


def colours() -> Registry[int]:
    registry = Registry[int]("colour")
    registry.register("red")(1)
    registry.register("blue")(2)
    return registry


def test_a_registered_thing_is_found_by_its_name() -> None:
    assert colours()["blue"] == 2


def test_names_are_listed_in_order() -> None:
    assert list(colours()) == ["blue", "red"]


def test_only_registered_names_are_in_it() -> None:
    assert "red" in colours()
    assert "reed" not in colours()


def test_register_hands_back_what_it_registers() -> None:
    def paint() -> str:
        return "paint"

    assert Registry[Callable[[], str]]("tool").register("paint")(paint) is paint


def test_a_typo_names_the_nearest_and_all_known() -> None:
    with pytest.raises(UnknownName, match=r"^no colour named 'reed'; did you mean 'red'\? known: blue, red$") as caught:
        colours()["reed"]
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_name_taken_twice_is_a_bug_of_ours() -> None:
    with pytest.raises(AssertionError, match="colour 'red' is registered twice"):
        colours().register("red")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("temprature", "did you mean 'temperature'? known: seed, temperature"),
        ("zzz", "known: seed, temperature"),
    ],
    ids=["near", "far from all"],
)
def test_nearest(name: str, expected: str) -> None:
    assert nearest(name, ["temperature", "seed"]) == expected
