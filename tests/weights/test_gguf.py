"""A tiny GGUF file, written as llama.cpp's converter writes one, read back in Hugging Face's layout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType
from gguf.quants import quantize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel

from magistral.errors import ModelError
from magistral.models.load import load_model
from magistral.models.sizes import sizes_from_gguf
from magistral.models.transformer import Transformer
from magistral.weights.gguf import GgufFile

NAMES = {
    "embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight", "lm_head.weight": "output.weight",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def gguf_name(name: str) -> str:
    if not name.startswith("layers."):
        return NAMES[name]
    _, layer, rest = name.split(".", 2)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{NAMES[module]}.{kind}"


def interleaved(data: np.ndarray, n_heads: int) -> np.ndarray:
    """Row 2i of a head is row i of its first half, row 2i + 1 row i of its second."""
    heads = np.split(data, n_heads)
    half = len(heads[0]) // 2
    return np.concatenate([np.stack([head[i // 2 + (i % 2) * half] for i in range(len(head))]) for head in heads])


def write(path: Path, model: Transformer, tensors: Iterator[tuple[str, np.ndarray]], *, model_name: str = "gpt2") -> None:
    s = model.sizes
    writer = GGUFWriter(path, s.family)
    writer.add_embedding_length(s.dim)
    writer.add_block_count(s.n_layers)
    writer.add_head_count(s.n_heads)
    writer.add_head_count_kv(s.n_kv_heads)
    writer.add_key_length(s.head_dim)
    writer.add_feed_forward_length(s.hidden_dim)
    writer.add_layer_norm_rms_eps(s.norm_eps)
    writer.add_rope_freq_base(s.rope_theta)
    writer.add_context_length(s.window)
    words = [*sorted(ByteLevel.alphabet()), "<eos>", "ab"]
    writer.add_tokenizer_model(model_name)
    writer.add_token_list(words)
    writer.add_token_types([TokenType.NORMAL] * 256 + [TokenType.CONTROL, TokenType.NORMAL])
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(256)
    for name, data in tensors:
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_tensors(model: Transformer) -> Iterator[tuple[str, np.ndarray]]:
    """q and k interleaved, as the converter does for llama; qwen's stay as they are."""
    heads = {"q_proj": model.sizes.n_heads, "k_proj": model.sizes.n_kv_heads}
    for name, weight in model.named_parameters():
        data = weight.detach().numpy()
        turned = next((n for part, n in heads.items() if part in name and model.sizes.family == "llama"), None)
        yield gguf_name(name), interleaved(data, turned) if turned else data


@pytest.mark.parametrize(
    "changes",
    [{}, {"tied": False}, {"head_dim": 16}, {"family": "qwen2", "attention_bias": True}, {"family": "qwen3", "qk_norm": True}],
    ids=["llama, tied", "llama, untied", "heads wider than the model", "qwen2, biases", "qwen3, norms"],
)
def test_a_gguf_file_reads_back_as_the_original(
    changes: dict[str, object], tiny: Callable[..., Transformer], tmp_path: Path
) -> None:
    want = tiny(n_words=258, **changes)
    write(tmp_path / "m.gguf", want, gguf_tensors(want))
    model, tokenizer = load_model(str(tmp_path / "m.gguf"))
    assert (model.sizes.head_dim, model.sizes.n_kv_heads, model.sizes.tied) == (want.sizes.head_dim, 2, want.sizes.tied)
    found = dict(model.named_parameters())
    assert found.keys() == dict(want.named_parameters()).keys()
    assert all(torch.equal(found[name], weight) for name, weight in want.named_parameters())
    assert (tokenizer.eos, tokenizer.decode(tokenizer.encode("1 + é"))) == (256, "1 + é")


