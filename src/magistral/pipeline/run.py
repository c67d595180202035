"""`magistral rl`: a recipe, a model and problems become a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn

from magistral.engines.native.engine import NativeEngine
from magistral.errors import RecipeError
from magistral.flow import Completion, Problem, Scored, StepReport
from magistral.log import RunFolder
from magistral.models.transformer import Transformer
from magistral.pipeline.learner import Learner
from magistral.pipeline.ledger import Ledger
from magistral.pipeline.loop import Pace, run
from magistral.pipeline.record import Checkpoints, Record
from magistral.pipeline.runtime_inline import InlineGenerator, InlineVerifier
from magistral.recipe import Recipe, Rl
from magistral.text.template import problem_tokens
from magistral.text.tokens import Tokenizer
from magistral.trainer.checkpoint import restore_newest
from magistral.trainer.trainer import Trainer

OnStep = Callable[[StepReport], None]


def run_rl(  # noqa: PLR0913 - each is one thing that the verb wires in
    recipe: Recipe,
    model: Transformer,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    score: Callable[[Completion], Scored],
    folder: RunFolder,
    *,
    on_step: OnStep,
) -> None:
    """Goes on from the folder's newest checkpoint if it has one. Ctrl-C leaves a checkpoint of the last whole step.

    Raises RunFailed (TrainingFailed, with the batch saved) where the run ends as a failure."""
    rl = recipe.rl
    if rl is None:
        raise RecipeError("the recipe has no section [rl]")
    engine = NativeEngine(  # before the trainer puts LoRA into the model
        model, tokenizer.eos, n_slots=recipe.engine.n_slots, window=recipe.model.window, weights=recipe.engine.weights
    )
    ledger = Ledger(problems, seed=recipe.seed, group_size=rl.group_size)
    trainer = Trainer(model, rl, seed=recipe.seed, temperature=rl.temperature)
    learner = Learner(
        trainer, groups_per_minibatch=rl.n_minibatch // rl.group_size, save_failed=lambda v, scored: record.save_failed(v, scored)
    )
    verifier = InlineVerifier(score)
    checkpoints = Checkpoints(folder, learner, tokenizer, keep=rl.keep_checkpoints, every=rl.checkpoint_every)
    record = Record(folder, ledger, learner, verifier, checkpoints, on_step=on_step)
    if (state := restore_newest(folder, trainer)) is not None:
        ledger.restore(state["ledger"])
        record.step = state["step"]
    engine.load(trainer.changed_weights(), record.step)
    generator = InlineGenerator(
        engine,
        lambda p: problem_tokens(tokenizer, recipe.prompt, p.question),
        tokenizer.decode,
        max_tokens=rl.max_tokens,
        temperature=rl.temperature,
    )
    try:
        asyncio.run(run(ledger, generator, verifier, learner, record, pace=_pace(rl, record.step)))
    except KeyboardInterrupt:
        record.save_checkpoint()
        raise
    except BaseExceptionGroup as e:
        _raise_first(e)
    record.save_checkpoint()


def _pace(rl: Rl, step: int) -> Pace:
    return Pace(
        groups_per_batch=rl.n_batch // rl.group_size,
        groups_in_flight=rl.n_async // rl.group_size,
        first_version=step + 1,
        last_version=rl.steps,
        max_skipped=rl.max_skipped,
    )


def _raise_first(group: BaseExceptionGroup[BaseException]) -> NoReturn:
    """A loop's own error, not the group around it: one line for a person."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    raise error
