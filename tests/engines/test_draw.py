"""Drawing by inverting the cumulative distribution: every value worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from magistral.engines.base import Request
from magistral.engines.native.cut import _cut_sorted, cut
from magistral.engines.native.draw import draw, uniforms

QUARTERS = [0.5, 0.25, 0.25]


def terms(**changes: Any) -> Request:
    return Request(prompt=(1,), seeds=(0,), max_tokens=1, **changes)


def drawn(p: list[float], u: float, **changes: Any) -> tuple[int, float]:
    token, logprob, _ = draw(torch.tensor([p]).log(), torch.tensor([u]), [terms(**changes)])
    return int(token), float(logprob)


@pytest.mark.parametrize(
    ("p", "u", "token"),
    [
        (QUARTERS, 0.0, 0),
        (QUARTERS, 0.49, 0),
        (QUARTERS, 0.51, 1),
        (QUARTERS, 0.74, 1),
        (QUARTERS, 0.76, 2),
        (QUARTERS, 1 - 2**-24, 2),
        ([0.0, 0.5, 0.5, 0.0], 0.0, 1),
        ([0.0, 0.5, 0.5, 0.0], 1 - 2**-24, 2),
        ([0.0, 0.5, 0.5, 0.0], 1 - 2**-53, 2),
    ],
    ids=[
        "at 0", "below an edge", "over an edge", "below the next", "over the next", "near 1",
        "at 0, first token impossible", "near 1, last token impossible", "so near that float32 rounds it to 1",
    ],
)  # fmt: skip
def test_the_token_is_where_the_cumulative_distribution_passes_u(p: list[float], u: float, token: int) -> None:
    found, logprob = drawn(p, u)
    assert found == token
    assert logprob == pytest.approx(math.log(p[token]), abs=1e-6)


def test_temperature_sharpens_what_is_drawn_from_and_what_is_recorded() -> None:
    # at temperature 1/2 the chances are squared: 4/6, 1/6, 1/6
    assert drawn(QUARTERS, 0.66, temperature=0.5)[0] == 0
    token, logprob = drawn(QUARTERS, 0.67, temperature=0.5)
    assert token == 1
    assert logprob == pytest.approx(math.log(1 / 6), abs=1e-6)


def test_temperature_0_takes_the_likeliest_and_records_it_at_temperature_1() -> None:
    token, logprob = drawn([0.2, 0.5, 0.3], 0.99, temperature=0.0)
    assert token == 1
    assert logprob == pytest.approx(math.log(0.5), abs=1e-6)


@pytest.mark.parametrize(
    ("top_p", "nucleus"),
    [
        (0.3, {1: 1.0}),
        (0.41, {1: 4 / 7, 2: 3 / 7}),
        (0.69, {1: 4 / 7, 2: 3 / 7}),
        (0.71, {1: 4 / 9, 2: 3 / 9, 3: 2 / 9}),
        (1.0, {0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}),
    ],
    ids=["less than the likeliest", "just over the likeliest", "within two", "just over two", "all"],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_it(top_p: float, nucleus: dict[int, float]) -> None:
    found = dict(drawn([0.1, 0.4, 0.3, 0.2], u / 50, top_p=top_p) for u in range(50))
    assert found == {token: pytest.approx(math.log(p), abs=1e-6) for token, p in nucleus.items()}


@pytest.mark.parametrize(
    ("terms_", "kept"),
    [
        ({"top_k": 1}, {1: 1.0}),
        ({"top_k": 3}, {1: 4 / 9, 2: 3 / 9, 3: 2 / 9}),
        ({"top_k": 9}, {0: 0.1, 1: 0.4, 2: 0.3, 3: 0.2}),
        ({"min_p": 0.76}, {1: 1.0}),
        ({"min_p": 0.74}, {1: 4 / 7, 2: 3 / 7}),
        ({"top_k": 3, "top_p": 0.71, "min_p": 0.6}, {1: 4 / 7, 2: 3 / 7}),
    ],
    ids=["the likeliest", "three", "more than there are", "nearly as likely", "three quarters as likely", "all of them"],
)
def test_top_k_and_min_p_keep_the_likeliest(terms_: dict[str, Any], kept: dict[int, float]) -> None:
    found = dict(drawn([0.1, 0.4, 0.3, 0.2], u / 50, **terms_) for u in range(50))
    assert found == {token: pytest.approx(math.log(p), abs=1e-6) for token, p in kept.items()}


@pytest.mark.parametrize(("top_p", "n_kept"), [(0.2, 400), (0.9, 1800)], ids=["few", "most"])
def test_top_p_of_many_words_keeps_as_many_as_it_takes(top_p: float, n_kept: int) -> None:
    n = 2000
    u = (torch.arange(n) + 0.5) / n
    tokens, logprobs, p = draw(torch.zeros(n, n), u, [terms(top_p=top_p)] * n)
    assert (p > 0).sum(-1).tolist() == pytest.approx([n_kept] * n, abs=1)
    assert logprobs.exp().mean() == pytest.approx(1 / n_kept, rel=0.01)
    assert len(set(tokens.tolist())) == pytest.approx(n_kept, abs=1)


@pytest.mark.parametrize("spread", [0.0, 0.1, 3.0, 30.0], ids=lambda spread: f"logits within {spread}")
def test_counting_words_by_size_cuts_where_sorting_all_of_them_does(spread: float) -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(40, 3000, generator=random) * spread
    logits[:, ::7] = float("-inf")
    p = logits.softmax(-1)
    top_p, min_p = torch.rand(40, generator=random), torch.rand(40, generator=random) / 10
    top_k = torch.randint(1, 3000, (40,), generator=random)
    top_p[::4], min_p[::2], top_k[::3] = torch.inf, 0, 3000
    exact = _cut_sorted(p.double(), top_p[:, None], min_p[:, None], top_k[:, None])
    requests = [
        terms(top_p=min(1.0, x), min_p=y, top_k=z) for x, y, z in zip(top_p.tolist(), min_p.tolist(), top_k.tolist(), strict=True)
    ]
    found = cut(p.clone(), requests)
    same = (found > 0) == (exact >= 2.0**-129)  # what is less likely is not kept
    assert int((~same).sum(-1).max()) <= 1, "of words as likely as the last, either"
    assert torch.allclose(found, exact.float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    "changes", [{"top_p": 1e-46}, {"temperature": 1e-46}, {"temperature": 1e-46, "top_p": 0.5}, {"min_p": 1.0}]
)
def test_the_narrowest_terms_leave_the_likeliest_word(changes: dict[str, Any]) -> None:
    p = [0.1, 0.4, 0.3, 0.2]
    assert drawn(p, 0.99, **changes) == (1, 0.0)


def test_words_without_a_chance_are_not_put_in_order_and_stay_so() -> None:
    p = torch.zeros(1, 3000)
    p[0, [5, 6]] = torch.tensor([0.75, 0.25])
    assert cut(p, [terms(top_k=20)]).nonzero()[:, 1].tolist() == [5, 6]


def test_numbers_that_are_none_stay_none() -> None:
    p = torch.full((2, 300), 1 / 300)
    p[0, 5] = -torch.nan
    found = cut(p, [terms(top_p=0.5)] * 2)
    assert found[0].isnan().all()
    assert int((found[1] > 0).sum()) == 150


def test_each_row_keeps_its_own_temperature_and_top_p() -> None:
    logits = torch.tensor([QUARTERS] * 3).log()
    rows = [terms(), terms(temperature=0.0), terms(top_p=0.4)]
    tokens, logprobs, _ = draw(logits, torch.tensor([0.8, 0.8, 0.8]), rows)
    assert tokens.tolist() == [2, 0, 0]
    assert logprobs.exp().tolist() == pytest.approx([0.25, 0.5, 1.0])


def test_a_seed_is_one_stream_whatever_its_length() -> None:
    assert uniforms(7, 3) == uniforms(7, 5)[:3]
    assert uniforms(7, 3) != uniforms(8, 3)
    assert all(0 <= u < 1 for u in uniforms(7, 100))
    assert sum(uniforms(7, 1000)) / 1000 == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("n_words", [3, 256, 257, 1000])
def test_every_word_is_drawn_as_often_as_it_is_likely(n_words: int) -> None:
    p = torch.arange(n_words, dtype=torch.float32)  # word 0 is impossible
    n = 20_000
    u = (torch.arange(n) + 0.5) / n
    tokens, logprobs, _ = draw(p.log().expand(n, -1), u, [terms()] * n)
    counts = torch.bincount(tokens, minlength=n_words) / n
    assert float((counts - p / p.sum()).abs().max()) <= 2 / n
    assert torch.allclose(logprobs.exp(), (p / p.sum())[tokens], rtol=1e-4)
    assert tokens.tolist() == sorted(tokens.tolist())
