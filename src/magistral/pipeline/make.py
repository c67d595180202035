"""The parts that every runtime puts together, from one set of ingredients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch

from magistral.engines.make import engine_of
from magistral.flow import Completion, Scored
from magistral.models.transformer import Transformer
from magistral.pipeline.growing import Desk
from magistral.pipeline.learner import Learner
from magistral.pipeline.roles import Roles
from magistral.pipeline.runtime_inline import InlineGenerator, InlineVerifier
from magistral.recipe import Recipe
from magistral.recipe_train import Rl
from magistral.text.template import problem_tokens
from magistral.text.tokens import Tokenizer
from magistral.trainer.ranks import ALONE, Ranks
from magistral.trainer.trainer import Trainer

if TYPE_CHECKING:
    from magistral.engines.native.engine import NativeEngine
    from magistral.engines.vllm import VllmEngine


class Scores(Protocol):
    def score(self, completion: Completion) -> Scored:
        """Raises VerifierFailed where no judgement could be made."""


MakeScorer = Callable[[], AbstractContextManager[Scores]]
"""Picklable: a verifier makes its scorer where it is."""


@dataclass(frozen=True, slots=True)
class Ingredients:
    """Picklable."""

    recipe: Recipe
    rl: Rl
    model: Transformer
    tokenizer: Tokenizer
    make_scorer: MakeScorer

    @property
    def n_bytes(self) -> int:
        """Of the weights in float32."""
        return 4 * self.model.sizes.n_parameters

    def to_write(self) -> Ingredients:
        """What a generator in a process of its own needs: one whose vLLM server is sent every weight needs none to begin with,
        but their names and shapes."""
        if self.recipe.engine.kind != "vllm" or self.rl.lora is not None:
            return self
        with torch.device("meta"):
            return replace(self, model=Transformer(self.model.sizes))

    def desk(self) -> Desk:
        tokenizer, prompt = self.tokenizer, self.recipe.prompt
        return Desk(
            lambda problem: problem_tokens(tokenizer, prompt, problem.question),
            tokenizer.decode,
            temperature=self.rl.temperature,
        )

    def engine(self, part: tuple[int, int] = (0, 1)) -> AbstractContextManager[NativeEngine | VllmEngine]:
        """With a copy of the model: to be made before the trainer puts LoRA into it. `part`: which of how many generators."""
        return engine_of(self.recipe, self.model, self.tokenizer, part=part)

    def learner(self, ranks: Ranks = ALONE) -> Learner:
        trainer = Trainer(self.model, self.rl, seed=self.recipe.seed, temperature=self.rl.temperature, ranks=ranks)
        return Learner(trainer, self.tokenizer, minibatches=self.rl.n_batch // self.rl.n_minibatch)


@asynccontextmanager
async def inline_roles(ingredients: Ingredients) -> AsyncIterator[Roles]:
    with ingredients.engine() as engine, ingredients.make_scorer() as scorer:
        generator = InlineGenerator(engine, ingredients.desk())
        yield Roles(generator, InlineVerifier(scorer.score), ingredients.learner())
