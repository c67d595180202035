"""Settings of any form: what is no model's is a ModelError, whatever a file holds."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magistral.errors import ModelError
from magistral.models.sizes import MAGISTRAL_SMALL, SIZES, Sizes, sizes_from_config, sizes_from_gguf, sizes_from_params, sizes_of
from magistral.text.versions import VERSIONS
from magistral.weights.names import Format
from magistral.weights.read import Weights

TIED = Sizes(
    family="qwen2", n_words=257, dim=32, n_layers=2, n_heads=4, n_kv_heads=2, head_dim=8, hidden_dim=48, norm_eps=1e-6,
    rope_theta=1e6, window=128, tied=True, attention_bias=True,
)  # fmt: skip
ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.lists(st.integers(), max_size=2),
)  # fmt: skip


def weights(form: Format, config: dict[str, Any]) -> Weights:
    return Weights(path=Path("m"), form=form, config=config, tensors={})


@pytest.mark.parametrize("sizes", [MAGISTRAL_SMALL, TIED], ids=["Magistral Small", "Qwen2, tied"])
def test_what_is_written_is_read_back(sizes: Sizes) -> None:
    assert sizes_from_config(json.loads(json.dumps(sizes.to_config()))) == sizes
    if sizes is MAGISTRAL_SMALL:
        assert sizes_from_params(json.loads(json.dumps(sizes.to_params()))) == sizes


def test_a_gguf_file_says_all_but_that_it_is_mistral_s() -> None:
    fields: dict[str, Any] = {**MAGISTRAL_SMALL.to_gguf(), "tokenizer.ggml.tokens": ["x"] * 131_072}
    read = sizes_from_gguf(fields, tied=False)
    assert read.family == "llama"
    assert read.shapes() == MAGISTRAL_SMALL.shapes()
    assert (read.rope_theta, read.norm_eps, read.window) == (1e9, 1e-5, 131_072)


def test_every_version_that_is_known_has_its_sizes() -> None:
    assert set(SIZES) == set(VERSIONS) - {"text"}


def test_a_rope_that_would_turn_beyond_all_numbers_is_refused() -> None:
    with pytest.raises(ModelError, match="rope_theta cannot be 1e-300"):
        sizes_from_config({**TIED.to_config(), "rope_theta": 1e-300})


def test_a_rope_that_is_stretched_is_refused_in_every_form() -> None:
    with pytest.raises(ModelError, match="rope scaling"):
        sizes_from_config({**TIED.to_config(), "rope_scaling": {"type": "linear", "factor": 2}})
    with pytest.raises(ModelError, match="rope scaling 'yarn'"):
        sizes_from_gguf({**TIED.to_gguf(), "qwen2.rope.scaling.type": "yarn"}, tied=True)
    with pytest.raises(ModelError, match="yarn"):
        sizes_from_params({**MAGISTRAL_SMALL.to_params(), "yarn": {"factor": 2}})


@pytest.mark.parametrize("activation", ["gelu", "gelu_pytorch_tanh", "relu"])
def test_another_activation_is_refused(activation: str) -> None:
    with pytest.raises(ModelError, match=f"hidden_act='{activation}' is not covered"):
        sizes_from_config({**TIED.to_config(), "hidden_act": activation})
    without = {key: value for key, value in TIED.to_config().items() if key != "hidden_act"}
    assert sizes_from_config(without) == sizes_from_config({**without, "hidden_act": "swish"}) == TIED


def test_a_model_quantised_by_another_program_is_named() -> None:
    with pytest.raises(ModelError, match="quantised by 'awq'"):
        sizes_from_config({**TIED.to_config(), "quantization_config": {"quant_method": "awq"}})


@settings(max_examples=300, deadline=None)
@given(form=st.sampled_from(["hf", "mistral", "gguf"]), data=st.data())
def test_no_settings_do_more_than_raise_a_model_error(form: Format, data: st.DataObject) -> None:
    whole = {"hf": TIED.to_config(), "mistral": MAGISTRAL_SMALL.to_params(), "gguf": TIED.to_gguf()}[form]
    keys = data.draw(st.lists(st.sampled_from([*whole, "rope_parameters", "text_config", "quantization_config"]), max_size=3))
    changed: dict[str, Any] = {**whole, **{key: data.draw(ANY) for key in keys}}
    with contextlib.suppress(ModelError):
        assert sizes_of(weights(form, changed)).n_parameters > 0