def test_the_interleaving_of_one_head_is_undone_row_by_row(tiny: Callable[..., Transformer], tmp_path: Path) -> None:
    model = tiny(n_words=258, n_layers=1, n_heads=1, n_kv_heads=1)
    rows = np.array([0, 4, 1, 5, 2, 6, 3, 7], dtype=np.float32)[:, None] * np.ones(32, dtype=np.float32)
    write(tmp_path / "m.gguf", model, iter([("blk.0.attn_q.weight", rows)]))
    ((name, tensor),) = GgufFile(tmp_path / "m.gguf").tensors.items()
    assert name == "layers.0.self_attn.q_proj.weight"
    data = tensor.floats()
    assert data[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_quantised_tensors_come_as_floats_near_the_original(tiny: Callable[..., Transformer], tmp_path: Path) -> None:
    model = tiny(n_words=258, n_layers=1)
    weight = model.embed_tokens.weight.detach().numpy()
    writer = GGUFWriter(tmp_path / "q.gguf", "llama")
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_tensor("token_embd.weight", quantize(weight, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tensor,) = GgufFile(tmp_path / "q.gguf").tensors.values()
    data = tensor.floats()
    assert data.dtype == np.float32
    assert 0 < np.abs(data - weight).max() <= np.abs(weight).max() / 127


def test_a_type_that_nothing_reads_is_an_error(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_tensor("token_embd.weight", np.zeros((1, 40), dtype=np.uint8), raw_dtype=GGMLQuantizationType.Q8_1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"'token_embd\.weight' is of type Q8_1, which is not covered"):
        GgufFile(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [("rope_freqs.weight", "rope scaling"), ("blk.0.ffn_gate_exps.weight", "'blk.0.ffn_gate_exps.weight'")],
    ids=["rope scaling", "experts"],
)
def test_a_tensor_that_the_dense_family_has_not_is_an_error(
    tensor: str, message: str, tiny: Callable[..., Transformer], tmp_path: Path
) -> None:
    model = tiny(n_words=258)
    write(tmp_path / "m.gguf", model, iter([*gguf_tensors(model), (tensor, np.ones(8, dtype=np.float32))]))
    with pytest.raises(ModelError, match=message):
        load_model(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize("key", ["llama.block_count", "llama.feed_forward_length"])
def test_a_missing_field_is_named(key: str, tiny: Callable[..., Transformer], tmp_path: Path) -> None:
    model = tiny(n_words=258)
    write(tmp_path / "m.gguf", model, gguf_tensors(model))
    fields = GgufFile(tmp_path / "m.gguf").fields
    del fields[key]
    with pytest.raises(ModelError, match=f"no field '{key}'"):
        sizes_from_gguf(fields, tied=True)


def test_a_missing_tensor_is_named(tiny: Callable[..., Transformer], tmp_path: Path) -> None:
    model = tiny(n_words=258)
    tensors = [(name, data) for name, data in gguf_tensors(model) if name != "blk.1.ffn_up.weight"]
    write(tmp_path / "m.gguf", model, iter(tensors))
    with pytest.raises(ModelError, match=r"lacks 1 tensors, as layers\.1\.mlp\.up_proj\.weight"):
        load_model(str(tmp_path / "m.gguf"))


def test_another_kind_of_tokenizer_is_an_error_that_names_it(tiny: Callable[..., Transformer], tmp_path: Path) -> None:
    model = tiny(n_words=258)
    write(tmp_path / "m.gguf", model, gguf_tensors(model), model_name="llama")
    with pytest.raises(ModelError, match="'llama' tokenizer"):
        load_model(str(tmp_path / "m.gguf"))


def test_a_file_that_is_no_gguf_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"not a model, but longer than a header would be" * 4)
    with pytest.raises(ModelError, match=r"m\.gguf cannot be read as GGUF"):
        load_model(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    ("keep", "says"), [(20, "in the middle of its header"), (3000, "in the middle of its header"), (-1, "cut short")]
)
def test_a_file_cut_short_is_an_error(keep: int, says: str, tiny: Callable[..., Transformer], tmp_path: Path) -> None:
    model = tiny(n_words=258)
    write(tmp_path / "m.gguf", model, gguf_tensors(model))
    (tmp_path / "m.gguf").write_bytes((tmp_path / "m.gguf").read_bytes()[:keep])
    with pytest.raises(ModelError, match=says):
        load_model(str(tmp_path / "m.gguf"))


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"")
    with pytest.raises(ModelError, match=r"m\.gguf cannot be read as GGUF"):
        load_model(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    "counts",
    [(2**64 - 1, 0), (0, 2**64 - 1), (65_536, 0), (0, 65_536)],
    ids=["tensors without end", "fields without end", "more tensors than there are", "more fields than there are"],
)
def test_counts_that_a_file_does_not_keep_are_an_error_at_once(counts: tuple[int, int], tmp_path: Path) -> None:
    head = b"GGUF" + (3).to_bytes(4, "little") + b"".join(n.to_bytes(8, "little") for n in counts)
    (tmp_path / "m.gguf").write_bytes(head + bytes(64))
    with pytest.raises(ModelError, match="cannot be read as GGUF"):
        GgufFile(tmp_path / "m.gguf")


def test_an_array_longer_than_the_file_is_an_error_at_once(tmp_path: Path) -> None:
    head = b"GGUF" + (3).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little")
    field = (
        (1).to_bytes(8, "little") + b"a" + (9).to_bytes(4, "little") + (0).to_bytes(4, "little") + (2**62).to_bytes(8, "little")
    )
    (tmp_path / "m.gguf").write_bytes(head + field + bytes(64))
    with pytest.raises(ModelError, match="an array of 4611686018427387904 values"):
        GgufFile(tmp_path / "m.gguf")


def test_a_way_to_cut_text_that_is_not_known_is_an_error(tiny: Callable[..., Transformer], tmp_path: Path) -> None:
    from magistral.text.tokens import tokenizer_from_gguf

    model = tiny(n_words=258)
    write(tmp_path / "m.gguf", model, gguf_tensors(model))
    with pytest.raises(ModelError, match=r"in the way 'deepseek-llm'; what is covered: .*smollm"):
        tokenizer_from_gguf({**GgufFile(tmp_path / "m.gguf").fields, "tokenizer.ggml.pre": "deepseek-llm"})


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_token_list(["a", "b"])
    writer.add_tensor("blk.0.attn_q.weight", np.ones((32, 32), dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(32, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(places=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6), cut=st.integers(0, 5000))
def test_no_damage_does_more_than_raise_a_model_error(
    small_file: bytes, tmp_path: Path, places: list[tuple[int, int]], cut: int
) -> None:
    broken = bytearray(small_file)
    for place, value in places:
        broken[place] = value
    (tmp_path / "broken.gguf").write_bytes(broken[: max(0, len(broken) - cut)] if cut % 2 else broken)
    with contextlib.suppress(ModelError):
        for tensor in GgufFile(tmp_path / "broken.gguf").tensors.values():
            assert tensor.floats().shape == tensor.shape
