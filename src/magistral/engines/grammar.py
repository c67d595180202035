"""JSON that follows a schema, token by token: a mask by llguidance. Needs the extra `grammar`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from magistral.engines.base import Mask
from magistral.errors import UserError
from magistral.text.tokens import Tokenizer


def json_mask(tokenizer: Tokenizer, schema: Mapping[str, Any], *, after: tuple[int, ...] = ()) -> Callable[[], Mask]:
    """For `Request.mask`: a completion that is one JSON value of `schema` ({}: any value), then the end token. With `after`,
    as the mark that closes the thinking, all is free until these tokens stand in a row.

    Raises UserError where llguidance is not installed, or does not do the schema."""
    llguidance = _library()
    words = _words(tokenizer)
    try:
        grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(dict(schema)), {"whitespace_flexible": False})
    except (TypeError, ValueError) as e:
        raise UserError(f"the JSON schema cannot be read: {e}") from None
    wrong, messages = llguidance.LLMatcher.validate_grammar_with_warnings(grammar, words)
    if wrong:
        raise UserError(f"the JSON schema cannot be followed: {' '.join(' '.join(messages).split())[:300]}")
    return lambda: GrammarMask(llguidance.LLMatcher(words, grammar, log_level=0), tokenizer.n_words, after)


class GrammarMask:
    def __init__(self, matcher: Any, n_words: int, after: tuple[int, ...]) -> None:
        self._matcher, self._n_words = matcher, n_words
        self._after = after
        self._last: tuple[int, ...] = ()
        self._free = bool(after)

    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        if self._free:
            return np.ones(self._n_words, dtype=bool)
        if self._matcher.is_error():
            return np.zeros(self._n_words, dtype=bool)
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        return np.unpackbits(bits, bitorder="little", count=self._n_words).astype(bool)

    def accept(self, token: int) -> None:
        if self._free:
            self._last = (*self._last, token)[-len(self._after) :]
            self._free = self._last != self._after
        else:
            self._matcher.consume_token(token)  # a forced one against the grammar is an error, after which nothing may come


@lru_cache(maxsize=8)
def _words(tokenizer: Tokenizer) -> Any:
    """The vocabulary as llguidance holds it; half a second for 50,000 words."""
    return _library().LLTokenizer(tokenizer.backend.to_str(), n_vocab=tokenizer.n_words, eos_token=tokenizer.eos)


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise UserError("JSON by a schema needs the package llguidance: scripts/install grammar") from None
    return llguidance
