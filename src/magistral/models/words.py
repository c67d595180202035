"""The tokenizer that belongs to a model's weights, in any format."""

from __future__ import annotations

from magistral.errors import ModelError
from magistral.text.tekken import OtherVersion, tokenizer_from_tekken
from magistral.text.tokens import Tokenizer, tokenizer_from_folder, tokenizer_from_gguf
from magistral.weights.read import Weights

MAX_PADDING = 1024
"""Rows of an embedding beyond the tokenizer's words (chosen: known models pad by less than 512)."""


def tokenizer_of(weights: Weights, n_words: int) -> Tokenizer:
    """A folder's tekken.json goes before its tokenizer.json, which says less. `n_words`: the embedding's rows.

    Raises ModelError where the tokenizer is missing, broken, or not that of the embedding."""
    tokenizer = tokenizer_from_gguf(weights.config) if weights.form == "gguf" else _of_folder(weights)
    if not tokenizer.n_words <= n_words <= tokenizer.n_words + MAX_PADDING:
        raise ModelError(
            f"{weights.path}: a tokenizer of {tokenizer.n_words} words does not fit an embedding of {n_words}: "
            "they are not of one model"
        )
    return tokenizer


def _of_folder(weights: Weights) -> Tokenizer:
    tekken, other = weights.path / "tekken.json", weights.path / "tokenizer.json"
    if weights.form == "mistral" and not tekken.exists():
        raise ModelError(f"{weights.path} has no tekken.json: the model folder is incomplete")
    if not tekken.exists():
        return tokenizer_from_folder(weights.path)
    try:
        return tokenizer_from_tekken(tekken)
    except OtherVersion:
        if weights.form == "mistral" or not other.exists():
            raise
        return tokenizer_from_folder(weights.path)
