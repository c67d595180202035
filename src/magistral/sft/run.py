"""`magistral sft`: traces become supervised steps; the checkpoint with the lowest loss on traces kept aside is the result."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence

from magistral.errors import RecipeError, TrainingFailed
from magistral.flow import StepReport
from magistral.log import RunFolder
from magistral.models.load import save_model
from magistral.models.transformer import Transformer
from magistral.recipe import Recipe
from magistral.sft.traces import CheckedTrace, require_fit
from magistral.text.tokens import Tokenizer
from magistral.trainer.collate import Item
from magistral.trainer.trainer import Trainer

OnStep = Callable[[StepReport], None]
ASIDE = 0.1
"""Share of the traces that is not learned from but chooses the checkpoint."""


def run_sft(
    recipe: Recipe,
    model: Transformer,
    tokenizer: Tokenizer,
    traces: Sequence[CheckedTrace],
    folder: RunFolder,
    *,
    on_step: OnStep,
) -> None:
    """Begins anew if it was interrupted: it is short, and its only state is the best checkpoint.

    Raises TrainingFailed where the loss is no number."""
    sft = recipe.sft
    if sft is None:
        raise RecipeError("the recipe has no section [sft]")
    require_fit(traces, recipe.model.window)
    folder.forget_after(0)
    n_aside = max(1, round(len(traces) * ASIDE))
    aside, learned = _items(traces[:n_aside]), traces[n_aside:]
    if len(learned) < sft.n_batch:
        raise RecipeError(
            f"sft.n_batch={sft.n_batch} is over the {len(learned)} traces to learn from: lower it or raise sft.n_traces"
        )
    trainer = Trainer(model, sft, seed=recipe.seed)
    per_epoch = len(learned) // sft.n_batch
    best = float("inf")
    for step, batch in enumerate(_batches(learned, sft.n_batch, sft.epochs, recipe.seed), start=1):
        start = time.perf_counter()
        report = trainer.step(_items(batch))
        values = {"loss": report["loss"], "grad_norm": report["grad_norm"], "lr": report["lr"], "n_tokens": report["n_tokens"]}
        if step % (sft.eval_every or per_epoch) == 0 or step == per_epoch * sft.epochs:
            values["held_out_loss"] = held_out = trainer.held_out_loss(aside)
            if held_out < best:
                best = held_out
                _save_best(folder, trainer, tokenizer, step)
        values["seconds"] = time.perf_counter() - start
        folder.add_metrics(step, values)
        on_step(StepReport(step=step, values=values))
    if best == float("inf"):
        raise TrainingFailed("the loss on the traces kept aside was never a number")


def n_steps(recipe: Recipe) -> int:
    sft = recipe.sft
    assert sft is not None
    n_aside = max(1, round(sft.n_traces * ASIDE))
    return (sft.n_traces - n_aside) // sft.n_batch * sft.epochs


def _batches(traces: Sequence[CheckedTrace], n: int, epochs: int, seed: int) -> Iterator[list[CheckedTrace]]:
    """Whole batches; each epoch in an order of its own."""
    for epoch in range(epochs):
        order = list(traces)
        random.Random(f"{seed}/sft/{epoch}").shuffle(order)
        for start in range(0, len(order) - n + 1, n):
            yield order[start : start + n]


def _items(traces: Sequence[CheckedTrace]) -> list[Item]:
    """Every token of the batch counts the same."""
    n_tokens = sum(len(t.tokens) for t in traces)
    return [Item(prompt=t.prompt, tokens=t.tokens, weight=1 / n_tokens) for t in traces]


def _save_best(folder: RunFolder, trainer: Trainer, tokenizer: Tokenizer, step: int) -> None:
    with folder.new_checkpoint(step, sum(p.numel() for p in trainer.model.parameters()) * 4) as partial:
        save_model(partial, trainer.model, tokenizer, trainer.all_weights())
    best = f"step-{step:06d}"
    folder.set_info(best=best)
    for old in folder.checkpoints.glob("step-*"):
        if old.name != best:
            shutil.rmtree(old)
