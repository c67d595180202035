"""What is held of prompts and completions: kept prompts, long prompts in parts, a cache that is full."""

from __future__ import annotations

from collections.abc import Hashable

import pytest
import torch

from magistral.engines.base import Written
from magistral.engines.native import engine as native
from magistral.engines.native.prefixes import BLOCK, Prefixes
from magistral.errors import UserError
from tests.engines.native import Tiny, ask, count_tokens, finish, new_engine, same, write

PROMPT = tuple(i % 60 for i in range(80))


@pytest.mark.parametrize(
    ("prompt", "n_cached"),
    [
        (PROMPT, 79),
        (PROMPT[:-1], 64),
        ((*PROMPT, 3), 80),
        ((*PROMPT, 3, 4), 64),
        ((*PROMPT[:70], 61, 62), 64),
        ((*PROMPT[:32], 61), 32),
        ((*PROMPT[:31], 61), 0),
        (PROMPT[1:], 0),
    ],
    ids=[
        "the same",
        "shorter",
        "one longer",
        "two longer",
        "parts in the third block",
        "the first block",
        "less than a block",
        "shifted",
    ],
)  # fmt: skip
def test_a_later_request_takes_over_the_blocks_that_it_begins_with(prompt: tuple[int, ...], n_cached: int, tiny: Tiny) -> None:
    model = tiny()
    engine = new_engine(model)
    engine.submit(ask(*PROMPT, n=1))
    finish(engine)
    engine.submit(ask(*prompt, seeds=(3, 4)))
    one, other = finish(engine)
    assert one.n_cached == n_cached
    assert [same(w, v) for w, v in zip((one, other), write(model, ask(*prompt, seeds=(3, 4)), prefix_mb=0), strict=True)] == [
        True,
        True,
    ]


def test_what_was_written_can_be_gone_on_from(tiny: Tiny) -> None:
    engine = new_engine(tiny())
    engine.submit(ask(*PROMPT[:20], n=60))
    (written,) = finish(engine)
    engine.submit(ask(*PROMPT[:20], *written.tokens, 7))
    assert finish(engine)[0].n_cached >= 64


def test_prompts_that_begin_alike_and_come_together_are_read_once(tiny: Tiny) -> None:
    model, engine = tiny(), new_engine(tiny(), n_slots=6)
    requests = [ask(*PROMPT[:40], i, i, seeds=(1, 2), key=str(i)) for i in range(3)]
    n_read = count_tokens(engine)
    for request in requests:
        engine.submit(request)
    done = finish(engine)
    assert n_read[:3] == [42, 1 + 1 + 2 * 2, 6], "all of the first; then what the others have of their own; then all write"
    assert [w.n_cached for w in done] == [0, 41, 40, 41, 40, 41]
    assert all(same(w, v) for w, v in zip(done, [w for r in requests for w in write(model, r)], strict=True))


@pytest.mark.parametrize(("n_slots", "n"), [(16, 1), (16, 3), (4, 1), (4, 3)])
def test_a_group_s_prompt_is_read_once_also_where_none_is_kept(n_slots: int, n: int, tiny: Tiny) -> None:
    model, request = tiny(), ask(*PROMPT, seeds=tuple(range(16)), n=n)
    engine = new_engine(model, n_slots=n_slots, prefix_mb=0, eos=-1)
    n_read = count_tokens(engine)
    engine.submit(request)
    done = finish(engine)
    assert sum(n_read) == 80 + 15 + 16 * (n - 1), "the prompt, its last token for each other one, and what they write"
    assert [w.n_cached for w in done] == [0] + [79] * 15
    assert all(same(w, v) for w, v in zip(done, write(model, request, eos=-1), strict=True))


@pytest.mark.parametrize("prefix_mb", [1, 0])
def test_requests_that_wait_together_with_one_prompt_read_it_once(prefix_mb: int, tiny: Tiny) -> None:
    engine = new_engine(tiny(), prefix_mb=prefix_mb)
    engine.submit(ask(*PROMPT[:32], n=1))
    finish(engine)
    n_read = count_tokens(engine)
    for i in range(4):
        engine.submit(ask(*PROMPT, seeds=(i,), n=1, key=str(i)))
    done = finish(engine)
    n_kept = 32 if prefix_mb else 0
    assert [w.n_cached for w in done] == [n_kept, 79, 79, 79]
    assert n_read == [80 - n_kept, 3]


def test_requests_that_differ_after_what_is_kept_do_not_wait_for_each_other(tiny: Tiny) -> None:
    engine = new_engine(tiny())
    engine.submit(ask(*PROMPT[:32], n=1))
    finish(engine)
    n_read = count_tokens(engine)
    for i in range(4):
        engine.submit(ask(*PROMPT[:32], 9, *[i] * 40, n=1, key=str(i)))
    assert len(finish(engine)) == 4
    assert n_read == [4 * 41]


