"""One contract, every engine: native, scripted, http in both dialects, vllm against a server that speaks its routes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tokenizers import models

from magistral.engines.base import OPTIONS, Engine, Written
from magistral.engines.http import Endpoint, HttpEngine
from magistral.engines.native.engine import NativeEngine
from magistral.engines.scripted import ScriptedEngine
from magistral.engines.vllm import VllmEngine
from magistral.models.transformer import Transformer
from magistral.text.tokens import byte_tokenizer
from tests.engines.contract import Contract, Harness
from tests.engines.fake_vllm import EOS, FakeVllm
from tests.engines.fakes import FakeChat, transport

Tiny = Callable[..., Transformer]


def pairs(tokens: Sequence[int]) -> str:
    """Two letters a token: "aa", "ab" and so on."""
    return "".join(chr(97 + token // 26) + chr(97 + token % 26) for token in tokens)


class Native:
    tolerance = 1e-4
    able = frozenset({"tokens", "logprobs", "seeds", "load", "force", "places", "decode", *OPTIONS} - {"messages"})
    eos = EOS

    def __init__(self, tiny: Tiny) -> None:
        self.tiny = tiny

    def engine(self) -> Engine:
        return NativeEngine(self.tiny(seed=0), EOS, n_slots=4, window=128, decode=self.decode)

    def decode(self, tokens: Sequence[int]) -> str:
        return pairs(tokens)

    def close(self, engine: Engine) -> None:
        pass

    def begin(self, engine: Engine) -> list[Written]:
        return [*engine.step(), *engine.step()]

    def weights(self, version: int) -> dict[str, Any]:
        return dict(self.tiny(seed=version).named_parameters())


class Scripted:
    tolerance = 1e-4
    able = frozenset({"tokens", "logprobs", "seeds", "load", "force", "places", "decode", "stop", "n_top", "begun"})

    def __init__(self) -> None:
        self.tokenizer = byte_tokenizer()
        vocab = self.tokenizer.backend.get_vocab() | {"1\u0120": 257}  # one token for a 1 with a space
        self.tokenizer.backend.model = models.BPE(vocab=vocab, merges=[("1", "\u0120")])
        self.eos = self.tokenizer.eos

    def decode(self, tokens: Sequence[int]) -> str:
        return self.tokenizer.decode(tokens)

    def engine(self) -> Engine:
        return ScriptedEngine(lambda prompt, seed: f"{seed} {prompt!r} " * 3, self.tokenizer, n_slots=4, window=128)

    def begin(self, engine: Engine) -> list[Written]:
        return [*engine.step(), *engine.step()]

    def close(self, engine: Engine) -> None:
        pass

    def weights(self, version: int) -> dict[str, Any]:
        return {}


class Http:
    tolerance = 1e-4

    def __init__(self, dialect: Any) -> None:
        self.dialect = dialect
        self.eos = byte_tokenizer().eos
        self.able = frozenset({"seeds", "messages", "stop", *(["top_k"] if dialect == "mistral" else [])})

    def decode(self, tokens: Sequence[int]) -> str:
        raise NotImplementedError

    def engine(self) -> Engine:
        endpoint = Endpoint(base_url="http://nowhere/v1", model="fake", dialect=self.dialect)
        return HttpEngine(endpoint, transport=transport(FakeChat(self.dialect)))

    def begin(self, engine: Engine) -> list[Written]:
        return []

    def close(self, engine: Engine) -> None:
        assert isinstance(engine, HttpEngine)
        engine.close()

    def weights(self, version: int) -> dict[str, Any]:
        return {"norm.weight": torch.zeros(1)}


class Vllm:
    tolerance = 1e-4
    able = frozenset({"tokens", "logprobs", "seeds", "load", "top_k", "min_p", "stop", "stop_tokens", "n_top", "begun"})
    eos = EOS

    def decode(self, tokens: Sequence[int]) -> str:
        raise NotImplementedError

    def engine(self) -> Engine:
        self.server = FakeVllm()
        return VllmEngine(["http://one"], EOS, window=128, transport=transport(self.server))

    def begin(self, engine: Engine) -> list[Written]:
        while not self.server.n_written:
            time.sleep(0.001)
        return []

    def close(self, engine: Engine) -> None:
        assert isinstance(engine, VllmEngine)
        engine.close()

    def weights(self, version: int) -> dict[str, Any]:
        return {"norm.weight": torch.full((1,), float(version))}


class TestNative(Contract):
    @pytest.fixture
    def harness(self, tiny: Tiny) -> Harness:
        return Native(tiny)


class TestScripted(Contract):
    @pytest.fixture
    def harness(self) -> Harness:
        return Scripted()


class TestHttpOpenai(Contract):
    @pytest.fixture
    def harness(self) -> Harness:
        return Http("openai")


class TestHttpMistral(Contract):
    @pytest.fixture
    def harness(self) -> Harness:
        return Http("mistral")


class TestVllm(Contract):
    @pytest.fixture
    def harness(self) -> Harness:
        return Vllm()


@pytest.mark.parametrize("harness", [Native, Scripted, Vllm, Http])
def test_a_harness_names_only_what_there_is(harness: type) -> None:
    able = getattr(harness, "able", None) or Http("mistral").able
    assert set(able) <= {"tokens", "logprobs", "seeds", "load", "force", "places", "decode", *OPTIONS}
