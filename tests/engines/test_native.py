"""The native engine against plain forward passes over whole sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from magistral.engines.base import Request
from magistral.engines.native.engine import NativeEngine
from magistral.engines.native.linears import Form
from magistral.errors import ModelError, UserError
from magistral.flow import Finish
from magistral.models.transformer import Transformer
from tests.engines.native import EOS, Tiny, ask, count_tokens, finish, full_logprobs, new_engine, same, write

VARIANTS: dict[str, dict[str, object]] = {
    "llama": {},
    "every head its own keys": {"n_kv_heads": 4},
    "one key head": {"n_kv_heads": 1, "head_dim": 16},
    "qwen2": {"family": "qwen2", "attention_bias": True},
    "qwen3, untied": {"family": "qwen3", "qk_norm": True, "tied": False},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_greedy_is_the_argmax_of_a_full_forward(changes: dict[str, object], tiny: Tiny) -> None:
    model = tiny(**changes)
    (written,) = write(model, ask(5, 9, 2, temperature=0.0, n=20))
    expected = full_logprobs(model, written)
    assert written.tokens == expected.argmax(-1).tolist()
    assert written.logprobs == pytest.approx(expected.amax(-1).tolist(), abs=1e-4)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
def test_the_recorded_log_probabilities_are_a_full_forward_s_at_that_temperature(temperature: float, tiny: Tiny) -> None:
    model = tiny()
    for written in write(model, ask(5, 9, 2, seeds=(1, 2, 3), temperature=temperature)):
        expected = full_logprobs(model, written, temperature).gather(-1, torch.tensor(written.tokens)[:, None])[:, 0]
        assert written.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_a_seed_s_completion_does_not_depend_on_its_neighbours(tiny: Tiny) -> None:
    model = tiny()
    one = ask(5, 9, 2, seeds=(11,), key="a")
    (alone,) = write(model, one)
    others = [ask(7, seeds=(1, 2), key="b", n=3), ask(1, 2, 3, 4, 5, 6, seeds=(3,), key="c", n=20, temperature=0.7)]
    assert same(write(model, *others, one)[0], alone)
    assert same(write(model, one)[0], alone)
    assert write(model, ask(5, 9, 2, seeds=(12,)))[0].tokens != alone.tokens


def test_a_group_s_prompt_is_computed_once_and_each_is_as_if_alone(tiny: Tiny) -> None:
    model = tiny()
    engine = new_engine(model)
    n_read = count_tokens(engine)
    engine.submit(ask(5, 9, 2, seeds=(1, 2, 3, 4)))
    group = finish(engine)
    assert n_read[:2] == [3, 4], "then the first one's next token, the prompt's last of the rest"
    assert [w.n_cached for w in group] == [0, 2, 2, 2]
    alone = [write(model, ask(5, 9, 2, seeds=(seed,)))[0] for seed in (1, 2, 3, 4)]
    assert [w.index for w in group] == [0, 1, 2, 3]
    assert all(same(a, b) for a, b in zip(group, alone, strict=True))


def test_slots_are_used_again_as_completions_of_different_lengths_end(tiny: Tiny) -> None:
    model = tiny()
    lengths = [3, 17, 5, 1, 70, 8, 2]
    requests = [ask(*range(i + 1), seeds=(i, i + 50)[: 1 + i % 2], n=n, key=str(i)) for i, n in enumerate(lengths)]
    together = write(model, *requests, n_slots=3)
    alone = [w for request in requests for w in write(model, request)]
    assert len(together) == len(alone) == 10
    assert len({len(w.tokens) for w in together}) > 3, "they end at different times, so rows move"
    assert all(same(a, b) for a, b in zip(together, alone, strict=True))


def test_no_more_rows_than_slots_are_written_and_completions_enter_in_their_order(tiny: Tiny) -> None:
    engine = new_engine(tiny(), n_slots=3)
    for key, n_seeds in (("a", 2), ("b", 2), ("c", 1)):
        engine.submit(ask(1, seeds=tuple(range(n_seeds)), key=key, n=4))
    engine.step()
    assert [w.request.key for w in engine.partial()] == ["a", "a", "b"]
    assert {str(w.request.key) for w in finish(engine)} == {"a", "b", "c"}


@pytest.mark.parametrize("n", [1, 2, 6])
def test_a_completion_ends_at_its_limit(n: int, tiny: Tiny) -> None:
    (written,) = write(tiny(), ask(5, 9, n=n))
    assert (len(written.tokens), written.finish) == (n, Finish.LENGTH)
    assert len(written.logprobs) == len(written.versions) == n


@pytest.mark.parametrize("place", [0, 1, 5])
def test_a_completion_stops_with_the_end_token_which_it_keeps(place: int, tiny: Tiny) -> None:
    model = tiny()
    (free,) = write(model, ask(5, 9))
    end = free.tokens[place]
    engine = new_engine(model, eos=end)
    engine.submit(ask(5, 9))
    (written,) = finish(engine)
    assert written.tokens == free.tokens[: free.tokens.index(end) + 1]
    assert written.finish == Finish.STOP


@pytest.mark.parametrize(
    ("stop", "n"), [(("FG",), 5), (("G",), 5), (("CDE",), 3), (("XX", "E"), 3), (("Q",), 12)],
    ids=["two tokens", "one", "three", "one of two", "what is not said"],
)  # fmt: skip
def test_a_completion_ends_with_a_stop_text_wherever_its_tokens_begin(stop: tuple[str, ...], n: int, tiny: Tiny) -> None:
    engine = new_engine(tiny())
    engine.submit(ask(5, 9, stop=stop))
    engine.force("", 0, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])  # CDEFGHIJKLMN
    (written,) = finish(engine)
    assert len(written.tokens) == n
    assert written.finish == (Finish.STOP if n < 12 else Finish.LENGTH)


def test_a_completion_ends_with_a_stop_token(tiny: Tiny) -> None:
    (free,) = write(tiny(), ask(5, 9))
    end = free.tokens[3]
    (written,) = write(tiny(), ask(5, 9, stop_tokens=(end,)))
    assert (written.tokens, written.finish) == (free.tokens[: free.tokens.index(end) + 1], Finish.STOP)


@pytest.mark.parametrize("terms", [{}, {"temperature": 0.5}, {"temperature": 0.0}, {"top_k": 1}], ids=str)
def test_forced_tokens_have_the_model_s_own_log_probability(terms: dict[str, Any], tiny: Tiny) -> None:
    engine = new_engine(tiny())
    engine.submit(ask(5, 9, 2, n=9, **terms))
    engine.step()
    engine.force("", 0, [7, 3, 7, 1])
    (written,) = finish(engine)
    own = full_logprobs(tiny(), written, terms.get("temperature") or 1.0)
    assert written.forced == [1, 2, 3, 4]
    assert written.logprobs[1:5] == pytest.approx([float(own[i, written.tokens[i]]) for i in range(1, 5)], abs=1e-4)


def test_the_likeliest_tokens_of_each_place_are_a_full_forward_s(tiny: Tiny) -> None:
    (written,) = write(tiny(), ask(5, 9, 2, n_top=3))
    values, tokens = full_logprobs(tiny(), written).topk(3)
    assert [[t for t, _ in top] for top in written.top] == tokens.tolist()
    assert [[p for _, p in top] for top in written.top] == [pytest.approx(row, abs=1e-4) for row in values.tolist()]


class Even:
    """Lets even tokens through, until one was forced that is not."""

    def __init__(self) -> None:
        self.over = False

    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.array([token % 2 == 0 and not self.over for token in range(64)])

    def accept(self, token: int) -> None:
        self.over |= token % 2 == 1


def test_a_masked_completion_has_log_probabilities_of_what_is_left_and_ends_when_nothing_is(tiny: Tiny) -> None:
    model = tiny()
    (engine := new_engine(model)).submit(ask(5, 9, 2, n=20, mask=Even))
    while not engine.partial() or len(engine.partial()[0].tokens) < 6:
        engine.step()
    engine.force("", 0, [8, 9])
    (written,) = finish(engine)
    assert (len(written.tokens), written.finish, written.forced) == (8, Finish.STOP, [6, 7])
    left = full_logprobs(model, written)[:6, ::2].log_softmax(-1)
    assert all(token % 2 == 0 for token in written.tokens[:6])
    assert written.logprobs[:6] == pytest.approx([float(left[i, t // 2]) for i, t in enumerate(written.tokens[:6])], abs=1e-4)


class Remembering:
    """The plainest cache: all keys and values so far, whoever wrote them. One token at a time."""

    def __init__(self) -> None:
        self.held: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if layer in self.held:
            k, v = (torch.cat((old, new), dim=2) for old, new in zip(self.held[layer], (k, v), strict=True))
        self.held[layer] = (k, v)
        n = q.shape[1] // k.shape[1]
        return F.scaled_dot_product_attention(q, k.repeat_interleave(n, 1), v.repeat_interleave(n, 1))


@torch.no_grad()
def greedy_by_hand(models: list[Transformer], prompt: tuple[int, ...]) -> list[tuple[int, float]]:
    """Token and log-probability of each place, written by `models` in turn over one cache."""
    context, out, tokens = Remembering(), [], list(prompt)
    everyone = [models[0]] * (len(prompt) - 1) + models
    for place, model in enumerate(everyone):
        logits = model.lm_head(model(torch.tensor([[tokens[place]]]), torch.tensor([[place]]), context))[0, 0]
        if place >= len(prompt) - 1:
            token = int(logits.argmax())
            tokens.append(token)
            out.append((token, float(logits.log_softmax(-1)[token])))
    return out


def test_new_weights_take_effect_between_two_tokens_and_the_cache_is_kept(tiny: Tiny) -> None:
    old, new = tiny(seed=1), tiny(seed=2)
    engine = new_engine(old)
    engine.submit(ask(5, 9, 2, temperature=0.0, n=10))
    engine.step()
    n_old = len(engine.partial()[0].tokens)
    engine.load(dict(new.named_parameters()), version=1)
    (written,) = finish(engine)
    assert 0 < n_old < 10
    assert written.versions == [0] * n_old + [1] * (10 - n_old)
    by_hand = greedy_by_hand([old] * n_old + [new] * (10 - n_old), (5, 9, 2))
    assert written.tokens == [token for token, _ in by_hand]
    assert written.logprobs == pytest.approx([logprob for _, logprob in by_hand], abs=1e-4)
    computed_anew = full_logprobs(new, written).gather(-1, torch.tensor(written.tokens)[:, None])[:, 0]
    assert (torch.tensor(written.logprobs)[n_old:] - computed_anew[n_old:]).abs().max() > 1e-3, "old keys and values count"


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_weights_that_are_only_prepared_write_nothing_yet(weights: Form, tiny: Tiny) -> None:
    old, new = tiny(seed=1), tiny(seed=2)
    engine = new_engine(old, weights=weights)
    switch = engine.prepare(dict(new.named_parameters()), version=1)
    unprepared = new_engine(old, weights=weights)
    found = []
    for writer in (unprepared, engine, engine):
        writer.submit(ask(5, 9, 2))
        found += finish(writer)
        if len(found) == 2:
            switch()
    assert [set(written.versions) for written in found] == [{0}, {0}, {1}]
    assert same(found[0], found[1])
    assert not same(found[1], found[2])


def test_large_weights_whose_sum_is_no_number_are_weights_still(tiny: Tiny) -> None:
    engine = new_engine(tiny(seed=1))
    engine.load({"norm.weight": torch.full((32,), 3e38)}, version=1)
    assert engine.version == 1


def test_weights_that_did_not_change_need_not_be_loaded(tiny: Tiny) -> None:
    model, engine = tiny(seed=1), new_engine(tiny(seed=1))
    with torch.no_grad():
        model.layers[1].mlp.up_proj.weight.mul_(2)  # type: ignore[union-attr, operator]
    engine.load({"layers.1.mlp.up_proj.weight": model.get_parameter("layers.1.mlp.up_proj.weight")}, version=3)
    engine.submit(ask(5, 9, 2))
    (written,) = finish(engine)
    assert same(written, write(model, ask(5, 9, 2))[0])
    assert set(written.versions) == {3}


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("layers.1.mlp.up_proj.weight", torch.full((48, 32), float("nan")), "up_proj.weight holds numbers that are not finite"),
        ("norm.weight", torch.full((32,), float("inf")), "norm.weight holds numbers that are not finite"),
        ("norm.weight", torch.ones(31), r"norm.weight \[31\] is none of this model's"),
        ("layers.9.mlp.up_proj.weight", torch.ones(48, 32), "layers.9.mlp.up_proj.weight .* is none of this model's"),
    ],
    ids=["NaN", "infinite", "another shape", "no such layer"],
)
def test_broken_weights_are_refused_and_the_old_ones_stay(name: str, tensor: Tensor, message: str, tiny: Tiny) -> None:
    engine = new_engine(tiny())
    with pytest.raises(ModelError, match=message):
        engine.load({"embed_tokens.weight": torch.zeros(64, 32), name: tensor}, version=1)
    assert engine.version == 0
    engine.submit(ask(5, 9, 2))
    assert same(finish(engine)[0], write(tiny(), ask(5, 9, 2))[0])


def test_the_trainer_s_model_may_change_beside_the_engine(tiny: Tiny) -> None:
    model = tiny(seed=1)
    engine = new_engine(model)
    with torch.no_grad():
        model.embed_tokens.weight.zero_()
    engine.submit(ask(5, 9, 2))
    assert same(finish(engine)[0], write(tiny(seed=1), ask(5, 9, 2))[0])


def test_cancel_forgets_what_waits_and_what_is_half_written_and_the_rest_is_as_if_alone(tiny: Tiny) -> None:
    model = tiny()
    engine = new_engine(model, n_slots=3)
    for key, seed in (("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)):
        engine.submit(ask(5, 9, seed, seeds=(seed,), key=key))
    engine.step()
    engine.cancel("a")
    engine.cancel("e")
    engine.cancel("never asked")
    assert [w.request.key for w in engine.partial()] == ["c", "b"]
    done = finish(engine)
    alone = [write(model, ask(5, 9, seed, seeds=(seed,), key=key))[0] for key, seed in (("b", 2), ("c", 3), ("d", 4))]
    assert [w.request.key for w in done] == ["b", "c", "d"]
    assert all(same(a, b) for a, b in zip(done, alone, strict=True))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (ask(*range(60), *range(60), n=9), "prompt of 120 tokens and max_tokens=9 are over the window of 128"),
        (ask(n=4), "prompt of 0 tokens"),
        (ask(1, n=0), "max_tokens=0"),
        (ask(1, 64), "token 64 is none of the model's 64 words"),
        (ask(1, draft=2, prediction=(3, -1)), "token -1 is none of the model's 64 words"),
    ],
    ids=["too long", "no prompt", "nothing to write", "no such word", "no such word predicted"],
)
def test_a_request_that_can_never_fit_is_refused_with_the_remedy(request_: Request, message: str, tiny: Tiny) -> None:
    engine = new_engine(tiny())
    with pytest.raises(UserError, match=message):
        engine.submit(request_)
    assert engine.idle


def test_a_stop_text_without_a_way_to_read_tokens_is_refused(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="does not do stop"):
        NativeEngine(tiny(), EOS, n_slots=1, window=128).submit(ask(5, 9, stop=("A",)))


def test_a_request_that_just_fits_is_written_to_the_window_s_end(tiny: Tiny) -> None:
    model = tiny()
    (written,) = write(model, ask(*range(60), *range(60), n=8, temperature=0.0))
    assert written.tokens == full_logprobs(model, written).argmax(-1).tolist()
