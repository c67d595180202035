"""Micro-batches: which sequence goes where, and that packing changes no number."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from magistral.models.transformer import Masked, Transformer
from magistral.trainer.collate import Item, MicroBatch, collate

P, Q, R, S, U = ((n,) for n in (40, 41, 42, 43, 44))
"""Prompts of one token."""


def item(name: int, prompt: tuple[int, ...], n: int) -> Item:
    """Lays down its prompt and n - 1 tokens: the last one predicts nothing."""
    return Item(prompt=prompt, tokens=(name,) * n, weight=1.0)


def names(micro: MicroBatch) -> list[int]:
    """In the order in which they lie."""
    return list(dict.fromkeys(micro.target_N.tolist()))


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], []),
        ([item(1, P, 10)], [[1]]),
        ([item(1, P, 20)], [[1]]),
        ([item(1, P, 2), item(2, Q, 5)], [[2, 1]]),
        ([item(1, P, 4), item(2, Q, 4), item(3, R, 4)], [[1, 2], [3]]),
        ([item(1, P, 7), item(2, Q, 6), item(3, R, 3), item(4, S, 2), item(5, U, 2)], [[1, 3], [2, 4, 5]]),
        ([item(1, P, 6), item(2, P, 5), item(3, Q, 2)], [[1, 2], [3]]),
        ([item(1, P, 9), item(2, Q, 7), item(3, Q, 1)], [[1], [2, 3]]),
        ([item(1, P, 9), item(1, P, 4), item(2, Q, 8)], [[1], [2]]),
    ],
    ids=[
        "nothing", "exactly full", "one over the limit has its own", "the longest first", "equal lengths keep their order",
        "the first with room", "a shared prompt counts once", "where it adds the least comes before the first",
        "a shared beginning of completions counts once",
    ],
)  # fmt: skip
def test_the_greedy_order(items: list[Item], expected: list[list[int]]) -> None:
    assert [names(micro) for micro in collate(items, 10)] == expected


def test_a_shared_beginning_lies_there_once_and_each_place_predicts_its_next() -> None:
    a = Item(prompt=(7, 8), tokens=(1, 2, 3), weight=0.5, advantage=2.0, logprobs=(-0.1, -0.2, -0.3))
    b = Item(prompt=(7, 8), tokens=(1, 5), weight=0.25, advantage=-1.0, logprobs=(-0.4, -0.5))
    c = Item(prompt=(7, 9), tokens=(6,), weight=1.0)
    (micro,) = collate([a, b, c], 100)
    assert micro.tokens_T.tolist() == [7, 8, 1, 2, 9]
    assert micro.positions_T.tolist() == [0, 1, 2, 3, 1]
    assert micro.source_S.tolist() == [1, 2, 3, 4]
    assert micro.row_N.tolist() == [0, 1, 2, 0, 1, 3]
    assert micro.target_N.tolist() == [1, 2, 3, 1, 5, 6]
    assert micro.sampled_logp_N.tolist() == pytest.approx([-0.1, -0.2, -0.3, -0.4, -0.5, 0.0])
    assert micro.advantage_N.tolist() == [2, 2, 2, -1, -1, 0]
    assert micro.weight_N.tolist() == [0.5, 0.5, 0.5, 0.25, 0.25, 1]


def test_a_token_sees_its_ancestors_and_itself_and_never_another_branch() -> None:
    items = [Item(prompt=p, tokens=(*t, 0), weight=1.0) for p, t in (((7, 8), (1, 2)), ((7, 8), (1, 3)), ((9,), (4,)))]
    (micro,) = collate(items, 100)
    rows = ["".join("x" if seen else "." for seen in row) for row in micro.mask_TT.tolist()]
    assert rows == [
        "x......",  # 7
        "xx.....",  # 8
        "xxx....",  # 1
        "xxxx...",  # 2
        "xxx.x..",  # 3: not 2
        ".....x.",  # 9: nothing of the first prompt
        ".....xx",  # 4
    ]


@pytest.mark.parametrize("limit", [1, 12, 1000])
def test_packed_log_probabilities_equal_those_of_separate_passes(limit: int, tiny: Callable[..., Transformer]) -> None:
    model = tiny()
    first = tuple(range(10, 18))
    sequences = [((5, 9, 2), first), ((5, 9, 2), (*first[:4], 3, 4)), ((5, 9, 2), first[:4]), ((30,), first), ((5, 9), (2, 7))]
    items = [Item(prompt=p, tokens=t, weight=float(i)) for i, (p, t) in enumerate(sequences)]
    with torch.no_grad():
        found: dict[float, list[float]] = {}
        for micro in collate(items, limit):
            hidden = model(micro.tokens_T[None], micro.positions_T[None], Masked(micro.mask_TT[None, None]))
            logp = model.lm_head(hidden[0, micro.source_S]).log_softmax(-1)[micro.row_N, micro.target_N]
            for name, value in zip(micro.weight_N.tolist(), logp.tolist(), strict=True):
                found.setdefault(name, []).append(value)
        for one in items:
            tokens = torch.tensor([[*one.prompt, *one.tokens]])
            logits = model.lm_head(model(tokens, torch.arange(tokens.shape[1])[None], Masked()))[0, len(one.prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(-1, torch.tensor(one.tokens)[:, None])[:, 0]
            assert found.pop(one.weight) == pytest.approx(expected.tolist(), abs=1e-5)
    assert found == {}
