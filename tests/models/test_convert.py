"""Models from format to format: bit for bit where the type allows, and whatever cannot be whole is refused before it is begun."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file, save_file
from tests import tekken

from magistral.errors import DiscFull, ModelError, RunFailed, UserError
from magistral.models.convert import convert, keep_prompt, plan_conversion, quantise_with_llama_cpp
from magistral.models.load import load_model, save_model
from magistral.models.transformer import Masked, Transformer
from magistral.text.tokens import byte_tokenizer
from magistral.text.trace import THINK_TOKENS
from magistral.weights.names import Format, their_name
from magistral.weights.read import form_of, open_weights

Tiny = Callable[..., Transformer]
FAMILIES: dict[str, dict[str, Any]] = {
    "llama, tied": {},
    "llama, untied": {"tied": False},
    "llama, biases": {"attention_bias": True, "tied": False},
    "mistral, heads wider than the model": {"family": "mistral", "head_dim": 16, "tied": False},
    "qwen2": {"family": "qwen2", "attention_bias": True},
    "qwen3": {"family": "qwen3", "qk_norm": True, "tied": False},
}
TORCH = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def save_hf(folder: Path, model: Transformer, kind: str = "F32") -> Path:
    folder.mkdir(exist_ok=True)
    save_model(folder, model, byte_tokenizer(), [(n, p.to(TORCH[kind])) for n, p in model.named_parameters()])
    return folder


def save_mistral(folder: Path, model: Transformer, **params: Any) -> Path:
    """As Mistral publishes: its names, queries and keys in rotated pairs (written out row by row), bf16."""
    folder.mkdir(exist_ok=True)
    s = model.sizes
    tensors = {}
    for name, weight in model.named_parameters():
        heads = s.n_heads if ".q_proj." in name else s.n_kv_heads if ".k_proj." in name else 0
        if heads:
            half = s.head_dim // 2
            order = [h * s.head_dim + i // 2 + (i % 2) * half for h in range(heads) for i in range(s.head_dim)]
        else:
            order = list(range(len(weight)))
        tensors[their_name(name, "mistral")] = weight.detach()[order].bfloat16().contiguous()
    save_file(tensors, folder / "consolidated.safetensors")
    settings = {
        "dim": s.dim, "n_layers": s.n_layers, "head_dim": s.head_dim, "hidden_dim": s.hidden_dim, "n_heads": s.n_heads,
        "n_kv_heads": s.n_kv_heads, "rope_theta": s.rope_theta, "norm_eps": s.norm_eps, "vocab_size": s.n_words,
    }  # fmt: skip
    (folder / "params.json").write_text(json.dumps(settings | params))
    return folder


def made(source: Path, out: Path, *, form: Format | None = None, kind: str = "") -> Path:
    convert(plan_conversion(source, out, form=form, kind=kind), out, lambda _n: None)
    return out


def bits(path: Path) -> dict[str, tuple[str, bytes]]:
    """Type and bytes of each tensor, in our order."""
    weights = open_weights(path)
    return {name: (t.kind, b"".join(c.tobytes() for c in t.chunks())) for name, t in weights.tensors.items()}


def values(path: Path) -> dict[str, np.ndarray]:
    return {name: t.floats() for name, t in open_weights(path).tensors.items()}


def equal(one: Path, other: Path) -> bool:
    a, b = values(one), values(other)
    return a.keys() == b.keys() and all((a[n] == b[n]).all() for n in a)


def logits(model: Transformer, tokens: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.lm_head(model(tokens, torch.arange(tokens.shape[1])[None].expand(tokens.shape), Masked()))
    return out


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)
def test_through_gguf_and_back_every_number_is_the_same(changes: dict[str, Any], kind: str, tiny: Tiny, tmp_path: Path) -> None:
    hf = save_hf(tmp_path / "hf", tiny(n_words=257, **changes), kind)
    gguf = made(hf, tmp_path / "m.gguf")
    back = made(gguf, tmp_path / "back", kind=kind)
    assert bits(back) == bits(hf)
    matrices = {n: b for n, b in bits(gguf).items() if "norm" not in n and "bias" not in n}
    assert matrices == {n: b for n, b in bits(hf).items() if n in matrices}, "matrices keep their type in GGUF too"
    again = made(back, tmp_path / "again.gguf")
    assert bits(again) == bits(gguf)
    assert load_model(str(back))[0].sizes == load_model(str(gguf))[0].sizes


@pytest.mark.parametrize("tied", [True, False])
def test_through_mistral_s_format_and_back_every_bit_is_the_same(tied: bool, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(n_words=301, family="mistral", head_dim=16, tied=tied)
    native = save_mistral(tmp_path / "native", model, tied_embeddings=tied, max_position_embeddings=128)
    tekken.write_small(native)
    (native / "SYSTEM_PROMPT.txt").write_text("Think.")
    hf = made(native, tmp_path / "hf")
    back = made(hf, tmp_path / "back", form="mistral")
    assert bits(back) == bits(native)
    for name in ("tekken.json", "SYSTEM_PROMPT.txt"):
        assert (back / name).read_bytes() == (native / name).read_bytes()
    assert load_file(back / "consolidated.safetensors").keys() == load_file(native / "consolidated.safetensors").keys()
    config = json.loads((hf / "config.json").read_text())
    assert (config["torch_dtype"], config["model_type"], config["eos_token_id"]) == ("bfloat16", "mistral", 2)


def test_through_gguf_and_back_the_layout_the_marks_and_the_prompt_stay(tiny: Tiny, tmp_path: Path) -> None:
    native = save_mistral(tmp_path / "native", tiny(n_words=296, family="mistral", tied=False))
    tekken.write_small(native, words=())
    (native / "SYSTEM_PROMPT.txt").write_text("Think.")
    (tmp_path / "files").mkdir()
    gguf = tmp_path / "files" / "m.gguf"
    plan = plan_conversion(native, gguf)
    convert(plan, gguf, lambda _n: None)
    assert "SYSTEM_PROMPT.txt: the model's own" in keep_prompt(plan, gguf)
    back = made(gguf, tmp_path / "back")
    for path in (gguf, made(gguf, tmp_path / "files" / "again.gguf"), back):
        tokenizer = load_model(str(path))[1]
        assert (tokenizer.layout, tokenizer.marks) == ("v13", THINK_TOKENS)
    assert (back / "SYSTEM_PROMPT.txt").read_text() == "Think."


def test_another_model_s_prompt_is_not_written_over(tiny: Tiny, tmp_path: Path) -> None:
    hf = save_hf(tmp_path / "hf", tiny(n_words=257))
    plan = plan_conversion(hf, tmp_path / "m.gguf")
    assert keep_prompt(plan, tmp_path / "m.gguf") == "", "it has none"
    (hf / "SYSTEM_PROMPT.txt").write_text("Think.")
    (tmp_path / "SYSTEM_PROMPT.txt").write_text("Another's.")
    assert "left out: SYSTEM_PROMPT.txt" in keep_prompt(plan, tmp_path / "m.gguf")
    assert (tmp_path / "SYSTEM_PROMPT.txt").read_text() == "Another's."


def test_a_gguf_file_s_quantised_numbers_are_kept_bit_for_bit(tiny: Tiny, tmp_path: Path) -> None:
    hf = save_hf(tmp_path / "hf", tiny(n_words=257))
    one = made(hf, tmp_path / "one.gguf", kind="Q4_0")
    two = made(one, tmp_path / "two.gguf")
    assert bits(one) == bits(two)
    kinds = {name: kind for name, (kind, _) in bits(one).items()}
    assert kinds["layers.0.self_attn.q_proj.weight"] == "Q4_0"
    assert kinds["embed_tokens.weight"] == "Q8_0", "the embedding bears 4 bits badly"
    assert kinds["norm.weight"] == "F32"
    assert kinds["layers.0.mlp.down_proj.weight"] == "F32", "rows of 48 do not divide into blocks of 32"
    plain = made(one, tmp_path / "plain")
    assert equal(plain, one), "in a folder they come as float32, which has every value"


def test_what_does_not_divide_is_named(tiny: Tiny, tmp_path: Path) -> None:
    hf = save_hf(tmp_path / "hf", tiny(n_words=257))
    plan = plan_conversion(hf, tmp_path / "m.gguf", kind="Q8_0")
    assert plan.kept_plain == ("layers.0.mlp.down_proj.weight", "layers.1.mlp.down_proj.weight")


def test_a_model_like_magistral_small_in_mistral_s_format_has_the_reference_s_logits(tiny: Tiny, tmp_path: Path) -> None:
    """Heads times head size is not the width, 4 heads a key head, the real vocabulary, theta 1e9; all numbers are bf16's."""
    transformers = pytest.importorskip("transformers")
    shape = {"dim": 80, "n_layers": 2, "n_heads": 8, "n_kv_heads": 2, "head_dim": 8, "hidden_dim": 96}
    model = tiny(n_words=131_072, family="mistral", tied=False, rope_theta=1e9, **shape)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float())
    native = save_mistral(tmp_path / "native", model)
    tekken.write_real(native, "v13")
    ours, tokenizer = load_model(str(native))
    assert (ours.sizes.window, tokenizer.n_words) == (131_072, 131_072)
    config = transformers.MistralConfig(
        vocab_size=131_072, hidden_size=80, intermediate_size=96, num_hidden_layers=2, num_attention_heads=8,
        num_key_value_heads=2, head_dim=8, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 1e9},
        sliding_window=None, tie_word_embeddings=False, max_position_embeddings=131_072,
    )  # fmt: skip
    theirs = transformers.MistralForCausalLM(config).eval().float()
    theirs.load_state_dict({their_name(n, "hf"): p for n, p in model.named_parameters()})
    tokens = torch.tensor([tokenizer.encode("The sum of 2 and 3 is 5, as anyone may check.")])
    with torch.no_grad():
        expected = theirs(tokens).logits
    assert expected.std() > 0.1
    assert (logits(ours, tokens) - expected).abs().max() <= 1e-4


