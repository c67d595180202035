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
from magistral.models.sizes import Sizes
from magistral.recipe_train import Training
from magistral.text.tokens import Tokenizer
from magistral.trainer.trainer import Trainer


def checkpoints(run: RunFolder) -> list[Path]:
    """Oldest first."""
    return sorted(run.checkpoints.glob("step-*"))


def checkpoint_bytes(sizes: Sizes, training: Training) -> int:
    """The model, and what is trained with the optimizer's two moments, all in float32."""
    return 4 * sizes.n_parameters + 12 * sizes.n_trained(training.lora)


def save_trainer(folder: Path, trainer: Trainer, tokenizer: Tokenizer) -> None:
    """The model in Hugging Face format, by the first rank, and this rank's part of the trainer's state."""
    weights = trainer.all_weights()
    if trainer.ranks.rank == 0:
        save_model(folder, trainer.model, tokenizer, weights)
    else:
        list(weights)  # nothing, but all ranks gather
    trainer.save(folder)


def save_checkpoint(run: RunFolder, trainer: Trainer, tokenizer: Tokenizer, state: Mapping[str, Any]) -> None:
    """`state`: its `step`, and what else the caller needs to go on, as JSON. Raises DiscFull before anything is written."""
    with run.new_checkpoint(state["step"], checkpoint_bytes(trainer.model.sizes, trainer.training)) as partial:
        save_trainer(partial, trainer, tokenizer)
        write_atomically(partial / "state.json", json.dumps(state) + "\n")


def restore_newest(run: RunFolder, trainer: Trainer) -> dict[str, Any] | None:
    """Its state; None where there is no checkpoint. Metrics and traces of later steps are forgotten.

    Raises RunFolderError where it cannot be read or is of another recipe, DiscFull where the next one would not fit."""
    require_space(run.path, checkpoint_bytes(trainer.model.sizes, trainer.training))
    found = checkpoints(run)
    if not found:
        run.forget_after(0)
        return None
    state = _read_state(found[-1] / "state.json")
    trainer.restore(found[-1])
    run.forget_after(state["step"])
    return state


def _read_state(file: Path) -> dict[str, Any]:
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        if type(state["step"]) is not int:
            raise ValueError("its step is no whole number")
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise RunFolderError(f"{file} cannot be read ({e!r}): remove its folder to go on from the checkpoint before") from None
    return dict(state)


def keep_only(run: RunFolder, names: Collection[str]) -> None:
    """Each of the others loses its name first: a kill leaves no half of a checkpoint to be gone on from."""
    removed = run.checkpoints / ".removed"
    for old in checkpoints(run):
        if old.name not in names:
            shutil.rmtree(removed, ignore_errors=True)
            old.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
