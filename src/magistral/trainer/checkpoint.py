"""A trainer's checkpoint: step-000010/ holds the model in Hugging Face format, the trainer's state and state.json.

Whole under its name or absent. A run goes on from its newest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from magistral.errors import RunFolderError
from magistral.log import RunFolder, require_space, write_atomically
from magistral.models.load import save_model
from magistral.text.tokens import Tokenizer
from magistral.trainer.trainer import Trainer


def checkpoints(run: RunFolder) -> list[Path]:
    """Oldest first."""
    return sorted(run.checkpoints.glob("step-*"))


def n_bytes(trainer: Trainer) -> int:
    """Of a checkpoint: the model, and what is trained with the optimizer's two moments, all in float32."""
    return sum(p.numel() for p in trainer.model.parameters()) * 4 + sum(p.numel() for p in trainer.trained.values()) * 12


def save_checkpoint(run: RunFolder, trainer: Trainer, tokenizer: Tokenizer, state: Mapping[str, Any]) -> None:
    """`state`: its `step`, and what else the caller needs to go on, as JSON. Raises DiscFull before anything is written."""
    with run.new_checkpoint(state["step"], n_bytes(trainer)) as partial:
        save_model(partial, trainer.model, tokenizer, trainer.all_weights())
        trainer.save(partial)
        write_atomically(partial / "state.json", json.dumps(state) + "\n")


def restore_newest(run: RunFolder, trainer: Trainer) -> dict[str, Any] | None:
    """Its state; None where there is no checkpoint. Metrics and traces of later steps are forgotten.

    Raises RunFolderError where it cannot be read or is of another recipe, DiscFull where the next one would not fit."""
    require_space(run.path, n_bytes(trainer))
    found = checkpoints(run)
    if not found:
        run.forget_after(0)
        return None
    try:
        state: dict[str, Any] = json.loads((found[-1] / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise RunFolderError(f"{found[-1]}/state.json cannot be read: {e}") from None
    trainer.restore(found[-1])
    run.forget_after(state["step"])
    return state


def keep_only(run: RunFolder, names: Collection[str]) -> None:
    for old in checkpoints(run):
        if old.name not in names:
            shutil.rmtree(old)
