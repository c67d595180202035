"""`magistral rl RECIPE --dry-run` plans before anything is fetched."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from magistral.cli.main import app
from magistral.errors import UserError

RECIPES = Path(__file__).parents[2] / "recipes"


LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("medium_rl", "medium_rl_1")]


@pytest.mark.parametrize("name", ["small_rl", "medium_rl_2", "medium_rl_3", *LONG])
def test_each_recipe_for_the_24b_fits_256_gpus_of_80_gb(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral.pipeline.simulate.N_STEPS", 2)  # a step to measure: what it says is tested with the simulation
    result = CliRunner().invoke(app, ["rl", str(RECIPES / f"{name}.toml"), "--dry-run"])
    assert result.exit_code == 0, result.output
    resolved, _, told = result.output.partition("# Mistral-Small")
    assert tomllib.loads(resolved)["rl"]["betas"] == [0.9, 0.95]  # the defaults too
    assert "on 256 H100" in told
    assert "DOES NOT FIT" not in told
    assert "# a host of 4 generators: 527 GiB of its memory, 351 of them in /dev/shm (" in told  # 24 bytes a weight, 16
    assert "# a host of 8 trainers: 1,054 GiB of its memory, 263 of them in /dev/shm (" in told  # 48 bytes a weight, 12
    assert "# where the run is started: 263 GiB of memory, 88 of them in /dev/shm" in told
    n_paces = 3 if name == "medium_rl" else 1
    assert (told.count(", fits ("), told.count("expected: ")) == (2 * n_paces, n_paces)
    assert list(tmp_path.iterdir()) == []


def test_stages_are_told_before_the_plan() -> None:
    stages = '[{name="short", until={of="length", steps=5, gain=0.02}, steps=9}, {name="long", max_tokens=80, drop_solved=true}]'
    options = ["--model", "magistral-small-2507", "--set", f"rl.stages={stages}", "--set", "reward.l_max=64"]
    result = CliRunner().invoke(app, ["rl", str(RECIPES / "nano.toml"), "--dry-run", *options])
    assert [line for line in result.output.splitlines() if line.startswith("# stage")] == [
        "# stage short, until a length plateau over 5 steps (gain 0.02) or 9 steps: up to 64 tokens, n_batch 64, n_async 128",
        "# stage long, until the end: up to 80 tokens, n_batch 64, n_async 128; solved problems left out",
    ]


def test_a_recipe_that_asks_for_no_gpus_says_so() -> None:
    result = CliRunner().invoke(app, ["rl", str(RECIPES / "nano.toml"), "--dry-run", "--model", "magistral-small-2507"])
    assert "No GPUs are asked for" in result.output


def test_a_native_engine_on_gpus_is_refused() -> None:
    options = ["--dry-run", "--model", "magistral-small-2507", "--set", "runtime.generator_gpus=1"]
    result = CliRunner().invoke(app, ["rl", str(RECIPES / "nano.toml"), *options])
    assert isinstance(result.exception, UserError)
    assert "the native engine writes on the CPU" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dry-run", "--gpu", "h10"], "--gpu h10: did you mean 'h100'?"),
        (["--dry-run", "--model", "no-such-model"], "no-such-model"),
        ([], "--out is missing"),
    ],
    ids=["card", "model", "no folder"],
)
def test_what_cannot_be_planned_is_one_line(options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["rl", str(RECIPES / "small_rl.toml"), *options])
    assert isinstance(result.exception, UserError)
    assert said in str(result.exception)
