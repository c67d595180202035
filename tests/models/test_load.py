"""Folders that are whole, and folders that are not: the message names what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from magistral.errors import ModelError
from magistral.models.find import newest_checkpoint
from magistral.models.load import load_model, load_recipe_model, save_model
from magistral.models.sizes import sizes_from_config
from magistral.models.transformer import Transformer
from magistral.recipe import Model, Scratch
from magistral.text.tokens import byte_tokenizer

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tiny: Callable[..., Transformer], tmp_path: Path) -> Path:
    model = tiny(n_words=257)
    save_model(tmp_path, model, byte_tokenizer(), model.named_parameters())
    return tmp_path


def change_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


def test_what_is_saved_comes_back_bit_for_bit(folder: Path, tiny: Callable[..., Transformer]) -> None:
    model, tokenizer = load_model(str(folder))
    want = tiny(n_words=257)
    assert model.sizes == want.sizes
    assert {n: p.tolist() for n, p in model.named_parameters()} == {n: p.tolist() for n, p in want.named_parameters()}
    assert torch.equal(model.rope.frequencies, want.rope.frequencies)
    assert tokenizer.decode(tokenizer.encode("2 + 2 = é")) == "2 + 2 = é"
    assert tokenizer.eos == 256


def test_tied_weights_are_kept_once_in_the_file_and_in_memory(folder: Path) -> None:
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        assert "lm_head.weight" not in set(file.keys())
    model, _ = load_model(str(folder))
    assert model.lm_head.weight is model.embed_tokens.weight


def test_a_copy_of_tied_weights_in_the_file_is_passed_over(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, folder / WEIGHTS)
    model, _ = load_model(str(folder))
    assert model.lm_head.weight is model.embed_tokens.weight


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_an_incomplete_folder_is_an_error_that_names_the_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", WEIGHTS])
def test_a_broken_file_is_an_error_that_names_it(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"{ not what it should be")
    with pytest.raises(ModelError, match=name):
        load_model(str(folder))


def test_shards_are_read_together_and_a_missing_one_is_named(folder: Path) -> None:
    whole, _ = load_model(str(folder))
    tensors = load_file(folder / WEIGHTS)
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, part in shards.items():
        save_file({n: tensors[n] for n in part}, folder / file)
    (folder / WEIGHTS).unlink()
    index = {"weight_map": {n: file for file, part in shards.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    model, _ = load_model(str(folder))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors"):
        load_model(str(folder))


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"weight_map": 3}'])
def test_an_index_that_cannot_be_read_is_named(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ModelError, match=r"model\.safetensors\.index\.json is no index"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "'gpt2'.*llama, mistral, qwen2, qwen3"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope scaling.*yarn"),
        ({"model_type": "mistral", "sliding_window": 16}, "sliding-window"),
        ({"intermediate_size": "absent"}, "config.json has no 'intermediate_size'"),
        ({"hidden_size": 64}, r"embed_tokens.weight has shape \(257, 32\), config.json says \(257, 64\)"),
        ({"num_hidden_layers": 3}, "lacks 9 tensors, as layers.2"),
        ({"num_hidden_layers": 1}, "'layers.1.*' that a llama model has not"),
    ],
    ids=["family", "rope scaling", "sliding window", "a key left out", "wrong shape", "too few layers", "too many layers"],
)
def test_a_config_that_is_not_covered_or_not_true_is_an_error(folder: Path, changes: dict[str, object], message: str) -> None:
    change_config(folder, **changes)
    with pytest.raises(ModelError, match=message):
        load_model(str(folder))


@pytest.mark.parametrize("name", ["no/such/folder", "no/such/file.gguf"])
def test_a_name_of_nothing_is_an_error_that_repeats_it(name: str) -> None:
    with pytest.raises(ModelError, match=name):
        load_model(name)


def test_a_head_s_size_not_named_is_the_model_s_divided_by_the_heads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["head_dim"], config["num_key_value_heads"]
    sizes = sizes_from_config(config)
    assert (sizes.head_dim, sizes.n_kv_heads) == (8, 4)


def test_a_recipe_s_new_model_has_the_recipe_s_sizes_and_depends_on_the_seed() -> None:
    recipe = Model(base="scratch", window=40, scratch=Scratch(dim=32, n_layers=1, n_heads=4, n_kv_heads=2, hidden_dim=48))
    (one, tokenizer), (two, _), (other, _) = (load_recipe_model(recipe, seed) for seed in (0, 0, 1))
    assert (one.sizes.n_words, one.sizes.window, one.sizes.head_dim) == (257, 40, 8) == (tokenizer.n_words, 40, 8)
    assert torch.equal(one.embed_tokens.weight, two.embed_tokens.weight)
    assert not torch.equal(one.embed_tokens.weight, other.embed_tokens.weight)


def test_a_run_s_model_is_its_best_checkpoint_else_its_newest(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ModelError, match="without a checkpoint"):
        newest_checkpoint(tmp_path)
    for name in ("step-000009", "step-000010"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    newest = newest_checkpoint(tmp_path)
    (tmp_path / "run.json").write_text('{"best": "step-000009"}')
    best = newest_checkpoint(tmp_path)
    assert (newest and newest.name, best and best.name) == ("step-000010", "step-000009")
