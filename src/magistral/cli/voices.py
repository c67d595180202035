"""From a model's name to a voice that a benchmark can ask: a model on this machine, or one behind an endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from magistral.cli.served import endpoint, load_served, trained_prompt
from magistral.cli.wiring import progress
from magistral.errors import UserError
from magistral.eval.measure import Voice

if TYPE_CHECKING:
    from magistral.engines.http import Endpoint
    from magistral.recipe import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What a model is asked with; none of it changes what a number means."""

    engine: Literal["native", "llamacpp"] = "native"
    weights: Literal["float32", "int8"] = "int8"
    window: int | None = None
    n_slots: int = 32
    threads: int = 1
    prices: tuple[float, float] | None = None
    """Of a million tokens, read and written."""
    budget: float | None = None
    """In the currency of `prices`."""


def prompt_of(model: str, version: str | None, system: str | None) -> Prompt:
    """`system`, else of a version of Magistral its prompt of training (which lets an answer be boxed), else a run's own."""
    from magistral.recipe import Prompt
    from magistral.text.versions import system_prompt, version_of

    found = version_of(version or "text")
    trained = trained_prompt(model)
    own = system_prompt(found, "train") if found.prompts else trained.system
    return Prompt(version=found.name, system=own if system is None else system, begin_thinking=trained.begin_thinking)


@contextmanager
def voice_of(model: str, prompt: Prompt, means: Means, *, longest: int) -> Iterator[Voice]:
    """`longest`: the most tokens that an answer may have. Raises UserError where the model cannot be had so."""
    found = endpoint(model)
    if found is None:
        if means.budget is not None:
            raise UserError("--budget goes with an endpoint: a model on this machine costs nothing")
        yield _here(model, prompt, means, longest)
        return
    voice = _elsewhere(found[1], prompt, means)
    try:
        yield voice
    finally:
        voice.engine.close()  # type: ignore[attr-defined]


def _elsewhere(place: Endpoint, prompt: Prompt, means: Means) -> Voice:
    from magistral.engines.http import Budget, HttpEngine
    from magistral.text.message import Message
    from magistral.text.trace import parse

    budget = None
    if means.budget is not None:
        if means.prices is None:
            raise UserError("--budget needs --price-in and --price-out: what a million tokens cost")
        budget = Budget(limit=means.budget, price_in=means.prices[0], price_out=means.prices[1])
    told = (Message(role="system", content=prompt.system),) if prompt.system else ()
    return Voice(
        engine=HttpEngine(place, budget=budget, n_parallel=means.n_slots), n_group=1, n_in_flight=2 * means.n_slots,
        words=lambda question: ((), (*told, Message(role="user", content=question))),
        read=lambda written: parse(written.text, place.marks),
    )  # fmt: skip


def _here(model: str, prompt: Prompt, means: Means, longest: int) -> Voice:
    import torch

    from magistral.flow import Problem
    from magistral.pipeline.growing import completion_of
    from magistral.text.stream import completion_parser
    from magistral.text.template import problem_tokens

    torch.set_num_threads(means.threads)
    with progress("eval: reading the model", 1) as advance:
        served = load_served(
            model, n_slots=means.n_slots, window=means.window, engine=means.engine, weights=means.weights, version=prompt.version
        )
        advance(1)
    if longest >= served.window:
        raise UserError(
            f"answers of {longest} tokens leave no room for a question in a window of {served.window}: "
            "lower --max-tokens or raise --window"
        )
    tokenizer, parser = served.tokenizer, completion_parser(served.tokenizer, begun=prompt.begin_thinking)
    nothing = Problem(id="", question="", reference="")
    return Voice(
        engine=served.engine, n_group=means.n_slots, n_in_flight=2 * means.n_slots,
        words=lambda question: (problem_tokens(tokenizer, prompt, question), ()),
        read=lambda written: parser(completion_of(written, nothing, 0, tokenizer.decode)),
    )  # fmt: skip
