"""JSON by a schema: what a mask lets through, on a vocabulary of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from magistral.engines.base import Mask, Request
from magistral.engines.grammar import json_mask
from magistral.engines.native.engine import NativeEngine
from magistral.errors import UserError
from magistral.flow import Finish
from magistral.models.transformer import Transformer
from magistral.text.tokens import byte_tokenizer

TOKENIZER = byte_tokenizer()
SUM: dict[str, Any] = {
    "type": "object",
    "properties": {"sum": {"enum": [3, 27]}},
    "required": ["sum"],
    "additionalProperties": False,
}


def allowed(mask: Mask) -> str:
    ids = mask.allowed().nonzero()[0].tolist()
    return "".join("$" if i == TOKENIZER.eos else TOKENIZER.decode([i]) for i in ids)


def say(mask: Mask, text: str) -> Mask:
    for token in TOKENIZER.encode(text):
        mask.accept(token)
    return mask


@pytest.mark.parametrize(
    ("said", "next_"),
    [("", "{"), ("{", '"'), ('{"sum":', "23"), ('{"sum":2', "7"), ('{"sum":27}', "$"), ('{"sum":5', "")],
    ids=["nothing", "an object", "one of two", "the rest of one", "all of it: the end", "against the schema: nothing more"],
)
def test_only_what_the_schema_lets_follow_is_allowed(said: str, next_: str) -> None:
    assert allowed(say(json_mask(TOKENIZER, SUM)(), said)) == next_


def test_before_the_mark_everything_is_allowed_and_each_completion_has_a_state_of_its_own() -> None:
    make = json_mask(TOKENIZER, SUM, after=tuple(TOKENIZER.encode("</think>")))
    one, other = make(), make()
    assert one.allowed().all()
    assert allowed(say(one, "<think>{</think</think>")) == "{"
    assert other.allowed().all()


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/nowhere"}], ids=["no such type", "no such place"])
def test_a_schema_that_cannot_be_followed_is_an_error(schema: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="the JSON schema cannot be followed"):
        json_mask(TOKENIZER, schema)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_model_that_knows_nothing_writes_json_of_the_schema(seed: int, tiny: Callable[..., Transformer]) -> None:
    engine = NativeEngine(tiny(n_words=TOKENIZER.n_words), TOKENIZER.eos, n_slots=2, window=64)
    engine.submit(Request(prompt=(5, 9), seeds=(seed,), max_tokens=40, mask=json_mask(TOKENIZER, SUM)))
    while not (done := engine.step()):
        pass
    assert done[0].finish is Finish.STOP
    assert json.loads(TOKENIZER.decode(done[0].tokens[:-1])) in ({"sum": 3}, {"sum": 27})
    assert all(logprob <= 0 for logprob in done[0].logprobs)
