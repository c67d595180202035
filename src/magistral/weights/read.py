"""A model folder or file of any format as tensors under our names, with its settings; nothing is loaded yet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from magistral.errors import ModelError
from magistral.weights.gguf import GgufFile
from magistral.weights.names import Format, is_left_out, our_name
from magistral.weights.safetensors import read_header
from magistral.weights.stored import Stored

_FORM = {"hf": ("config.json", "model"), "mistral": ("params.json", "consolidated")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    path: Path
    form: Format
    config: dict[str, Any]
    """config.json, params.json, or a GGUF file's fields."""
    tensors: Mapping[str, Stored]
    left_out: tuple[str, ...] = ()
    """Tensors of parts that the text model does not have, as its eyes."""


def form_of(path: Path) -> Format:
    """Raises ModelError where nothing is there. A folder that holds both forms is read as Hugging Face's, unless
    the weights are there in Mistral's form alone."""
    if path.suffix == ".gguf":
        if not path.is_file():
            raise ModelError(f"no model file at {path}")
        return "gguf"
    if not path.is_dir():
        raise ModelError(f"no model at {path}: name a folder in Hugging Face or Mistral format, or a .gguf file")
    native = (path / "params.json").exists()
    if (path / "config.json").exists():
        only_native = native and any(path.glob("consolidated*.safetensors")) and not any(path.glob("model*.safetensors*"))
        return "mistral" if only_native else "hf"
    if native:
        return "mistral"
    raise ModelError(f"{path} has no config.json and no params.json: name a complete model folder")


def read_config(path: Path) -> dict[str, Any]:
    """A folder's config.json or params.json."""
    file = path / _FORM[form_of(path)][0]
    config = read_json(file)
    if not isinstance(config, dict):
        raise ModelError(f"{file} holds no object of settings")
    return config


def read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise ModelError(f"{file} cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise ModelError(f"{file} is no JSON: {e}") from None


def open_weights(path: Path) -> Weights:
    """Raises ModelError naming what is missing, broken or not covered; reads headers only."""
    form = form_of(path)
    if form == "gguf":
        file = GgufFile(path)
        return Weights(path=path, form=form, config=file.fields, tensors=file.tensors)
    config = read_config(path)
    tensors: dict[str, Stored] = {}
    left_out: list[str] = []
    for shard in weight_files(path, _FORM[form][1]):
        for name, tensor in read_header(shard).items():
            if is_left_out(name):
                left_out.append(name)
                continue
            ours = our_name(name, form)
            if ours is None:
                raise ModelError(f"{shard}: a tensor {name!r} that the dense family does not have")
            if ours in tensors:
                raise ModelError(f"{shard}: {name!r} is in {tensors[ours].file} too")
            tensors[ours] = replace(tensor, name=ours, n_heads=_paired_heads(ours, tensor, config) if form == "mistral" else 0)
    return Weights(path=path, form=form, config=config, tensors=tensors, left_out=tuple(left_out))


def weight_files(folder: Path, stem: str) -> list[Path]:
    """All shards, by the index where there is one. Raises ModelError naming the missing ones."""
    index = folder / f"{stem}.safetensors.index.json"
    if index.exists():
        try:
            names = sorted({str(name) for name in read_json(index)["weight_map"].values()})
        except (KeyError, TypeError, AttributeError) as e:
            raise ModelError(f"{index} is no index of tensors: {e}") from None
        except ModelError as e:
            raise ModelError(f"{index} is no index of tensors: {e}") from None
        if any(Path(name).name != name for name in names):
            raise ModelError(f"{index} names a file outside its folder")
        files = [folder / name for name in names]
    else:
        files = sorted(folder.glob(f"{stem}*.safetensors")) if stem == "consolidated" else []
        files = files or [folder / f"{stem}.safetensors"]
    missing = [f.name for f in files if not f.exists()]
    if missing:
        raise ModelError(f"{folder} lacks {', '.join(missing)}: the model folder is incomplete")
    return files


def _paired_heads(name: str, tensor: Stored, params: Mapping[str, Any]) -> int:
    if ".self_attn.q_proj." not in name and ".self_attn.k_proj." not in name:
        return 0
    key = "n_kv_heads" if ".k_proj." in name else "n_heads"
    heads = params.get(key, params.get("n_heads"))
    if type(heads) is not int or heads < 1 or tensor.shape[0] % (2 * heads):
        raise ModelError(f"params.json: {key}={heads!r} does not fit the {tensor.shape[0]} rows of {name}")
    return heads
