"""An RL run of a tiny model whose scorer needs no verifier: python -m tests.pipeline.tiny_run OUT [SECTION.KEY=VALUE …]

Where OUT/hang lies, the next completion is judged for ever."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import torch

from magistral.flow import Completion, Problem, Scored
from magistral.log import open_run
from magistral.models.load import load_recipe_model
from magistral.pipeline.curriculum import seed_of
from magistral.pipeline.make import Ingredients, Scores
from magistral.pipeline.run import run_rl
from magistral.recipe import load_recipe
from tests.pipeline.fakes import scored

RECIPE = Path(__file__).parents[2] / "recipes" / "nano.toml"
SMALL = (
    "model.scratch={dim=16,n_layers=2,n_heads=2,n_kv_heads=1,hidden_dim=32}", "engine.n_slots=32", "eval.n_runs=1",
    "rl.group_size=2", "rl.n_batch=16", "rl.n_minibatch=16", "rl.n_async=32", "rl.steps=9", "rl.checkpoint_every=3",
)  # fmt: skip
PROBLEMS = [Problem(id=f"sum-{i}", question=f"{i} + 1 = ?", reference=str(i + 1)) for i in range(50)]


class LuckyScorer:
    """Half of the groups of two are alike."""

    def __init__(self, hang: Path) -> None:
        self.hang = hang

    def score(self, completion: Completion) -> Scored:
        if self.hang.exists():
            self.hang.unlink()
            time.sleep(1000)
        return scored(completion, float(seed_of(*completion.tokens) % 2))


def lucky(hang: Path) -> AbstractContextManager[Scores]:
    return nullcontext(LuckyScorer(hang))


def ingredients(out: Path, *changes: str) -> Ingredients:
    recipe = load_recipe(RECIPE, (*SMALL, *changes))
    assert recipe.rl is not None
    model, tokenizer = load_recipe_model(recipe.model, recipe.seed)
    return Ingredients(recipe, recipe.rl, model, tokenizer, partial(lucky, out / "hang"))


def main(out: Path, *changes: str) -> None:
    torch.set_num_threads(1)
    parts = ingredients(out, *changes)
    with open_run(out, parts.recipe, stage="rl", model="scratch", resume=True) as folder:
        run_rl(parts, PROBLEMS, folder, on_step=lambda _: None)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
