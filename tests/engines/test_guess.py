"""Guessing ahead: what is guessed, and that it changes nothing but the number of steps."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from magistral.engines.native.guess import Guesser
from tests.engines.native import Tiny, ask, finish, new_engine, same, write


@pytest.mark.parametrize(
    ("tokens", "prediction", "n", "guessed"),
    [
        ([1, 2, 3, 4, 5, 1, 2, 3], (), 2, [4, 5]),
        ([1, 2, 3, 4, 1, 2, 3, 5, 1, 2, 3], (), 2, [5, 1]),
        ([1, 2, 3], (), 2, []),
        ([1, 2, 3, 4, 2, 3], (), 2, []),
        ([7, 1, 2, 3], (1, 2, 3, 8, 9), 4, [8, 9]),
        ([1, 2, 3, 4, 1, 2, 3], (1, 2, 3, 8, 9), 1, [8]),
    ],
    ids=["what came after", "the last time", "for the first time", "too little alike", "from the prediction", "it goes first"],
)
def test_after_the_same_three_tokens_comes_what_came_before(
    tokens: list[int], prediction: tuple[int, ...], n: int, guessed: list[int]
) -> None:
    assert Guesser(0, prediction).guess(tokens, n) == guessed


def test_the_prediction_is_guessed_from_its_beginning() -> None:
    assert Guesser(2, (7, 8, 9)).guess([1, 2], 2) == [7, 8]


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_a_completion_is_the_same_with_guesses_as_without(temperature: float, tiny: Tiny) -> None:
    model = tiny()
    prompt = (5, 9, 2, 5, 9, 2, 5, 9, 2)
    for seed in range(8):
        (plain,) = write(model, ask(*prompt, seeds=(seed,), n=60, temperature=temperature))
        wrong_in_the_middle = tuple(token if i % 9 else 1 for i, token in enumerate(plain.tokens))
        for prediction in ((), tuple(plain.tokens), wrong_in_the_middle):
            request = ask(*prompt, seeds=(seed,), n=60, temperature=temperature, draft=4, prediction=prediction)
            (guessed,) = write(model, request)
            assert same(guessed, plain)
            assert 0 <= guessed.n_accepted <= guessed.n_drafted


def test_a_right_prediction_takes_fewer_steps(tiny: Tiny) -> None:
    model = tiny()
    (plain,) = write(model, ask(5, 9, n=41), eos=-1)
    engine = new_engine(model, eos=-1)
    engine.submit(ask(5, 9, n=41, draft=4, prediction=tuple(plain.tokens)))
    n_steps = 0
    while not engine.idle:
        done = engine.step()
        n_steps += 1
    assert same(done[0], plain)
    assert n_steps <= 1 + 41 // 5 + 1
    assert done[0].n_accepted >= 31


def test_guesses_beside_other_completions_change_neither(tiny: Tiny) -> None:
    model = tiny()
    requests = [ask(5, 9, i, seeds=(i, i + 9), n=30 + i, key=str(i), draft=3 * (i % 2)) for i in range(4)]
    alone = [w for r in requests for w in write(model, r)]
    assert all(same(a, b) for a, b in zip(write(model, *requests, n_slots=5), alone, strict=True))


def test_with_guesses_tokens_come_as_often_as_they_are_likely(tiny: Tiny) -> None:
    """Chi-squared over the second token, where the first was guessed right, wrong, or not at all."""
    model, n = tiny(n_words=8), 1200
    engine = new_engine(model, n_slots=100, eos=-1)
    seeds = tuple(range(n))
    with torch.no_grad():
        model.lm_head.weight.mul_(0.2)  # so that every word has a chance
    engine.load({"embed_tokens.weight": model.embed_tokens.weight}, version=0)
    engine.submit(ask(5, 6, seeds=seeds, n=2, draft=1, prediction=(3,)))
    pairs = Counter(tuple(w.tokens) for w in finish(engine))
    (one,) = write(model, ask(5, 6, n=1, n_top=8), eos=-1)
    expected: dict[tuple[int, ...], float] = {}
    for first, logp in one.top[0]:
        (two,) = write(model, ask(5, 6, first, n=1, n_top=8), eos=-1)
        expected |= {(first, second): n * float(torch.tensor(logp + logq).exp()) for second, logq in two.top[0]}
    rare = [pair for pair in expected if expected[pair] < 5]
    common = [pair for pair in expected if expected[pair] >= 5]
    cells = [(pairs[p], expected[p]) for p in common] + [(sum(pairs[p] for p in rare), sum(expected[p] for p in rare))]
    chi_squared = sum((seen - likely) ** 2 / likely for seen, likely in cells if likely)
    assert len(cells) > 20
    assert chi_squared < len(cells) + 4 * (2 * len(cells)) ** 0.5, "four standard deviations over the mean of chi-squared"
