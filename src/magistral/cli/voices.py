"""From a model's name to a voice that a benchmark can ask: a model on this machine, or one behind an endpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from magistral.cli.served import Means, endpoint, make_engine, trained_prompt
from magistral.cli.wiring import progress
from magistral.errors import UserError
from magistral.eval.measure import Voice
from magistral.eval.protocol import AS_STORED, How

if TYPE_CHECKING:
    from magistral.engines.base import Counted, Written
    from magistral.engines.http import Endpoint
    from magistral.recipe import Prompt


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
    own_system = prompt.system == prompt_of(model, prompt.version, None).system
    if found is None:
        if means.budget is not None:
            raise UserError("--budget goes with an endpoint: a model on this machine costs nothing")
        voice = _here(model, prompt, means, longest)
        yield replace(voice, how=How(weights=weights_form(model, means), own_system=own_system))
        return
    voice = replace(_elsewhere(found[1], prompt, means), how=How(own_system=own_system))
    try:
        yield voice
    finally:
        voice.close()


def weights_form(model: str, means: Means) -> str:
    """As `How` has it."""
    from magistral.models.find import model_path
    from magistral.weights.kinds import FLOATS
    from magistral.weights.read import open_weights

    path = model_path(model)
    stored = {t.kind for t in open_weights(path).tensors.values()} - set(FLOATS) if path.suffix == ".gguf" else set()
    computed = [means.weights] if means.engine == "native" else []
    return ", ".join([*sorted(stored), *computed]) or AS_STORED


def _elsewhere(place: Endpoint, prompt: Prompt, means: Means) -> Voice:
    from magistral.engines.http import Budget, HttpEngine, can_be_true
    from magistral.text.message import Message
    from magistral.text.trace import parse

    budget = None
    if means.budget is not None:
        if means.prices is None:
            raise UserError("--budget needs --price-in and --price-out: what a million tokens cost")
        budget = Budget(limit=means.budget, price_in=means.prices[0], price_out=means.prices[1])
    told = (Message(role="system", content=prompt.system),) if prompt.system else ()

    def believed(written: Written) -> Counted | None:
        said = written.counted
        return said if said and can_be_true(said, len(written.text), written.request.max_tokens) else None

    engine = HttpEngine(place, budget=budget, n_parallel=means.n_slots)
    return Voice(
        engine=engine, meter=budget, close=engine.close, n_group=1, n_in_flight=2 * means.n_slots,
        words=lambda question: ((), (*told, Message(role="user", content=question))),
        read=lambda written: parse(written.text, place.marks), count=believed,
    )  # fmt: skip


def _here(model: str, prompt: Prompt, means: Means, longest: int) -> Voice:
    from magistral.flow import Problem
    from magistral.pipeline.growing import completion_of
    from magistral.text.stream import completion_parser
    from magistral.text.template import problem_tokens

    with progress("eval: reading the model", 1) as advance:
        engine, facts = make_engine(model, means, prompt.version)
        advance(1)
    if longest >= facts.window:
        raise UserError(
            f"answers of {longest} tokens leave no room for a question in a window of {facts.window}: "
            "lower --max-tokens or raise --window"
        )
    tokenizer, parser = facts.tokenizer, completion_parser(facts.tokenizer, begun=prompt.begin_thinking)
    nothing = Problem(id="", question="", reference="")
    return Voice(
        engine=engine, n_group=means.n_slots, n_in_flight=2 * means.n_slots,
        words=lambda question: (problem_tokens(tokenizer, prompt, question), ()),
        read=lambda written: parser(completion_of(written, nothing, 0, tokenizer.decode)),
    )  # fmt: skip
