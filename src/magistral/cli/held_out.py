"""Problems asked by a recipe's section [eval], of a model in this process: what `magistral eval RECIPE` measures, and what
chooses the checkpoint of SFT."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from magistral.cli.wiring import prompter
from magistral.engines.base import Engine, Request, Written
from magistral.eval.run import ask_and_judge
from magistral.eval.scores import scores
from magistral.flow import Problem, Scored
from magistral.pipeline.curriculum import seed_of
from magistral.pipeline.growing import completion_of
from magistral.recipe import Recipe
from magistral.recipe_train import Best

if TYPE_CHECKING:
    from torch import Tensor

    from magistral.rewards.total import Scorer
    from magistral.text.tokens import Tokenizer


class Exam:
    """`problems`, `eval.n_runs` completions of each by the engine, and how they are judged."""

    def __init__(self, recipe: Recipe, engine: Engine, tokenizer: Tokenizer, problems: Sequence[Problem], scorer: Scorer) -> None:
        self.recipe, self.engine, self.tokenizer, self.scorer = recipe, engine, tokenizer, scorer
        e, prompt_of = recipe.eval, prompter(recipe, tokenizer)
        self.requests = [
            (p, Request(
                prompt=prompt_of(p), seeds=tuple(seed_of(recipe.seed, "eval", p.id, i) for i in range(e.n_runs)),
                max_tokens=e.max_tokens, temperature=e.temperature, top_p=e.top_p, key=ordinal,
            ))
            for ordinal, p in enumerate(problems)
        ]  # fmt: skip
        self.n_completions = len(self.requests) * e.n_runs

    def judge(self, written: Written, problem: Problem, group: int) -> Scored:
        return self.scorer.score(completion_of(written, problem, group, self.tokenizer.decode))

    def solved(self, weights: Mapping[str, Tensor], step: int, *, on_written: Callable[[Sequence[Written]], None]) -> float:
        """pass@1 with these weights in the place of those that the engine holds."""
        self.engine.load(weights, step)
        judged, _ = ask_and_judge(self.engine, self.requests, self.judge, on_written=on_written)
        return scores(judged, self.recipe.eval.n_runs)["pass_at_1"]["value"]


def problems_of(best: Best, recipe: Recipe, held_out: Sequence[Problem]) -> list[Problem]:
    """What the checkpoint is chosen by; a benchmark's question as `magistral eval` asks it, but for its system prompt.

    Raises UserError where it cannot be read, or is of no benchmark that we know."""
    from magistral.curation.sources.benchmarks import read_benchmark
    from magistral.eval.ask import plan, selected

    found = list(held_out) if best.by == "held_out" else read_benchmark(best.by, Path(best.data))
    if best.n_problems is not None:
        found = selected(found, best.n_problems, recipe.seed)
    if best.by == "held_out":
        return found
    asked = plan(found, 1, lambda name, index: seed_of(recipe.seed, "order", name, index))
    return [dataclasses.replace(one.problem, question=one.question) for one in asked]
