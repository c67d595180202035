"""A model that is served: its words, its marks, its window, and how a conversation becomes its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from magistral.errors import ModelError
from magistral.serve.errors import Refused
from magistral.serve.events import Ask, Note, Start, Turn
from magistral.serve.phrases import closing_phrase
from magistral.serve.pieces import CALLS, Cutter, PlainCutter, TextCutter, TokenCutter
from magistral.serve.steering import ServingEngine
from magistral.text.template import prompt_tokens
from magistral.text.tokens import Tokenizer
from magistral.text.trace import THINK_TEXT, THINK_TOKENS, Marks

TOOLS = (
    "You may call tools. To call one, end your answer with a line of the form {mark}name[ARGS]{{...}} where {{...}} is a JSON "
    "object of its arguments; several calls follow each other. {must}The tools, each with the JSON schema of its arguments:"
)


@dataclass(frozen=True, kw_only=True)
class Served:
    name: str
    engine: ServingEngine
    tokenizer: Tokenizer
    window: int
    """Prompt and completion together, in tokens."""
    n_slots: int = 8
    """Completions written at once."""
    system: str = ""
    """What the model is told first where a request brings no system text."""
    marks: Marks | None = None
    """None: the tokenizer's control tokens if it has them, else plain text."""
    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 1024
    """Where a request names none (and the window has room)."""
    advised_window: int = 40_960
    """Longer prompts draw a warning: Magistral's quality falls past 40 k tokens, as its model card says."""
    drop_old_thinking: bool = False
    """Leave the thinking of the oldest turns out of a prompt over the window; else refuse it."""
    weights: str = ""
    """SHA-256 of the weights, for the audit log."""

    @property
    def form(self) -> Marks:
        return self.marks or (THINK_TOKENS if THINK_TOKENS.open in self.tokenizer.special else THINK_TEXT)

    @property
    def by_token(self) -> bool:
        return self.form.open in self.tokenizer.special

    def _mark(self, text: str) -> list[int]:
        return self.tokenizer.encode_template(text) if self.by_token else self.tokenizer.encode(text)

    def cutter(self, ask: Ask) -> Cutter:
        if ask.raw_prompt is not None:
            return PlainCutter()
        start: Start = "answer" if ask.prefix else ask.start
        if not self.by_token:
            return TextCutter(self.form, start)
        ends = [self._mark(text) for text in (self.form.open, self.form.close)]
        if [len(ids) for ids in ends] != [1, 1]:
            raise ModelError(f"model {self.name}: {self.form.open} and {self.form.close} are not one token each")
        return TokenCutter(ends[0][0], ends[1][0], start)

    def closing(self, question: str) -> tuple[int, ...]:
        """What the server writes to end the thinking."""
        phrase = self.tokenizer.encode(f"\n\n{closing_phrase(question)}\n")
        return (*phrase, *self._mark(self.form.close), *([] if self.by_token else self.tokenizer.encode("\n")))

    def call(self, ask: Ask) -> tuple[int, ...]:
        """How a call begins that the request demands; the tool is named where there is but one."""
        if not ask.tools_required:
            return ()
        name = f"{ask.tools[0].name}[ARGS]{{" if len(ask.tools) == 1 else ""
        return tuple(self.tokenizer.encode(CALLS + name))

    def prompt(self, ask: Ask) -> tuple[list[int], list[Note]]:
        """Raises Refused where the model's template does not take the conversation, or it is over the window."""
        if ask.raw_prompt is not None:
            return self._raw(ask.raw_prompt), []
        turns, notes = list(ask.turns), list[Note]()
        ids = self._ids(ask, turns)
        while self.drop_old_thinking and len(ids) + 1 > self.window:
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

    def _raw(self, prompt: str | tuple[int, ...]) -> list[int]:
        if isinstance(prompt, str):
            return self.encode(prompt)
        bad = next((i for i in prompt if not 0 <= i < self.tokenizer.n_words), None)
        if bad is not None:
            raise Refused("bad_request", f"the vocabulary has no token {bad}", field="prompt")
        return list(prompt)

    def _ids(self, ask: Ask, turns: Sequence[Turn]) -> list[int]:
        system = "\n\n".join(t.text for t in turns if t.role == "system")
        if ask.default_system and not any(t.role == "system" for t in turns):
            system = self.system
        if ask.tools:
            system = "\n\n".join(filter(None, [system, tools_text(ask)]))
        pairs = [(t.role, self._said(t)) for t in turns if t.role != "system"]
        for text in (system, ask.prefix, *(text for _, text in pairs)):
            _check_text(text)
        try:
            ids = prompt_tokens(self.tokenizer, system, pairs)
        except ModelError as e:
            raise Refused("bad_request", str(e), field="messages") from None
        if ask.prefix:
            return ids + self.tokenizer.encode(ask.prefix)
        end = "" if self.by_token else "\n"
        if ask.start == "thinking":
            return ids + self._mark(self.form.open + end)
        if ask.start == "answer":  # an empty trace, so that the model goes on with its answer
            return ids + self._mark(self.form.open) + self.tokenizer.encode(end + end) + self._mark(self.form.close + end)
        return ids

    def _said(self, turn: Turn) -> str:
        """A turn's text with its thinking and calls as the model writes them."""
        text = turn.text + "".join(f"{CALLS}{call.name}[ARGS]{call.arguments}" for call in turn.calls)
        if not turn.thinking:
            return text
        if self.by_token:
            raise Refused(
                "bad_request", f"model {self.name} cannot be given earlier thinking yet: leave it out", field="messages"
            )
        return f"{self.form.open}\n{turn.thinking}\n{self.form.close}\n{text}"

    def encode(self, text: str) -> list[int]:
        _check_text(text)
        return self.tokenizer.encode(text)


def _check_text(text: str) -> None:
    """Half of a surrogate pair is no text, though JSON can write it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise Refused("bad_request", f"character {e.start} of a text is half of a surrogate pair", field="messages") from None


def tools_text(ask: Ask) -> str:
    import json

    must = "You must call at least one. " if ask.tools_required else ""
    lines = [
        json.dumps({"name": t.name, "description": t.description, "parameters": t.parameters}, ensure_ascii=False)
        for t in ask.tools
    ]
    return "\n".join([TOOLS.format(mark=CALLS, must=must), *lines])
