"""Hugging Face folders: config.json and (sharded) safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magistral.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.exists():
        raise ModelError(f"{folder} has no config.json: name a complete model folder in Hugging Face format")
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as e:
        raise ModelError(f"{file}: {e}") from None
    return config


def weight_files(folder: Path) -> list[Path]:
    """Raises ModelError naming the missing ones."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise ModelError(f"{index} is no index of tensors: {e}") from None
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    missing = [f.name for f in files if not f.exists()]
    if missing:
        raise ModelError(f"{folder} lacks {', '.join(missing)}: the model folder is incomplete")
    return files


def read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Names without the leading `model.`; memory-mapped, one at a time."""
    from safetensors import SafetensorError, safe_open

    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a mapping
                    yield name.removeprefix("model."), tensors.get_tensor(name)
        except SafetensorError as e:
            raise ModelError(f"{file}: {e}") from None


def write_model(folder: Path, config: dict[str, Any], weights: Mapping[str, Tensor]) -> None:
    """config.json and model.safetensors; the caller makes the folder whole under its final name."""
    from safetensors.torch import save_file

    named = {name if name.startswith("lm_head") else f"model.{name}": t.detach().contiguous() for name, t in weights.items()}
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
