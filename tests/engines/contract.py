"""What every engine must do, whatever is inside: a subclass names its harness, and all of it is run."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Protocol, cast

import numpy as np
import pytest

from magistral.engines.base import Begun, Engine, Request, Steerable, Written
from magistral.errors import UserError
from magistral.flow import Finish
from magistral.text.message import Message

PATIENCE_S = 30
OPTION_VALUES: list[tuple[str, Any]] = [
    ("top_k", 3), ("min_p", 0.1), ("stop", ("x",)), ("stop_tokens", (3,)), ("n_top", 2), ("mask", lambda: Only(4)), ("draft", 4),
    ("prediction", (1, 2, 3)),
]  # fmt: skip


class Only:
    """A mask that allows one token."""

    def __init__(self, token: int) -> None:
        self.token = token
        self.heard: list[int] = []

    def allowed(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.array([i == self.token for i in range(64)])

    def accept(self, token: int) -> None:
        self.heard.append(token)


class Harness(Protocol):
    """How to make the engine, and what it is able to: "tokens", "logprobs", "seeds", "load", "force", "places" (each place of a
    completion has its own random number, wherever the completion was begun), "decode", and any of base.OPTIONS."""

    able: frozenset[str]
    eos: int
    tolerance: float
    """Between log-probabilities of the same token, written alone and beside others."""

    def decode(self, tokens: Sequence[int]) -> str:
        """As an engine that finds stop texts in its own tokens reads them; the first of a completion has two letters or more."""

    def engine(self) -> Engine:
        """A window of 128 tokens, where it has one; completions that seldom end before 8 tokens."""

    def close(self, engine: Engine) -> None: ...

    def begin(self, engine: Engine) -> list[Written]:
        """Let it write some tokens; returns what is done by then."""

    def weights(self, version: int) -> dict[str, Any]:
        """New weights for it, others for each version."""


def finish(engine: Engine) -> list[Written]:
    """All that is in, by key and place."""
    done: list[Written] = []
    end = time.monotonic() + PATIENCE_S
    while not engine.idle:
        done += engine.step()
        assert time.monotonic() < end, "the engine never becomes idle"
    return sorted(done, key=lambda w: (str(w.request.key), w.index))


class Contract:
    """Subclasses give `harness`."""

    @pytest.fixture
    def harness(self) -> Harness:
        raise NotImplementedError

    @pytest.fixture
    def engine(self, harness: Harness) -> Iterator[Engine]:
        engine = harness.engine()
        yield engine
        harness.close(engine)

    @staticmethod
    def ask(harness: Harness, words: tuple[int, ...] = (5, 9, 2), *, key: Hashable = "a", **changes: Any) -> Request:
        """The prompt in tokens, or for an engine that is asked in text as a message."""
        text = " ".join(map(str, words))
        by_message = "messages" in harness.able
        settings: dict[str, Any] = {"seeds": (1,), "max_tokens": 8, "key": key, **changes}
        return Request(
            prompt=() if by_message else words, messages=(Message(role="user", content=text),) if by_message else (), **settings
        )

    def write(self, harness: Harness, *requests: Request) -> list[Written]:
        engine = harness.engine()
        for request in requests:
            engine.submit(request)
        done = finish(engine)
        harness.close(engine)
        return done

    def same(self, harness: Harness, one: Written, other: Written) -> bool:
        near = one.logprobs == pytest.approx(other.logprobs, abs=harness.tolerance)
        return near and (one.tokens, one.text, one.finish) == (other.tokens, other.text, other.finish)

    def test_a_new_engine_has_nothing_to_do(self, engine: Engine) -> None:
        assert engine.idle
        assert engine.step() == []

    def test_a_group_gets_a_completion_for_each_seed(self, harness: Harness, engine: Engine) -> None:
        request = self.ask(harness, seeds=(1, 2, 3), key=("problem", 7))
        engine.submit(request)
        assert not engine.idle
        group = finish(engine)
        assert [w.index for w in group] == [0, 1, 2]
        assert all(w.request.key == ("problem", 7) and w.finish in (Finish.STOP, Finish.LENGTH) for w in group)

    def test_several_requests_are_told_apart_by_their_keys(self, harness: Harness, engine: Engine) -> None:
        for key in ("a", "b", "c", "d", "e", "f"):
            engine.submit(self.ask(harness, seeds=(1, 2), key=key))
        assert [(w.request.key, w.index) for w in finish(engine)] == [(key, i) for key in "abcdef" for i in (0, 1)]

    def test_every_token_has_its_log_probability_and_its_version(self, harness: Harness, engine: Engine) -> None:
        engine.submit(self.ask(harness, seeds=(1, 2)))
        for written in finish(engine):
            if "tokens" in harness.able:
                assert 0 < len(written.tokens) <= 8
                assert written.versions == [0] * len(written.tokens)
            else:
                assert written.text
            if "logprobs" in harness.able:
                assert len(written.logprobs) == len(written.tokens)
                assert all(logprob <= 0 for logprob in written.logprobs)

    @pytest.mark.parametrize("n", [1, 5])
    def test_a_completion_ends_at_its_limit_or_with_the_end_token(self, n: int, harness: Harness, engine: Engine) -> None:
        if "tokens" not in harness.able:
            pytest.skip("this engine does not count tokens")
        engine.submit(self.ask(harness, seeds=(1, 2, 3), max_tokens=n))
        for written in finish(engine):
            ended = written.tokens[-1] == harness.eos
            assert written.finish is (Finish.STOP if ended else Finish.LENGTH)
            assert len(written.tokens) <= n if ended else len(written.tokens) == n
            assert harness.eos not in written.tokens[:-1]

    def test_a_seed_gives_the_same_completion_whatever_is_beside_it(self, harness: Harness) -> None:
        if "seeds" not in harness.able:
            pytest.skip("this engine promises nothing of seeds")
        (alone,) = self.write(harness, self.ask(harness, seeds=(11,)))
        beside = [
            self.ask(harness, (7,), seeds=(1, 2), key="x", max_tokens=3),
            self.ask(harness, (1, 2, 3, 4), seeds=(3,), key="y"),
        ]
        assert self.same(harness, self.write(harness, *beside, self.ask(harness, seeds=(11,), key="a"))[0], alone)
        others = self.write(harness, self.ask(harness, seeds=tuple(range(20, 24))))
        assert any((w.tokens, w.text) != (alone.tokens, alone.text) for w in others)

    def test_what_is_cancelled_gives_nothing_more_and_the_rest_is_as_if_alone(self, harness: Harness, engine: Engine) -> None:
        (alone,) = self.write(harness, self.ask(harness, key="kept"))
        for key in ("gone", "kept", "gone too"):
            engine.submit(self.ask(harness, seeds=(1,), key=key))
        engine.cancel("gone too")
        early = [w for w in engine.step() if w.request.key == "kept"]
        engine.cancel("gone")
        engine.cancel("never asked")
        done = early + [w for w in finish(engine) if w.request.key != "gone"]
        assert [w.request.key for w in done] == ["kept"]
        assert self.same(harness, done[0], alone)
        assert engine.idle

    def test_a_key_may_be_asked_again_after_it_was_cancelled(self, harness: Harness, engine: Engine) -> None:
        engine.submit(self.ask(harness))
        engine.cancel("a")
        assert engine.idle
        engine.submit(self.ask(harness))
        assert len(finish(engine)) == 1

    def test_new_weights_in_mid_completion_lose_nothing_and_say_which_token_is_theirs(
        self, harness: Harness, engine: Engine
    ) -> None:
        if "load" not in harness.able:
            with pytest.raises(UserError, match="takes no weights"):
                engine.load(harness.weights(1), 1)
            return
        engine.submit(self.ask(harness, seeds=(1, 2, 3), max_tokens=100, key="long"))
        engine.submit(self.ask(harness, seeds=(1,), max_tokens=100, key="longer"))
        done = harness.begin(engine)
        engine.load(harness.weights(1), 1)
        assert engine.version == 1
        done += finish(engine)
        engine.submit(self.ask(harness, key="new"))
        (new,) = finish(engine)
        assert len(done) == 4
        assert all(w.versions == sorted(w.versions) and set(w.versions) <= {0, 1} for w in done)
        assert all(len(w.versions) == len(w.tokens) for w in done)
        assert any(0 in w.versions for w in done)
        assert any(1 in w.versions for w in done)
        assert set(new.versions) == {1}

    @pytest.mark.parametrize("changes", [{"max_tokens": 0}, {"seeds": ()}], ids=["no room for an answer", "nobody"])
    def test_a_request_for_nothing_is_an_error(self, changes: dict[str, Any], harness: Harness, engine: Engine) -> None:
        with pytest.raises(UserError, match="at least 1"):
            engine.submit(self.ask(harness, **changes))
        assert engine.idle

    def test_a_request_over_the_window_is_an_error_and_not_cut(self, harness: Harness, engine: Engine) -> None:
        if "messages" in harness.able:
            pytest.skip("the window is the endpoint's")
        with pytest.raises(UserError, match="over the window of 128"):
            engine.submit(self.ask(harness, (1,) * 100, max_tokens=29))
        engine.submit(self.ask(harness, (1,) * 100, max_tokens=28))
        assert len(finish(engine)) == 1

    @pytest.mark.parametrize(("option", "value"), OPTION_VALUES)
    def test_an_option_is_done_or_refused_and_never_dropped(
        self, option: str, value: Any, harness: Harness, engine: Engine
    ) -> None:
        request = self.ask(harness, **{option: value})
        if option not in harness.able:
            with pytest.raises(UserError, match=f"does not do {option}"):
                engine.submit(request)
            assert engine.idle
            return
        engine.submit(request)
        (written,) = finish(engine)
        if option == "n_top":
            assert len(written.top) == len(written.tokens)
            assert all(0 < len(top) <= 2 for top in written.top)
        if option == "mask":
            assert written.tokens == [4] * 8
            assert written.logprobs == pytest.approx([0.0] * 8)

    @pytest.mark.parametrize("n", [1, 3])
    def test_a_stop_text_may_end_inside_a_token(self, n: int, harness: Harness, engine: Engine) -> None:
        if "decode" not in harness.able:
            pytest.skip("this engine does not look for stop texts itself")
        (free,) = self.write(harness, self.ask(harness))
        stop = harness.decode(free.tokens[:n])[:-1]
        engine.submit(self.ask(harness, stop=("never said", stop)))
        (written,) = finish(engine)
        first = next(i for i in range(1, n + 1) if stop in harness.decode(free.tokens[:i]))
        assert written.tokens == free.tokens[:first]
        assert written.finish is Finish.STOP

    @pytest.mark.parametrize(
        "changes",
        [
            {"temperature": math.nan}, {"temperature": -0.1}, {"temperature": math.inf}, {"top_p": 0.0}, {"top_p": 1.1},
            {"top_p": math.nan}, {"top_k": -1}, {"min_p": -0.1}, {"min_p": 1.1}, {"n_top": -1}, {"draft": -1}, {"seeds": (1, -1)},
            {"stop": ("",)},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_no_distribution_has_is_refused_before_it_can_fail_beside_others(
        self, changes: dict[str, Any], harness: Harness, engine: Engine
    ) -> None:
        (name,) = changes
        with pytest.raises(UserError, match=f"{name}=|does not do {name}"):
            engine.submit(self.ask(harness, **changes))
        assert engine.idle

    def test_what_another_engine_began_is_gone_on_with(self, harness: Harness, engine: Engine) -> None:
        if "begun" not in harness.able:
            with pytest.raises(UserError, match="does not do begun"):
                engine.submit(self.ask(harness, begun=(Begun(),)))
            return
        whole = self.write(harness, self.ask(harness, seeds=(1, 2, 3)))
        halves = [Begun(tokens=tuple(w.tokens[:n]), logprobs=tuple(w.logprobs[:n]), versions=(0,) * n) for w, n in
                  zip(whole, (len(whole[0].tokens), 2, 0), strict=True)]  # fmt: skip
        engine.submit(self.ask(harness, seeds=(1, 2, 3), begun=tuple(halves)))
        done = finish(engine)
        assert [w.tokens[: len(h.tokens)] for w, h in zip(done, halves, strict=True)] == [list(h.tokens) for h in halves]
        assert all(w.finish and len(w.tokens) == len(w.logprobs) == len(w.versions) <= 8 for w in done)
        for one, other in zip(done, whole, strict=True):
            assert self.same(harness, one, other) or ("places" not in harness.able and one.index == 1)

    def test_forced_tokens_come_next_and_the_rest_goes_on_by_its_places(self, harness: Harness, engine: Engine) -> None:
        if "force" not in harness.able:
            pytest.skip("this engine cannot be told what to write")
        steerable = cast(Steerable, engine)
        alone = self.write(harness, self.ask(harness, seeds=(1, 2), max_tokens=9))
        engine.submit(self.ask(harness, seeds=(1, 2), max_tokens=9))
        while not steerable.partial() or len(steerable.partial()[1].tokens) < 2:
            engine.step()
        at = len(steerable.partial()[1].tokens)
        steerable.force("a", 1, (7, 3, 7))
        one, other = finish(engine)
        assert self.same(harness, one, alone[0])
        assert other.tokens[:at] == alone[1].tokens[:at]
        assert other.tokens[at : at + 3] == [7, 3, 7]
        assert other.forced == [at, at + 1, at + 2]
        assert len(other.tokens) == len(other.logprobs) == len(other.versions) <= 9
        with pytest.raises(UserError, match="nothing to force: completion 1 of request 'a'"):
            steerable.force("a", 1, (7,))

    def test_what_waits_can_be_forced_and_the_limit_holds(self, harness: Harness, engine: Engine) -> None:
        if "force" not in harness.able:
            pytest.skip("this engine cannot be told what to write")
        engine.submit(self.ask(harness, max_tokens=4))
        cast(Steerable, engine).force("a", 0, (7, 3, 7, 3, 7, 3))
        (written,) = finish(engine)
        assert written.tokens == [7, 3, 7, 3]
        assert written.finish is Finish.LENGTH

    def test_one_completion_of_a_group_can_be_cancelled(self, harness: Harness, engine: Engine) -> None:
        if "force" not in harness.able:
            pytest.skip("this engine does not tell a group's completions apart")
        alone = self.write(harness, self.ask(harness, seeds=(1, 2, 3)))
        engine.submit(self.ask(harness, seeds=(1, 2, 3)))
        done = engine.step()
        cast(Steerable, engine).cancel("a", 1)
        done += finish(engine)
        assert [w.index for w in done] == [0, 2]
        assert self.same(harness, done[0], alone[0])
        assert self.same(harness, done[1], alone[2])
