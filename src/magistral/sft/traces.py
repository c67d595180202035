"""Traces to learn from, each checked by the same scorer that RL is paid by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from magistral.errors import RecipeError
from magistral.flow import Completion, Finish, Outcome, Problem, Scored
from magistral.text.message import marked_tokens
from magistral.text.tokens import Tokenizer


@dataclass(frozen=True, slots=True)
class CheckedTrace:
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    """The completion, its end-of-sequence token included."""


def checked_traces(
    problems: Iterable[Problem],
    solve: Callable[[Problem], str | None],
    score: Callable[[Completion], Scored],
    prompt_of: Callable[[Problem], tuple[int, ...]],
    tokenizer: Tokenizer,
    *,
    n: int,
) -> list[CheckedTrace]:
    """The first `n` problems that `solve` can solve, well formed and right. Raises RecipeError if there are fewer."""
    kept: list[CheckedTrace] = []
    for problem in problems:
        text = solve(problem)
        if text is None:
            continue
        tokens = (*marked_tokens(tokenizer, text), tokenizer.eos)
        completion = Completion(
            problem=problem, group=0, index=0, seed=0, prompt_tokens=prompt_of(problem), tokens=tokens,
            logprobs=(0.0,) * len(tokens), versions=(0,) * len(tokens), text=text, finish=Finish.STOP,
        )  # fmt: skip
        if score(completion).verdict.outcome is Outcome.RIGHT:
            kept.append(CheckedTrace(completion.prompt_tokens, tokens))
        if len(kept) == n:
            return kept
    raise RecipeError(
        f"sft.n_traces={n}, but only {len(kept)} problems have a worked solution that checks: lower it or raise problems.n_train"
    )


def require_fit(traces: Sequence[CheckedTrace], window: int) -> None:
    longest = max(len(t.prompt) + len(t.tokens) for t in traces)
    if longest > window:
        raise RecipeError(f"a trace has {longest} tokens with its prompt, over model.window={window}: raise the window")
