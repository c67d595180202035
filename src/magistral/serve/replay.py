"""Writing an audited request again, alone, and finding the first token that differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from magistral.engines.base import Request
from magistral.serve.steering import ServingEngine, Steerable


@dataclass(frozen=True, kw_only=True)
class Replayed:
    completion: int
    n: int
    """Tokens that were drawn, and drawn again; what the server put in is not drawn."""
    differs_at: int | None
    """Place of the first that differs, from the completion's start; None: all are the same."""


def replay(engine: ServingEngine, entry: dict[str, Any], tokens: dict[str, Any]) -> list[Replayed]:
    """Of every completion of one entry. Exact where the engine's arithmetic does not depend on how many rows are written at once;
    where it does, a draw that is as close as the rounding may turn."""
    prompt = tokens["prompt"]
    pairs = zip(entry["completions"], tokens["completions"], strict=True)
    return [_one(engine, i, prompt, entry, said | {"tokens": written}) for i, (said, written) in enumerate(pairs)]


def _one(engine: ServingEngine, i: int, prompt: Sequence[int], entry: dict[str, Any], said: dict[str, Any]) -> Replayed:
    n = 0
    for part in said["parts"]:
        before, wanted = said["tokens"][: part["at"]], said["tokens"][part["at"] : part["at"] + part["n"]]
        got = _write(
            engine, [*prompt, *before], part, entry, told={at: said["tokens"][at : at + n] for at, n in said.get("forced", ())}
        )
        same = next((j for j, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
        n += same
        if same < len(wanted):
            return Replayed(completion=i, n=n, differs_at=part["at"] + same)
    return Replayed(completion=i, n=n, differs_at=None)


def _write(
    engine: ServingEngine, prompt: Sequence[int], part: dict[str, Any], entry: dict[str, Any], *, told: dict[int, list[int]]
) -> list[int]:
    """`told`: what was put in, by its place in the completion."""
    if not part["n"]:
        return []
    request = Request(
        prompt=tuple(prompt),
        seeds=(part["seed"],),
        max_tokens=entry["max_tokens"] - part["at"],
        temperature=entry["temperature"],
        top_p=entry["top_p"],
        top_k=entry.get("top_k", 0),
        min_p=entry.get("min_p", 0.0),
        key="replay",
    )
    engine.submit(request)
    at = part["at"]
    while True:
        if at in told and isinstance(engine, Steerable):
            engine.force("replay", 0, told[at])
        done = engine.step()
        (written,) = done or engine.partial()
        at = part["at"] + len(written.tokens)
        if done or len(written.tokens) >= part["n"]:
            if not done:
                engine.cancel("replay")
            return written.tokens[: part["n"]]