def test_the_eyes_of_a_model_are_left_out_and_named(tiny: Tiny, tmp_path: Path) -> None:
    native = save_mistral(
        tmp_path / "native", tiny(n_words=301, family="mistral", tied=False), vision_encoder={"image_size": 1540}
    )
    tekken.write_small(native)
    tensors = load_file(native / "consolidated.safetensors")
    save_file({**tensors, "vision_encoder.ln_pre.weight": torch.ones(4)}, native / "consolidated.safetensors")
    plan = plan_conversion(native, tmp_path / "out")
    assert plan.weights.left_out == ("vision_encoder.ln_pre.weight",)
    assert equal(made(native, tmp_path / "out"), native)


def test_the_text_part_of_a_model_that_sees_is_read_from_hugging_face_s_form(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(n_words=257, family="mistral", tied=False)
    hf = save_hf(tmp_path / "hf", model)
    tensors = {
        n.replace("model.", "language_model.model.").replace("lm_head", "language_model.lm_head"): t
        for n, t in load_file(hf / "model.safetensors").items()
    }
    save_file({**tensors, "vision_tower.ln_pre.weight": torch.ones(4)}, hf / "model.safetensors")
    config = json.loads((hf / "config.json").read_text())
    (hf / "config.json").write_text(json.dumps({"model_type": "mistral3", "text_config": config, "vision_config": {}}))
    loaded, _ = load_model(str(hf))
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_a_large_model_is_written_in_shards_with_their_index(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral.models.convert.SHARD_BYTES", 20_000)
    hf = save_hf(tmp_path / "hf", tiny(n_words=257))
    out = made(hf, tmp_path / "out")
    assert len(list(out.glob("model-*.safetensors"))) > 2
    assert bits(out) == bits(hf)
    next(out.glob("model-00002-*")).unlink()
    with pytest.raises(ModelError, match="lacks model-00002-of-"):
        open_weights(out)


@pytest.mark.parametrize(
    ("out", "form", "kind", "says"),
    [
        ("m.gguf", "hf", "", "a name that ends in .gguf"),
        ("m", "gguf", "", "a name that ends in .gguf"),
        ("m", None, "Q8_0", "Q8_0 cannot be written as hf; what can: F32, F16, BF16"),
        ("m.gguf", None, "Q4_K", "Q4_K cannot be written as gguf"),
        ("m", "mistral", "", "needs the model's tekken.json"),
    ],
    ids=[
        "a folder named as a file",
        "a file named as a folder",
        "a folder of 8-bit blocks",
        "a type we do not make",
        "no tekken.json",
    ],
)
def test_what_cannot_come_out_whole_is_refused(
    out: str, form: Format | None, kind: str, says: str, tiny: Tiny, tmp_path: Path
) -> None:
    hf = save_hf(tmp_path / "hf", tiny(n_words=257))
    with pytest.raises(UserError, match=says):
        plan_conversion(hf, tmp_path / out, form=form, kind=kind)
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_biases_have_no_place_in_mistral_s_format(tiny: Tiny, tmp_path: Path) -> None:
    hf = save_hf(tmp_path / "hf", tiny(n_words=301, family="qwen2", attention_bias=True))
    tekken.write_small(hf)
    with pytest.raises(ModelError, match="no biases"):
        plan_conversion(hf, tmp_path / "out", form="mistral")


@pytest.mark.parametrize("n_words", [256, 257 + 1025], ids=["more words than rows", "far more rows than words"])
def test_a_tokenizer_of_another_model_is_an_error(n_words: int, tiny: Tiny, tmp_path: Path) -> None:
    hf = save_hf(tmp_path / "hf", tiny(n_words=n_words))
    with pytest.raises(ModelError, match=f"a tokenizer of 257 words does not fit an embedding of {n_words}"):
        load_model(str(hf))


def test_rows_that_pad_the_embedding_are_words_that_no_text_becomes(tiny: Tiny, tmp_path: Path) -> None:
    hf = save_hf(tmp_path / "hf", tiny(n_words=300))
    model, tokenizer = load_model(str(made(hf, tmp_path / "m.gguf")))
    assert (model.sizes.n_words, tokenizer.n_words) == (300, 300)
    assert tokenizer.encode("[PAD258]") == byte_tokenizer().encode("[PAD258]")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_an_error(bad: float, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(n_words=257)
    with torch.no_grad():
        model.norm.weight[3] = bad
    hf = save_hf(tmp_path / "hf", model)
    with pytest.raises(ModelError, match=r"norm\.weight holds numbers that are not finite"):
        load_model(str(hf))


@pytest.mark.parametrize("kind", ["", "F16", "Q8_0"])
@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_weights_that_are_no_numbers_are_not_written(bad: float, kind: str, tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(n_words=257)
    with torch.no_grad():
        dict(model.named_parameters())["layers.1.mlp.up_proj.weight"][3, 5] = bad
    hf = save_hf(tmp_path / "hf", model)
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight holds numbers that are not finite"):
        made(hf, tmp_path / "m.gguf", kind=kind)
    assert not (tmp_path / "m.gguf").exists()


def test_a_number_too_large_for_the_new_type_is_not_written(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(n_words=257)
    with torch.no_grad():
        dict(model.named_parameters())["layers.1.mlp.up_proj.weight"][3, 5] = 1e9
    hf = save_hf(tmp_path / "hf", model)
    with pytest.raises(ModelError, match=r"up_proj\.weight holds numbers that are too large for Q8_0"):
        made(hf, tmp_path / "m.gguf", kind="Q8_0")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"dim": "wide"}, "dim cannot be 'wide'"),
        ({"dim": [32]}, "its sizes cannot be read|dim cannot be"),
        ({"n_layers": -1}, "n_layers cannot be -1"),
        ({"n_layers": 10**6}, "n_layers cannot be 1000000"),
        ({"n_heads": 3}, "n_heads=3 does not fit the 32 rows"),
        ({"n_heads": 0}, "n_heads=0 does not fit"),
        ({"norm_eps": None}, "norm_eps cannot be None"),
        ({"moe": {"num_experts": 8}}, "moe is not covered"),
        ({"sliding_window": 4096}, "sliding-window"),
        ({"yarn": {"factor": 4}}, "yarn is not covered"),
        ({"hidden_dim": 64}, r"gate_proj.weight has shape \(48, 32\), params.json says \(64, 32\)"),
    ],
)  # fmt: skip
def test_settings_that_are_not_true_or_not_covered_are_an_error(
    changes: dict[str, Any], says: str, tiny: Tiny, tmp_path: Path
) -> None:
    native = save_mistral(tmp_path / "native", tiny(n_words=301, family="mistral", tied=False), **changes)
    tekken.write_small(native)
    with pytest.raises(ModelError, match=says):
        load_model(str(native))


def test_a_conversion_cut_short_goes_on(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral.weights.write.SYNC_BYTES", 1)
    hf = save_hf(tmp_path / "hf", tiny(n_words=257))
    told: list[int] = []

    def interrupt(n: int) -> None:
        told.append(n)
        if len(told) == 7:
            raise KeyboardInterrupt

    plan = plan_conversion(hf, tmp_path / "m.gguf", kind="Q8_0")
    with pytest.raises(KeyboardInterrupt):
        convert(plan, tmp_path / "m.gguf", interrupt)
    assert not (tmp_path / "m.gguf").exists()
    convert(plan, tmp_path / "m.gguf", told.append)
    whole = made(hf, tmp_path / "whole.gguf", kind="Q8_0")
    assert (tmp_path / "m.gguf").read_bytes() == whole.read_bytes()


def test_what_is_written_already_needs_no_more_room(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral.weights.write.SYNC_BYTES", 1)
    hf = save_hf(tmp_path / "hf", tiny(n_words=1281))
    plan, told = plan_conversion(hf, tmp_path / "m.gguf"), list[int]()

    def interrupt(n: int) -> None:
        told.append(n)
        if len(told) == 2:  # the embedding, 1281 * 32 * 4 bytes, is on the disc
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(plan, tmp_path / "m.gguf", interrupt)
    left = plan.n_bytes - 1281 * 32 * 4
    monkeypatch.setattr("magistral.log.shutil.disk_usage", lambda _path: SimpleNamespace(free=left))
    with pytest.raises(DiscFull):
        convert(plan, tmp_path / "other.gguf", told.append)
    convert(plan, tmp_path / "m.gguf", told.append)
    assert (tmp_path / "m.gguf").exists()


def fake_llama_quantize(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "llama-quantize"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


def test_k_quants_are_made_by_llama_cpp_s_own_program(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = made(save_hf(tmp_path / "hf", tiny(n_words=257)), tmp_path / "plain.gguf")
    fake_llama_quantize(tmp_path, monkeypatch, 'test "$3" = 15 && cp "$1" "$2"')
    quantise_with_llama_cpp(plain, tmp_path / "m.gguf", "Q4_K_M")
    assert (tmp_path / "m.gguf").read_bytes() == plain.read_bytes()
    fake_llama_quantize(tmp_path, monkeypatch, "echo no such model >&2; exit 3")
    with pytest.raises(RunFailed, match="quantiser left with 3: no such model"):
        quantise_with_llama_cpp(plain, tmp_path / "n.gguf", "Q4_K_M")
    assert not (tmp_path / "n.gguf").exists()


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="needs llama-cpp-python: scripts/install llamacpp")
@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        ("Q2_K", {"Q2_K", "Q3_K", "Q6_K"}),
        ("Q3_K_M", {"Q3_K", "Q4_K", "Q5_K", "Q6_K"}),
        ("Q4_K_M", {"Q4_K", "Q6_K"}),
        ("Q5_K_M", {"Q5_K", "Q6_K"}),
        ("Q6_K", {"Q6_K"}),
    ],
)
def test_k_quants_of_llama_cpp_are_read_as_gguf_reads_them(kind: str, inside: set[str], tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(n_words=257, dim=256, n_heads=4, n_kv_heads=4, head_dim=64, hidden_dim=256, tied=False)
    plain = made(save_hf(tmp_path / "hf", model), tmp_path / "plain.gguf")
    quantise_with_llama_cpp(plain, tmp_path / "m.gguf", kind)
    ours = open_weights(tmp_path / "m.gguf").tensors
    theirs = {t.name: t for t in GGUFReader(tmp_path / "m.gguf").tensors}
    kinds = {tensor.kind for tensor in ours.values()}
    assert kinds - {"F32"} <= inside
    assert kinds & {kind.removesuffix("_M")}
    for name, tensor in ours.items():
        if tensor.n_heads == 0:  # the rows of queries and keys lie in another order there
            there = theirs[their_name(name, "gguf")]
            expected = dequantize(there.data, there.tensor_type).reshape(tensor.shape)
            assert np.array_equal(tensor.floats(), expected), name


def test_without_llama_cpp_k_quants_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="put llama-quantize on PATH or install llama-cpp-python, or choose q8_0 or q4_0"):
        quantise_with_llama_cpp(tmp_path / "plain.gguf", tmp_path / "m.gguf", "Q4_K_M")


def test_a_folder_with_both_settings_is_read_in_the_form_that_its_weights_have(tiny: Tiny, tmp_path: Path) -> None:
    model = tiny(n_words=301, family="mistral", tied=False)
    folder = save_mistral(tmp_path / "both", model)
    tekken.write_small(folder)
    (folder / "config.json").write_text(json.dumps(model.sizes.to_config()))
    assert open_weights(folder).form == "mistral"
    assert equal(made(folder, tmp_path / "out"), folder)
    for name in ("model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"):
        (folder / name).write_text("")
        assert form_of(folder) == "hf"
        (folder / name).unlink()


def test_a_tekken_of_another_version_gives_way_to_the_folder_s_tokenizer_json(tiny: Tiny, tmp_path: Path) -> None:
    hf = save_hf(tmp_path / "hf", tiny(n_words=257))
    tekken.write_small(hf, "v3")
    assert load_model(str(hf))[1].n_words == 257
    (hf / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="version 'v3'; what is covered: v7, v11, v13"):
        load_model(str(hf))
