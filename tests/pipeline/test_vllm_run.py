"""RL runs whose generators are vLLM servers: a server that is ours inside, behind the real one's routes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from statistics import fmean, median

import pytest
from typer.testing import CliRunner

from magistral.cli.main import app
from magistral.engines.native.engine import NativeEngine
from magistral.errors import GeneratorLost, UserError
from magistral.flow import Completion, Problem, Scored
from magistral.log import open_run, read_run
from magistral.models.load import load_recipe_model
from magistral.pipeline.audit import audit
from magistral.pipeline.make import Ingredients, Scores
from magistral.pipeline.run import run_rl
from magistral.pipeline.waits import explain
from magistral.recipe import load_recipe
from tests.engines.fake_vllm import NativeVllm, served
from tests.pipeline.fakes import scored
from tests.pipeline.tiny_run import RECIPE, SMALL

STEPS = 16
CHANGES = (
    *SMALL, "rl.group_size=8", "rl.n_batch=32", "rl.n_minibatch=32", "rl.n_async=64", "engine.n_slots=64", "rl.lr=0.05",
    f"rl.steps={STEPS}", "rl.max_tokens=12", "rl.warmup_steps=0",
)  # fmt: skip
PROBLEMS = [Problem(id=f"sum-{i}", question=f"{i} + 1 = ?", reference=str(i + 1)) for i in range(50)]
Serve = Callable[[], NativeVllm]


class Even:
    """Pays for even tokens."""

    def score(self, completion: Completion) -> Scored:
        return scored(completion, fmean(1.0 - token % 2 for token in completion.tokens))


def even() -> AbstractContextManager[Scores]:
    return nullcontext(Even())


def parts(*changes: str) -> Ingredients:
    recipe = load_recipe(RECIPE, (*CHANGES, *changes))
    assert recipe.rl is not None
    model, tokenizer = load_recipe_model(recipe.model, recipe.seed)
    return Ingredients(recipe, recipe.rl, model, tokenizer, even)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Makes a server with weights of its own, which are not the run's."""
    with ExitStack() as stack:

        def start() -> NativeVllm:
            recipe = load_recipe(RECIPE, CHANGES)
            model, tokenizer = load_recipe_model(recipe.model, seed=99)
            fake = NativeVllm(NativeEngine(model, tokenizer.eos, n_slots=24, window=recipe.model.window))
            fake.url = stack.enter_context(served(fake))
            return fake

        yield start


def run(out: Path, *changes: str) -> list[float]:
    """The mean reward of each step."""
    ingredients = parts(*changes)
    with open_run(out, ingredients.recipe, stage="rl", model="scratch", resume=False) as folder:
        run_rl(ingredients, PROBLEMS, folder, on_step=lambda _: None)
    assert audit(read_run(out)).faults == ()
    return [m["values"]["reward/mean"] for m in read_run(out).metrics()]


def vllm(*urls: str) -> tuple[str, str]:
    return 'engine.kind="vllm"', f"engine.urls={list(urls)}"


def test_a_run_learns_through_vllm_as_it_does_through_the_native_engine(serve: Serve, tmp_path: Path) -> None:
    native = run(tmp_path / "native")
    through = run(tmp_path / "vllm", *vllm(serve().url))
    for curve in (native, through):
        assert len(curve) == STEPS
        assert fmean(curve[:2]) < 0.6
        assert fmean(curve[-3:]) > 0.7
    rows = list(read_run(tmp_path / "vllm").traces())
    assert any(len(set(row["versions"])) > 1 for row in rows)  # in flight
    assert all(row["versions"] == sorted(row["versions"]) for row in rows)
    values = [m["values"] for m in read_run(tmp_path / "vllm").metrics()]
    ratios = [v["gap0/ratio_mean"] for v in values if "gap0/ratio_mean" in v]
    assert ratios[0] == pytest.approx(1, abs=1e-3)
    assert median(ratios) == pytest.approx(1, abs=0.1)  # keys and values of the older weights are kept


def test_held_out_problems_are_asked_where_the_recipe_says(serve: Serve, tmp_path: Path) -> None:
    """By the same weights and seeds: the same completions."""
    fake, found = serve(), []
    for name, engine in (("native", ()), ("vllm", vllm(fake.url))):
        out, changes = tmp_path / name, [word for change in (*CHANGES, *engine) for word in ("--set", change)]
        done = CliRunner().invoke(app, ["eval", str(RECIPE), "--out", str(out), "--threads", "1", *changes])
        assert done.exit_code == 0, done.output
        found.append(json.loads((out / "eval.json").read_text())["scores"])
    assert fake.n_written > 0
    assert found[0] == found[1]


def test_a_server_that_is_not_there_ends_the_run_with_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(GeneratorLost, match="version 0 did not reach every server: ConnectError"):
        run(tmp_path / "run", *vllm("http://127.0.0.1:9"))


def test_without_the_vllm_command_it_says_what_to_name(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"no program '/nowhere/vllm': name the vllm command .* engine\.program, or .* engine\.urls"
    ):
        run(tmp_path / "run", 'engine.kind="vllm"', 'engine.program="/nowhere/vllm"')


def test_a_server_that_ends_before_it_answers_is_told_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text("#!/bin/sh\necho loading\necho no such flag: $1 >&2\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(GeneratorLost, match=r"vllm serve ended with 3; its last words: loading \| no such flag: serve"):
        run(tmp_path / "run", 'engine.kind="vllm"', f'engine.program="{program}"')


def test_a_generator_of_two_gpus_starts_its_server_on_both(tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text('#!/bin/sh\necho "$@" >&2\nexit 3\n')
    program.chmod(0o755)
    changes = ('engine.kind="vllm"', f'engine.program="{program}"', "runtime.generator_gpus=2")
    with pytest.raises(GeneratorLost, match=r"--tensor-parallel-size 2$"):
        run(tmp_path / "run", *changes)


@pytest.mark.slow
def test_on_ray_each_generator_has_its_server_and_one_that_was_started_anew_is_replaced(serve: Serve, tmp_path: Path) -> None:
    ray = pytest.importorskip("tests.pipeline.test_ray", reason="needs the extra `ray`")
    fakes = [serve(), serve()]
    driver = ray.Driver(
        tmp_path / "rl", "runtime.kind=ray", "runtime.n_generators=2", *vllm(*(fake.url for fake in fakes)), "rl.steps=7"
    )
    driver.until_step(3)
    fakes[1].labels[fakes[1].engine.version] = "default"
    driver.end()
    after = audit(read_run(driver.out))
    assert after.faults == ()
    assert (after.step, after.n_trained) == (7, 7 * 8)
    said = "\n".join(explain(driver.out / "waits.json", alive=False))
    assert "generator-1: " in said
    assert "'default', which were not sent here" in said
    assert "generator-0: " not in said
    assert all(fake.n_written for fake in fakes)
