"""What the verbs have in common."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from magistral.cli.wiring import progress, read_recipe
from magistral.errors import RecipeError, UnknownName, UserError
from magistral.text.versions import version_of
from magistral.verifiers.sandbox.host import weaker
from magistral.verifiers.sandbox.limits import Tier

NANO = Path(__file__).parents[2] / "recipes" / "nano.toml"


def test_a_version_s_own_prompt_is_written_out_in_the_recipe() -> None:
    recipe = read_recipe(NANO, ["prompt.system=", "prompt.version=magistral-small-1.0", "prompt.variant=train"])
    assert recipe.prompt.version == "magistral-small-2506"
    assert recipe.prompt.system == version_of("magistral-small-2506").prompts["train"]
    assert recipe.prompt.variant == ""


def test_a_recipe_without_a_version_is_left_as_it_is() -> None:
    recipe = read_recipe(NANO, None)
    assert (recipe.prompt.version, recipe.prompt.variant) == ("text", "")


def test_a_version_that_is_not_there_is_an_error_that_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"no version named 'magistral-small-2508'; did you mean 'magistral-small-250\d'"):
        read_recipe(NANO, ["prompt.version=magistral-small-2508"])


def test_two_prompts_are_an_error() -> None:
    with pytest.raises(RecipeError, match="system and variant='serve' both say what the model is told"):
        read_recipe(NANO, ["prompt.system=Think.", "prompt.version=magistral-small-2507", "prompt.variant=serve"])


def test_a_variant_that_the_version_lacks_is_an_error() -> None:
    with pytest.raises(UnknownName, match="'text' has no system prompt of its own"):
        read_recipe(NANO, ["prompt.system=", "prompt.variant=train"])


def test_an_isolation_that_this_host_does_not_give_is_missed_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral.verifiers.sandbox.box.find_host", lambda: weaker(Tier.BUBBLEWRAP))
    assert not read_recipe(NANO, None).reward.require_isolation
    with pytest.raises(UserError, match=r"isolation bubblewrap\+cgroups is required, and this host gives"):
        read_recipe(NANO, ["reward.require_isolation=true"])


def test_a_bar_shows_a_name_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("eval: a[/b]", 1) as advance:
        advance(1, "[red]")
    shown = capsys.readouterr().err
    assert "eval: a[/b]" in shown
    assert "[red]" in shown


def test_where_no_terminal_shows_a_bar_a_line_tells_of_progress_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magistral.cli.wiring.LINE_S", 0.01)
    with progress("distill: t", 40, 3) as advance:
        advance(2, "4 traces")
        end, line, heard = time.monotonic() + 30, re.compile(r"^distill: t: 5 of 40 in \d+ s, 4 traces$", re.MULTILINE), ""
        while not line.search(heard) and time.monotonic() < end:
            heard += capsys.readouterr().err
        advance(35)
    assert line.search(heard)
    assert re.search(r"^distill: t: 40 of 40 in \d+ s, 4 traces\n\Z", capsys.readouterr().err, re.MULTILINE)
    with progress("curate: candidates read", None) as advance:
        advance(1400)
    assert re.search(r"^curate: candidates read: 1,400 in \d+ s\n\Z", capsys.readouterr().err, re.MULTILINE)