def test_where_the_one_that_reads_is_cancelled_another_of_its_group_reads(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, request = tiny(), ask(*PROMPT, seeds=(1, 2, 3))
    alone = write(model, request)
    monkeypatch.setattr(native, "WHOLE", 32)
    engine = new_engine(model, prefix_mb=0)
    engine.submit(request)
    engine.step()
    engine.cancel("", 0)
    assert all(same(w, v) for w, v in zip(finish(engine), alone[1:], strict=True))


def test_new_weights_forget_what_the_old_ones_read(tiny: Tiny) -> None:
    old, new = tiny(seed=1), tiny(seed=2)
    engine = new_engine(old)
    engine.submit(ask(*PROMPT, n=9, key="old"))
    engine.step()
    engine.load(dict(new.named_parameters()), version=1)
    finish(engine)
    engine.submit(ask(*PROMPT))
    (written,) = finish(engine)
    assert written.n_cached == 0
    assert same(written, write(new, ask(*PROMPT))[0])


def test_what_was_taken_over_just_before_new_weights_is_read_by_them(tiny: Tiny) -> None:
    new, request = tiny(seed=2), ask(*PROMPT, seeds=(1, 2), n=1)
    engine = new_engine(tiny(seed=1), prefix_mb=0)
    engine.submit(request)
    engine.step()  # the first is done, and the second has its prompt
    engine.load(dict(new.named_parameters()), version=1)
    (second,) = finish(engine)
    assert (second.versions, second.n_cached) == ([1], 0)
    assert same(second, write(new, request)[1])


def test_a_long_prompt_does_not_stall_what_is_being_written(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PART", 16)
    model, engine = tiny(), new_engine(tiny())
    engine.submit(ask(5, 9, n=20, key="a"))
    engine.step()
    engine.submit(ask(*PROMPT, n=5, key="b"))
    lengths = []
    for _ in range(5):
        engine.step()
        lengths.append([len(w.tokens) for w in engine.partial()])
    assert lengths == [[2, 0], [3, 0], [4, 0], [5, 0], [6, 1]], "80 tokens in five parts, beside a token in every step"
    short, long = finish(engine)
    assert same(short, write(model, ask(5, 9, n=20))[0])
    assert same(long, write(model, ask(*PROMPT, n=5))[0])


def test_a_prompt_longer_than_a_step_reads_is_read_in_several(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    (whole,) = write(model, ask(*PROMPT, n=5))
    monkeypatch.setattr(native, "WHOLE", 32)
    engine = new_engine(tiny())
    engine.submit(ask(*PROMPT, n=5))
    for n_written in (0, 0, 1):
        engine.step()
        assert len(engine.partial()[0].tokens) == n_written
    assert same(finish(engine)[0], whole)


def small_cache_mb(model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, n_places: int) -> int:
    """A cache of 1 MB that holds so many places."""
    monkeypatch.setattr(native, "place_bytes", lambda sizes: 2**20 // n_places)
    return 1


def test_where_the_cache_is_full_the_youngest_wait_and_their_tokens_stay(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    requests = [ask(*PROMPT[: 10 + i], seeds=(i,), n=100, key=str(i)) for i in range(4)]
    engine = new_engine(model, eos=-1, cache_mb=small_cache_mb(model, monkeypatch, 256), prefix_mb=0)
    for request in requests:
        engine.submit(request)
    n_in: list[int] = []
    before: dict[Hashable, list[int]] = {}
    done: list[Written] = []
    while not engine.idle:
        done += engine.step()
        n_in.append(len(engine.partial()))
        now = {w.request.key: list(w.tokens) for w in [*done, *engine.partial()]}
        assert all(tokens == now.get(key, tokens)[: len(tokens)] for key, tokens in before.items())
        before |= now
    assert (n_in[20], n_in[80], n_in[120]) == (4, 2, 2), "four rows of 64 places, then two of 128"
    done.sort(key=lambda w: str(w.request.key))
    alone = [w for r in requests for w in write(model, r, eos=-1)]
    assert all(same(a, b) for a, b in zip(done, alone, strict=True))


def test_a_cache_that_does_not_hold_one_window_is_an_error_with_the_remedy(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny()
    mb = small_cache_mb(model, monkeypatch, 100)
    with pytest.raises(UserError, match="cache_mb=1 holds 100 tokens, and one completion may have 128: raise cache_mb to 2"):
        new_engine(model, cache_mb=mb)


def test_prefixes_forget_what_was_used_longest_ago() -> None:
    kept = Prefixes(3 * BLOCK)
    numbers = torch.arange(4 * BLOCK).float().view(1, 1, -1, 1)
    one, other = [1] * 2 * BLOCK, [2] * BLOCK
    kept.put(one, numbers, -numbers)
    kept.put(other, numbers, -numbers)
    assert [block.keys.flatten()[0] for block in kept.get(one)] == [0, BLOCK]
    kept.put([3] * BLOCK, numbers, -numbers)
    assert (len(kept.get(one)), len(kept.get(other)), len(kept.get([3] * BLOCK))) == (2, 0, 1)
    kept.put([4] * BLOCK, numbers, -numbers)
    assert len(kept.get(one)) == 1, "its end goes before its beginning"
    assert kept.n_held == 3 * BLOCK
    kept.put([5] * 4 * BLOCK, numbers, -numbers)
    assert not kept.get([5] * 4 * BLOCK), "larger than all that may be kept"
    kept.clear()
    assert (kept.n_held, len(kept)) == (0, 0)
