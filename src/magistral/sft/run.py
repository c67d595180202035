"""`magistral sft`: traces become supervised steps; the best checkpoint is the result.

Every so many steps there is a look: at the loss on traces kept aside and, where the recipe says so, at how many problems are
solved. The checkpoint that solves the most is the best, of equals the one with the lowest loss."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

from torch import Tensor

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
"""Share of the traces that is not learned from but looked at."""


class Solved(Protocol):
    def __call__(self, weights: Mapping[str, Tensor], step: int) -> float:
        """The share of problems that are solved by the model with these weights in the place of those it began with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """Whom a run tells of its steps, and whom it asks."""

    on_step: OnStep
    solved: Solved | None = None
    """None: the loss alone chooses."""


def run_sft(
    recipe: Recipe,
    model: Transformer,
    tokenizer: Tokenizer,
    traces: Sequence[CheckedTrace],
    folder: RunFolder,
    outside: Outside,
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
    state = restore_newest(folder, trainer) or {"step": 0, "best": "", "rank": [math.inf], "n_worse": 0}
    per_epoch = len(learned) // sft.n_batch
    last = per_epoch * sft.epochs
    batches = enumerate(_batches(learned, sft.n_batch, sft.epochs, recipe.seed), start=1)
    for step, batch in islice(batches, state["step"], None):
        if sft.patience and state["n_worse"] >= sft.patience:
            break
        start = time.perf_counter()
        report = trainer.step(_items(batch))
        values = {name: report[name] for name in ("loss", "grad_norm", "lr", "n_tokens")}
        looks = step % (sft.eval_every or per_epoch) == 0 or step == last
        if looks:
            values |= _look(trainer, aside, outside.solved, step)
        values["seconds"] = time.perf_counter() - start
        folder.add_metrics(step, values)
        if looks:
            state = _save(folder, trainer, tokenizer, state, step=step, values=values)
        outside.on_step(StepReport(step=step, values=values))
    folder.set_info(best=state["best"])
    keep_only(folder, [state["best"]])


def _look(trainer: Trainer, aside: Sequence[Item], solved: Solved | None, step: int) -> dict[str, float]:
    loss = trainer.held_out_loss(aside)
    if not math.isfinite(loss):
        raise TrainingFailed(f"step {step}: the loss on the traces kept aside is {loss}")
    found = {"held_out_loss": loss}
    return found if solved is None else {**found, "solved": solved(trainer.changed_weights(), step)}


def _save(
    folder: RunFolder,
    trainer: Trainer,
    tokenizer: Tokenizer,
    before: Mapping[str, Any],
    *,
    step: int,
    values: Mapping[str, float],
) -> dict[str, Any]:
    """A checkpoint of this step, which is the best where its rank is the lowest; the best and the newest are kept."""
    name, rank = f"step-{step:06d}", [-values.get("solved", 0.0), values["held_out_loss"]]
    state = {**before, "step": step, "n_worse": before["n_worse"] + 1}
    if rank < before["rank"]:
        state |= {"best": name, "rank": rank, "n_worse": 0}
    save_checkpoint(folder, trainer, tokenizer, state)
    keep_only(folder, [name, state["best"]])
    return state


def n_steps(recipe: Recipe, n_traces: int) -> int:
    sft = recipe.sft
    assert sft is not None
    n_aside = max(1, round(n_traces * ASIDE))
    return (n_traces - n_aside) // sft.n_batch * sft.epochs


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
