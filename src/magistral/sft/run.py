"""`magistral sft`: traces become supervised steps; the checkpoint with the lowest loss on traces kept aside is the result."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from magistral.errors import RecipeError, TrainingFailed
from magistral.flow import StepReport
from magistral.log import RunFolder
from magistral.models.transformer import Transformer
from magistral.recipe import Recipe
from magistral.sft.traces import CheckedTrace, require_fit
from magistral.text.tokens import Tokenizer
from magistral.trainer.checkpoint import keep_only, restore_newest, save_checkpoint
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
    """Goes on from the folder's newest checkpoint if it has one. Raises TrainingFailed where the loss is no number."""
    sft = recipe.sft
    if sft is None:
        raise RecipeError("the recipe has no section [sft]")
    require_fit(traces, recipe.model.window)
    n_aside = max(1, round(len(traces) * ASIDE))
    aside, learned = _items(traces[:n_aside]), traces[n_aside:]
    if len(learned) < sft.n_batch:
        raise RecipeError(
            f"sft.n_batch={sft.n_batch} is over the {len(learned)} traces to learn from: lower it or raise sft.n_traces"
        )
    trainer = Trainer(model, sft, seed=recipe.seed)
    state = restore_newest(folder, trainer) or {"step": 0, "best": "", "best_loss": math.inf}
    per_epoch = len(learned) // sft.n_batch
    last = per_epoch * sft.epochs
    batches = enumerate(_batches(learned, sft.n_batch, sft.epochs, recipe.seed), start=1)
    for step, batch in islice(batches, state["step"], None):
        start = time.perf_counter()
        report = trainer.step(_items(batch))
        values = {name: report[name] for name in ("loss", "grad_norm", "lr", "n_tokens")}
        looks = step % (sft.eval_every or per_epoch) == 0 or step == last
        if looks:
            values["held_out_loss"] = trainer.held_out_loss(aside)
        values["seconds"] = time.perf_counter() - start
        folder.add_metrics(step, values)
        if looks:
            state = _save(folder, trainer, tokenizer, state, step=step, held_out=values["held_out_loss"])
        on_step(StepReport(step=step, values=values))
    folder.set_info(best=state["best"])
    keep_only(folder, [state["best"]])


def _save(
    folder: RunFolder, trainer: Trainer, tokenizer: Tokenizer, before: Mapping[str, Any], *, step: int, held_out: float
) -> dict[str, Any]:
    """A checkpoint of this step, which is the best where its loss is the lowest; the best and the newest are kept."""
    if not math.isfinite(held_out):
        raise TrainingFailed(f"step {step}: the loss on the traces kept aside is {held_out}")
    state, name = {**before, "step": step}, f"step-{step:06d}"
    if held_out < before["best_loss"]:
        state |= {"best": name, "best_loss": held_out}
    save_checkpoint(folder, trainer, tokenizer, state)
    keep_only(folder, [name, state["best"]])
    return state


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
