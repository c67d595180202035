"""The tokenizer that belongs to a model's weights, in any format."""

from __future__ import annotations

from magistral.errors import ModelError
from magistral.text.tekken import tokenizer_from_tekken
from magistral.text.tokens import Tokenizer, tokenizer_from_folder, tokenizer_from_gguf
from magistral.weights.read import Weights

MAX_PADDING = 1024
"""Rows of an embedding beyond the tokenizer's words (chosen: known models pad by less than 512)."""


def tokenizer_of(weights: Weights, n_words: int) -> Tokenizer:
    """A folder's tekken.json goes before its tokenizer.json, which says less. `n_words`: the embedding's rows.

    Raises ModelError where the tokenizer is missing, broken, or not that of the embedding."""
    if weights.form == "gguf":
        tokenizer = tokenizer_from_gguf(weights.config)
    elif (weights.path / "tekken.json").exists():
        tokenizer = tokenizer_from_tekken(weights.path / "tekken.json")
    elif weights.form == "mistral":
        raise ModelError(f"{weights.path} has no tekken.json: the model folder is incomplete")
    else:
        tokenizer = tokenizer_from_folder(weights.path)
    if not tokenizer.n_words <= n_words <= tokenizer.n_words + MAX_PADDING:
        raise ModelError(
            f"{weights.path}: a tokenizer of {tokenizer.n_words} words does not fit an embedding of {n_words}: "
            "they are not of one model"
        )
    return tokenizer
