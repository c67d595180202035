"""Traces from files, as `magistral distill` writes them, and general instructions to mix in."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from magistral.errors import RecipeError, UserError
from magistral.recipe import Recipe
from magistral.sft.traces import CheckedTrace
from magistral.text.message import Message, Piece, pieces_tokens
from magistral.text.template import conversation_tokens
from magistral.text.tokens import Tokenizer


def stored_traces(recipe: Recipe, tokenizer: Tokenizer) -> list[CheckedTrace]:
    """At most sft.n_traces, drawn by the recipe's seed where there are more; thinking between the version's own marks.

    Those too long for the window are left out. Raises UserError naming file and line of what is no trace."""
    assert recipe.sft is not None
    paths = [path / "traces.jsonl" if path.is_dir() else path for path in map(Path, recipe.sft.traces)]
    system = [Message(role="system", content=recipe.prompt.system)] if recipe.prompt.system else []
    found = [
        trace
        for where, row in _rows(paths)
        if (trace := _trace([*system, *_messages_of_trace(row, where)], recipe, tokenizer)) is not None
    ]
    if not found:
        raise RecipeError(f"sft.traces: no trace in {', '.join(map(str, paths))} fits in model.window={recipe.model.window}")
    random.Random(f"{recipe.seed}/traces").shuffle(found)
    return found[: recipe.sft.n_traces]


def mixed(recipe: Recipe, tokenizer: Tokenizer, traces: list[CheckedTrace]) -> list[CheckedTrace]:
    """The traces with sft.general_share of general instructions among them, shuffled; as they are where no file is named."""
    assert recipe.sft is not None
    if not recipe.sft.general:
        return traces
    share = recipe.sft.general_share
    n = round(len(traces) * share / (1 - share))
    rows = _rows(map(Path, recipe.sft.general))
    found = (_trace(_messages(row, where), recipe, tokenizer) for where, row in rows)
    general = list(islice((trace for trace in found if trace is not None), n))
    if len(general) < n:
        raise RecipeError(f"sft.general holds {len(general)} conversations that fit, {n} are needed for general_share={share:g}")
    both = [*traces, *general]
    random.Random(f"{recipe.seed}/general").shuffle(both)
    return both


def _trace(messages: Sequence[Message], recipe: Recipe, tokenizer: Tokenizer) -> CheckedTrace | None:
    """A conversation of which the last message is learned; None where it is too long for the window."""
    *before, last = messages
    prompt = tuple(conversation_tokens(tokenizer, before))
    tokens = (*pieces_tokens(tokenizer, last), tokenizer.eos)
    return CheckedTrace(prompt, tokens) if len(prompt) + len(tokens) <= recipe.model.window else None


def _messages_of_trace(row: dict[str, Any], where: str) -> list[Message]:
    missing = [name for name in ("question", "thinking", "summary") if not isinstance(row.get(name), str)]
    if missing:
        raise UserError(f"{where}: no trace: {missing[0]!r} is missing")
    pieces: tuple[Piece, ...] = (("thinking", row["thinking"]), ("text", row["summary"]))
    return [Message(role="user", content=row["question"]), Message(role="assistant", content=pieces)]


def _messages(row: dict[str, Any], where: str) -> list[Message]:
    try:
        messages = [Message(role=m["role"], content=m["content"]) for m in row["messages"]]
    except (KeyError, TypeError):
        messages = []
    if len(messages) < 2 or messages[-1].role != "assistant" or not all(isinstance(m.content, str) for m in messages):
        raise UserError(
            f'{where}: a conversation is {{"messages": [{{"role": "user", "content": "…"}}, …]}} and ends with the assistant'
        )
    return messages


def _rows(paths: Iterator[Path] | Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in paths:
        try:
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise UserError(f"{path}:{number}: a line holds an object")
                    yield f"{path}:{number}", row
        except OSError as e:
            raise UserError(f"{path} cannot be read: {e.strerror}") from None
        except ValueError as e:
            raise UserError(f"{path}:{number}: no JSON: {e}") from None
