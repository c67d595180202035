"""The server around the native engine: what it sends is what the engine writes by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from magistral.engines.base import Request
from magistral.serve.app import create_app
from magistral.serve.model import Served
from magistral.serve.service import Service
from magistral.text.tokens import Tokenizer, byte_tokenizer
from tests.serve.fakes import running

if TYPE_CHECKING:
    from magistral.engines.native.engine import NativeEngine
    from magistral.models.transformer import Transformer

PROMPTS = [f"say {i}" for i in range(5)]


@pytest.fixture
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


@pytest.fixture
def new_engine(tiny: Callable[..., Transformer], tokenizer: Tokenizer) -> Callable[[], NativeEngine]:
    from magistral.engines.native.engine import NativeEngine

    model = tiny(n_words=tokenizer.n_words)
    return lambda: NativeEngine(model, tokenizer.eos, n_slots=3, window=128)


@pytest.fixture
def url(new_engine: Callable[[], NativeEngine], tokenizer: Tokenizer) -> Iterator[str]:
    served = Served(name="tiny", engine=new_engine(), tokenizer=tokenizer, window=128, n_slots=3)
    with running(create_app(Service([served]))) as address:
        yield address


def test_several_clients_get_what_the_engine_writes_alone(
    url: str, new_engine: Callable[[], NativeEngine], tokenizer: Tokenizer
) -> None:
    def ask(prompt: str) -> str:
        body = {"prompt": prompt, "max_tokens": 40, "temperature": 0}
        text: str = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"][0]["text"]
        return text

    with ThreadPoolExecutor(5) as pool:
        said = list(pool.map(ask, PROMPTS))
    for prompt, text in zip(PROMPTS, said, strict=True):
        engine = new_engine()
        engine.submit(Request(prompt=tuple(tokenizer.encode(prompt)), seeds=(0,), max_tokens=40, temperature=0))
        done = engine.step()
        while not done:
            done = engine.step()
        assert text == tokenizer.decode([t for t in done[0].tokens if t != tokenizer.eos])


def test_a_seed_gives_the_same_answer_again(url: str) -> None:
    def ask(seed: int) -> str:
        body = {"messages": [{"role": "user", "content": "?"}], "max_tokens": 30, "seed": seed, "temperature": 1}
        content: str = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()["choices"][0]["message"]["content"]
        return content

    assert ask(1) == ask(1) != ask(2)
