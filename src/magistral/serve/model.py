"""A model that is served: its words, its marks, its window, and how a conversation becomes its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from magistral.errors import ModelError, UserError
from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Note, Start, Turn
from magistral.serve.forms import Form
from magistral.serve.phases import Phases, Terms
from magistral.serve.phrases import closing_phrase
from magistral.serve.pieces import CALLS, Cutter, PlainCutter, cutter_of
from magistral.serve.steering import ServingEngine
from magistral.text.message import Message, Piece, ToolCall
from magistral.text.template import conversation_tokens
from magistral.text.tokens import LONG_TEXT, Tokenizer

DRAFT = 8
"""Tokens that are guessed ahead at most where an answer shall come fast (chosen: benchmarks/engine.py)."""
TOOLS = (
    "You may call tools. To call one, end your answer with a line of the form {mark}name[ARGS]{{...}} where {{...}} is a JSON "
    "object of its arguments; several calls follow each other. {must}The tools, each with the JSON schema of its arguments:"
)


@dataclass(frozen=True, kw_only=True)
class Served:
    name: str
    engine: ServingEngine
    replicas: tuple[ServingEngine, ...] = ()
    """Further engines of the same weights, which share the requests with `engine`."""
    tokenizer: Tokenizer
    window: int
    """Prompt and completion together, in tokens."""
    n_slots: int = 8
    """Completions written at once."""
    system: str = ""
    """What the model is told first where a request brings no system text."""
    begin_thinking: bool = False
    """A prompt ends with the opening mark where a request does not say otherwise: so the model was trained."""
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 1024
    """Where a request names none (and the window has room)."""
    advised_window: int = 40_960
    """Longer prompts draw a warning: Magistral's quality falls past 40 k tokens, as its model card says."""
    drop_old_thinking: bool = False
    """Leave the thinking of the oldest turns out of a prompt over the window; else refuse it."""
    able: frozenset[str] = frozenset()
    """Which of engines.base.OPTIONS the engine does."""
    weights: str = ""
    """SHA-256 of the weights, for the audit log."""

    def phases(self, ask: Ask, terms: Terms, index: int) -> Phases:
        """What reads the completion of that place."""
        return Phases(self.tokenizer, self._cutter(ask), terms, eos=self.tokenizer.eos, index=index)

    def _start(self, ask: Ask) -> Start:
        return "thinking" if self.begin_thinking and ask.start == "free" else ask.start

    def options(self, ask: Ask) -> dict[str, Any]:
        """Further fields of the engine's Request. What only makes it faster may be left out, nothing else."""
        prediction = tuple(self.encode(ask.prediction[: 5 * LONG_TEXT]))
        faster = {"draft": DRAFT if ask.flash or ask.prediction else 0, "prediction": prediction}
        wished: dict[str, Any] = {"top_k": ask.top_k, "min_p": ask.min_p, "n_top": ask.n_top}
        if ask.schema is not None or self._strict(ask):
            wished["mask"] = self._mask(ask) if "mask" in self.able else True
        for name, value in wished.items():
            if value and name not in self.able:
                field = {"n_top": "top_logprobs", "mask": "response_format"}.get(name, name)
                raise Refused("bad_request", f"the engine of {self.name} does not do {field}: leave it out", field=field)
        return {name: value for name, value in {**wished, **faster}.items() if value and name in self.able}

    def _strict(self, ask: Ask) -> bool:
        """One tool is demanded, and its arguments follow its schema."""
        return ask.tools_required and len(ask.tools) == 1 and ask.tools[0].strict and self.tokenizer.layout != "v11"

    def _mask(self, ask: Ask) -> Form:
        """Of a demanded call, from behind what is put in; else of the answer."""
        if not self._strict(ask) and (ask.tools or ask.goes_on or ask.raw_prompt is not None):
            why = "response_format goes with a conversation, and not with tools or a prefix"
            raise Refused("bad_request", why, field="response_format")
        schema = ask.tools[0].parameters if self._strict(ask) else ask.schema
        after = self.call(ask) if self._strict(ask) else ()
        form = Form(schema=schema or {}, tokenizer=self.tokenizer, after=after, start=self._start(ask))
        try:
            form()
        except UserError as e:
            raise Refused("bad_request", str(e), field="response_format") from None
        return form

    @property
    def steers(self) -> bool:
        """Its thinking can be closed for it."""
        return True

    def ignored(self, ask: Ask) -> tuple[str, ...]:
        """Fields that have no effect with this model."""
        optional = any(tool.strict for tool in ask.tools) and not self._strict(ask)
        return ("strict",) if optional else ()

    def room(self, n_prompt: int) -> int:
        """Tokens that a completion may have."""
        return self.window - n_prompt

    def n_prompt(self, prompt: Sequence[int]) -> int:
        return len(prompt)

    def require_tokens(self) -> None:
        """Raises Refused where this model's tokens are not known here, so that it cannot be steered either."""

    def _cutter(self, ask: Ask) -> Cutter:
        if ask.raw_prompt is not None:
            return PlainCutter()
        start = self._start(ask)
        if start == "answer" and not ask.goes_on:
            start = "free"  # the prompt holds an empty trace; should the model think again, that is thinking still
        return cutter_of(self.tokenizer, "answer" if ask.goes_on else start)

    def closing(self, question: str) -> tuple[int, ...]:
        """What the server writes to end the thinking."""
        phrase = self.tokenizer.encode(f"\n\n{closing_phrase(question)}\n")
        marks = self.tokenizer.marks
        close = (
            [self.tokenizer.control_id(marks.close)]
            if self.tokenizer.marks_are_tokens
            else self.tokenizer.encode(f"{marks.close}\n")
        )
        return (*phrase, *close)

    def call(self, ask: Ask) -> tuple[int, ...]:
        """How a call begins that the request demands; the tool is named where there is but one."""
        if not ask.tools_required:
            return ()
        name = ask.tools[0].name if len(ask.tools) == 1 else ""
        brace = "" if self._strict(ask) else "{"
        if not self.own_tools:
            return tuple(self.tokenizer.encode(CALLS + (f"{name}[ARGS]{brace}" if name else "")))
        ids = [self.tokenizer.control_id(CALLS), *self.tokenizer.encode(name)]
        if name and self.tokenizer.layout == "v13":  # before it, the id of the call comes first, which is the model's to make
            ids += [self.tokenizer.control_id("[ARGS]"), *self.tokenizer.encode(brace)]
        return tuple(ids)

    def prompt(self, ask: Ask) -> tuple[list[int], list[Note]]:
        """Raises Refused where the model's template does not take the conversation, or it is over the window."""
        self._require_short(ask)
        if ask.raw_prompt is not None:
            return self._raw(ask.raw_prompt), []
        turns, notes = list(ask.turns), list[Note]()
        ids = self._ids(ask, turns)
        answer = ask.max_tokens or min(self.max_tokens, self.window // 4)
        while self.drop_old_thinking and len(ids) + answer > self.window:
            old = next((i for i, turn in enumerate(turns) if turn.thinking), None)
            if old is None:
                break
            turns[old] = replace(turns[old], thinking="")
            ids = self._ids(ask, turns)
            notes = [Note(index=0, kind="thinking_dropped", text="thinking of the oldest turns was left out of the prompt")]
        if len(ids) > self.advised_window:
            text = f"a prompt of {len(ids)} tokens is over the {self.advised_window} that are advised"
            notes.append(Note(index=0, kind="long_prompt", text=text))
        return ids, notes

    def _require_short(self, ask: Ask) -> None:
        """What cannot be within the window is refused before tokens are made of it, which takes seconds for megabytes."""
        least = len(ask.raw_prompt or "") if not isinstance(ask.raw_prompt, tuple) else 0
        least += sum(len(t.text) + (0 if self.drop_old_thinking else len(t.thinking)) for t in ask.turns)
        least //= self.tokenizer.longest
        if least >= self.window:
            why = f"a prompt of at least {least} tokens is over the window of {self.window}: shorten it"
            raise Refused("over_window", why, field="messages")

    def _raw(self, prompt: str | tuple[int, ...]) -> list[int]:
        if isinstance(prompt, str):
            return self.encode(prompt)
        bad = next((i for i in prompt if not 0 <= i < self.tokenizer.n_words), None)
        if bad is not None:
            raise Refused("bad_request", f"the vocabulary has no token {bad}", field="prompt")
        return list(prompt)

    def _ids(self, ask: Ask, turns: Sequence[Turn]) -> list[int]:
        messages = self._told(ask, turns)
        if ask.goes_on:
            messages.append(begun_answer(ask.prefix_thinking, ask.prefix))
        elif self._start(ask) == "thinking":
            messages.append(Message(role="assistant", content=(("thinking", ""),), unfinished=True))
        elif ask.start == "answer":  # an empty trace, so that the model goes on with its answer
            messages.append(Message(role="assistant", content=(("thinking", ""), ("text", "")), unfinished=True))
        try:
            return conversation_tokens(self.tokenizer, messages, functions(ask) if self.own_tools else ())
        except (ModelError, UserError) as e:
            raise Refused("bad_request", str(e), field="messages") from None

    def _told(self, ask: Ask, turns: Sequence[Turn]) -> list[Message]:
        """Who said what, the system first."""
        system = [t for t in turns if t.role == "system"]
        if not system and ask.default_system and self.system:
            system = [Turn(role="system", text=self.system)]
        messages = [self._system(system, ask)] if system or (ask.tools and not self.own_tools) else []
        messages += [self._message(t) for t in turns if t.role != "system"]
        for text in [text for message in messages for _, text in message.pieces]:
            _check_text(text)
        return messages

    @property
    def own_tools(self) -> bool:
        """The model's layout has places for tools and what they said; else they are told of in plain words."""
        return self.tokenizer.layout != "template"

    def _system(self, turns: Sequence[Turn], ask: Ask) -> Message:
        """The default text is the model's maker's: marks of thinking in it count. A caller's text is text."""
        told = "\n\n".join(filter(None, [*(t.text for t in turns), "" if self.own_tools or not ask.tools else tools_text(ask)]))
        if [t.text for t in turns] == [self.system] and told == self.system:
            return Message(role="system", content=told)
        thinking = "".join(t.thinking for t in turns)
        return Message(role="system", content=((("thinking", thinking),) if thinking else ()) + (("text", told),))

    def _message(self, turn: Turn) -> Message:
        thinking: tuple[Piece, ...] = (("thinking", turn.thinking),) if turn.thinking else ()
        if self.own_tools:
            calls = tuple(ToolCall(name=c.name, arguments=c.arguments, id=c.id) for c in turn.calls)
            return Message(role=turn.role, content=(*thinking, ("text", turn.text)), calls=calls, call_id=turn.call_id)
        said = turn.text + "".join(f"{CALLS}{call.name}[ARGS]{call.arguments}" for call in turn.calls)
        # a template of another maker has no role for tools: what they said is told by the user
        role = "user" if turn.role == "tool" else turn.role
        return Message(role=role, content=(*thinking, ("text", said)))

    def encode(self, text: str) -> list[int]:
        _check_text(text)
        return self.tokenizer.encode(text)


def begun_answer(thinking: str, text: str) -> Message:
    """An answer that the model goes on with; its thinking, where there is one, is closed."""
    thought: tuple[Piece, ...] = (("thinking", thinking),) if thinking else ()
    return Message(role="assistant", content=(*thought, ("text", text)), unfinished=True)


def _check_text(text: str) -> None:
    """Half of a surrogate pair is no text, though JSON can write it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise Refused("bad_request", f"character {e.start} of a text is half of a surrogate pair", field="messages") from None


def functions(ask: Ask) -> list[dict[str, Any]]:
    return [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in ask.tools
    ]


def tools_text(ask: Ask) -> str:
    import json

    must = "You must call at least one. " if ask.tools_required else ""
    lines = [
        json.dumps({"name": t.name, "description": t.description, "parameters": t.parameters}, ensure_ascii=False)
        for t in ask.tools
    ]
    return "\n".join([TOOLS.format(mark=CALLS, must=must), *lines])
