"""What the verbs that ask models for text borrow: engines behind one door, judges, a grader that learns by RL."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from magistral.cli.served import endpoint
from magistral.cli.wiring import progress, scorer_of, unfinished
from magistral.errors import RecipeError
from magistral.recipe import Recipe
from magistral.recipe_data import Asked

if TYPE_CHECKING:
    from magistral.engines.ask import Asker
    from magistral.engines.base import Request, Writer, Written
    from magistral.engines.http import Budget, Endpoint
    from magistral.text.tokens import Tokenizer
    from magistral.verifiers.judges import Judges


class RecipeHands:
    """By a recipe; without one there are judges, and no engine. Everything is made when it is first asked for, and closed."""

    def __init__(self, recipe: Recipe | None, out: Path, n_threads: int) -> None:
        self.recipe, self.out, self.n_threads = recipe, out, n_threads
        self._stack = ExitStack()
        self._judges: Judges | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.close()

    def judges(self) -> Judges:
        from magistral.verifiers.judges import Judges

        if self._judges is None:
            self._judges = self._stack.enter_context(Judges(n_workers=self.n_threads))
        return self._judges

    def asker(self, asked: Asked) -> Asker:
        recipe = self._recipe()
        found = endpoint(asked.model)
        return self._remote(recipe, asked, found[1]) if found else self._here(recipe, asked, asked.model)

    def trained(self, asked: Asked, kept: Path) -> Asker:
        """The recipe's model after RL on the candidates of the file `kept`; its run is `grader` in the verb's folder."""
        from magistral.curation.candidate import read_candidates
        from magistral.models.load import load_recipe_model
        from magistral.pipeline.make import Ingredients
        from magistral.pipeline.run import run_rl
        from magistral.text.versions import as_version, version_of

        recipe, out = self._recipe(), self.out / "grader"
        if recipe.rl is None:
            raise RecipeError('curation.difficulty.grader.model = "rl" needs a section [rl]')
        with unfinished(out, recipe, "rl", recipe.model.base, resume=True) as folder:
            if folder is not None:
                model, tokenizer = load_recipe_model(recipe.model, recipe.seed)
                tokenizer = as_version(tokenizer, version_of(recipe.prompt.version))
                problems = [candidate.flow for candidate in read_candidates(kept)]
                with progress("the grader's RL: steps", recipe.rl.steps) as advance:
                    ingredients = Ingredients(recipe, recipe.rl, model, tokenizer, partial(scorer_of, recipe, tokenizer))
                    run_rl(ingredients, problems, folder, on_step=lambda _: advance(1))
        return self._here(recipe, asked, str(out))

    def _recipe(self) -> Recipe:
        if self.recipe is None:
            raise RecipeError("asking a model takes a recipe: name one instead of a file of problems")
        return self.recipe

    def _remote(self, recipe: Recipe, asked: Asked, address: Endpoint) -> Asker:
        from magistral.engines.http import Budget, HttpEngine

        limit = float("inf") if asked.budget is None else asked.budget
        budget = Budget(limit=limit, price_in=asked.price_in, price_out=asked.price_out)
        engine = HttpEngine(address, self.tokenizer(), budget=budget, n_parallel=asked.n_parallel)
        self._stack.callback(engine.close)
        return _asker(recipe, asked, engine, lambda written: written.text, None, n_parallel=asked.n_parallel, meter=budget)

    def _here(self, recipe: Recipe, asked: Asked, model: str) -> Asker:
        import torch

        from magistral.engines.make import engine_of
        from magistral.flow import Problem
        from magistral.models.load import load_model
        from magistral.pipeline.growing import completion_of
        from magistral.text.stream import completion_text
        from magistral.text.versions import as_version, version_of

        torch.set_num_threads(self.n_threads)
        loaded, tokenizer = load_model(model)
        tokenizer = as_version(tokenizer, version_of(recipe.prompt.version))
        engine = self._stack.enter_context(engine_of(recipe, loaded, tokenizer))
        engine.load({}, 0)
        text = completion_text(tokenizer, begun=recipe.prompt.begin_thinking)
        nothing = Problem(id="", question="", reference="")

        def said(written: Written) -> str:
            return text(completion_of(written, nothing, 0, tokenizer.decode))

        return _asker(recipe, asked, engine, said, tokenizer, n_parallel=recipe.engine.n_slots)

    def tokenizer(self) -> Tokenizer:
        """The recipe's model's: what counts tokens, whoever wrote them."""
        from magistral.models.find import model_path
        from magistral.models.sizes import sizes_of
        from magistral.models.words import tokenizer_of
        from magistral.text.tokens import byte_tokenizer
        from magistral.weights.read import open_weights

        model = self._recipe().model
        if model.scratch is not None:
            return byte_tokenizer()
        weights = open_weights(model_path(model.base))
        return tokenizer_of(weights, sizes_of(weights).n_words)


def _asker(
    recipe: Recipe,
    asked: Asked,
    engine: Writer,
    text: Callable[[Written], str],
    tokenizer: Tokenizer | None,
    *,
    n_parallel: int,
    meter: Budget | None = None,
) -> Asker:
    """`tokenizer`: of an engine that is asked in tokens."""
    from magistral.engines.ask import Asker
    from magistral.engines.base import Request
    from magistral.pipeline.curriculum import seed_of
    from magistral.text.message import Message
    from magistral.text.template import problem_tokens

    prompt = recipe.prompt.model_copy(update={"system": asked.system or recipe.prompt.system})
    before = (Message(role="system", content=prompt.system),) if prompt.system else ()

    def request(question: str, seeds: tuple[int, ...], key: Hashable) -> Request:
        messages = (*before, Message(role="user", content=question))
        return Request(
            prompt=problem_tokens(tokenizer, prompt, question) if tokenizer else (), messages=() if tokenizer else messages,
            seeds=seeds, max_tokens=asked.max_tokens, temperature=asked.temperature, top_p=asked.top_p, key=key,
        )  # fmt: skip

    def seed(name: str, place: int) -> int:
        return seed_of(recipe.seed, "ask", name, place)

    return Asker(engine, request=request, text=text, seed=seed, n_parallel=n_parallel, meter=meter)
