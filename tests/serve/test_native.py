"""The server around the native engine: what it sends is what the engine writes by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest

from magistral.engines.base import Request
from magistral.serve.app import create_app
from magistral.serve.events import Ask, Start, Turn
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
    able = frozenset({"n_top", "top_k", "draft", "prediction"})
    served = Served(name="tiny", engine=new_engine(), tokenizer=tokenizer, window=128, n_slots=3, able=able)
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


LONG = {"messages": [{"role": "user", "content": "a question that is asked again and again"}], "max_tokens": 20, "temperature": 0}


def test_a_prompt_that_comes_again_is_counted_as_cached_in_every_dialect(url: str) -> None:
    httpx.post(f"{url}/v1/chat/completions", json=LONG)
    chat = httpx.post(f"{url}/v1/chat/completions", json=LONG).json()["usage"]
    messages = httpx.post(f"{url}/v1/messages", json=LONG).json()["usage"]
    n_cached = chat["prompt_tokens_details"]["cached_tokens"]
    assert 0 < n_cached < chat["prompt_tokens"]
    assert messages["cache_read_input_tokens"] == n_cached
    assert messages["input_tokens"] == chat["prompt_tokens"] - n_cached
    voted = httpx.post(f"{url}/v1/chat/completions", json={**LONG, "vote": {"k": 3}}).json()["usage"]
    assert voted["prompt_tokens_details"]["cached_tokens"] == n_cached, "three completions, one prompt"


def test_the_likeliest_tokens_stand_beside_each_and_the_drawn_one_is_the_first_at_temperature_0(url: str) -> None:
    reply = httpx.post(f"{url}/v1/chat/completions", json={**LONG, "logprobs": True, "top_logprobs": 3}).json()
    for place in reply["choices"][0]["logprobs"]["content"]:
        assert len(place["top_logprobs"]) == 3
        assert place["top_logprobs"][0]["logprob"] == pytest.approx(place["logprob"])


def test_what_was_predicted_comes_the_same_and_is_counted(url: str) -> None:
    said = httpx.post(f"{url}/v1/chat/completions", json=LONG).json()["choices"][0]["message"]["content"]
    body = {**LONG, "prediction": {"type": "content", "content": said}, "flash": False}
    reply = httpx.post(f"{url}/v1/chat/completions", json=body).json()
    assert reply["choices"][0]["message"]["content"] == said
    assert reply["usage"]["completion_tokens_details"]["accepted_prediction_tokens"] > 0


@pytest.mark.parametrize("start", ["free", "answer"])
def test_a_model_that_was_trained_in_begun_thinking_is_asked_so(
    new_engine: Callable[[], NativeEngine], tokenizer: Tokenizer, start: Start
) -> None:
    ask = Ask(turns=(Turn(role="user", text="2+2"),), start=start)
    served = Served(name="tiny", engine=new_engine(), tokenizer=tokenizer, window=128)
    plain, _ = served.prompt(ask)
    begun, _ = replace(served, begin_thinking=True).prompt(ask)
    assert begun == (plain + tokenizer.encode("<think>\n") if start == "free" else plain)
