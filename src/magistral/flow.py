"""The records that flow through the system; read this first.

problem -> completion -> verdict -> reward -> batch -> step -> weights -> generator

Every record is plain data: no torch, no files, picklable, so that it may cross a process.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


def encodable(text: str) -> str:
    r"""Half a surrogate pair, which models and their programs may write, fits no file: it is spelt out, as `\ud800`."""
    return text.encode(errors="backslashreplace").decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something to think about, with the answer by which it is judged.

    Example: Problem(id="chain_sum-17", question="23 + 4 = ?", reference="27", family="chain_sum")
    """

    id: str
    question: str
    """The text that the model reads, without system prompt or template."""
    reference: str
    """The right answer, as the verifier of `kind` reads it."""
    kind: str = "math"
    """The name of its verifier."""
    family: str = ""
    """The source's own group of like problems; results are reported by it."""
    language: str = "en"
    """ISO 639-1 code of the language of `question`."""
    pool: str = ""
    """The recipe's family that it was drawn for; a stage of RL chooses by it."""


class Finish(StrEnum):
    """Why a completion ended."""

    STOP = "stop"
    """The model wrote its end-of-sequence token."""
    LENGTH = "length"
    """The limit of tokens was reached."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer written by the model. It may live through a weight update, so each token keeps its version."""

    problem: Problem
    group: int
    """Ordinal of its group: the completions of one asking of one problem share it."""
    index: int
    """Place in the group, 0-based."""
    seed: int
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]
    """[T] ids that the model wrote: no prompt; the end-of-sequence token included where it wrote one."""
    logprobs: tuple[float, ...]
    """[T] natural log, at the recipe's temperature, under the weights that wrote each token."""
    versions: tuple[int, ...]
    """[T] version of the weights that wrote each token; never falls."""
    text: str
    """`tokens` as text, without the end-of-sequence token."""
    finish: Finish
    l_max: int | None = None
    """Tokens at which its length penalty is whole; None: as the recipe's [reward] has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A completion's text, cut in two."""

    thinking: str
    summary: str
    well_formed: bool
    """Starts with the opening mark and has exactly one pair of marks."""
    fault: str = ""
    """Empty if well formed, else what is wrong, as 'no closing mark'."""


class Outcome(StrEnum):
    """What a verifier says. Only RIGHT pays; ERROR is no judgement: its completion is dropped, never scored 0."""

    RIGHT = "right"
    WRONG = "wrong"
    UNPARSABLE = "unparsable"
    """The answer (not the reference) cannot be read: counts as wrong."""
    TIMED_OUT = "timed_out"
    """Reading or comparing the answer took too long: counts as wrong."""
    ERROR = "error"
    """The verifier failed, or the reference cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Example: Verdict(outcome=Outcome.RIGHT, reason="27 = 27", answer="27", stage="exact", seconds=0.0001)"""

    outcome: Outcome
    reason: str
    """One line for a person."""
    answer: str = ""
    """The answer as it was read, empty where there was none."""
    stage: str = ""
    """Which step decided: format, exact, symbolic, pool, compile, test."""
    seconds: float = 0.0
    read: tuple[str, str] = ("", "")
    """How the answer and the reference were read, as ("7/2", "3.5"); empty where there was no reading."""
    judge: str = ""
    """Of code: accepted, wrong_answer, compile_error, runtime_error, memory_limit, output_limit, timed_out."""
    peak_mb: float | None = None
    """The most memory that the boxed program had; None where nothing was run or the host does not count it."""
    tier: str = ""
    """How boxed programs were kept in, as "bubblewrap+cgroups"; empty where nothing was run."""
    versions: str = ""
    """What judged, as "open-magistral 0.1.0, sympy 1.14.0"."""

    def __post_init__(self) -> None:
        """What a model wrote is quoted here, and must not break the file that a verdict is written to."""
        object.__setattr__(self, "reason", encodable(self.reason))
        object.__setattr__(self, "answer", encodable(self.answer))
        object.__setattr__(self, "read", (encodable(self.read[0]), encodable(self.read[1])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """The parts of Magistral's reward (arXiv 2506.10910, section 2.2); the maximum of the sum is 1.1."""

    format: float = 0.0
    correctness: float = 0.0
    length: float = 0.0
    """Never positive."""
    language: float = 0.0
    reasons: tuple[str, ...] = ()
    """One line for each part that was judged, for a person."""

    @property
    def total(self) -> float:
        return self.format + self.correctness + self.length + self.language


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A completion with all that is known of it."""

    completion: Completion
    trace: Trace
    verdict: Verdict
    reward: Reward


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Whole, diverse groups: what one optimizer step trains on."""

    scored: tuple[Scored, ...]
    advantages: tuple[float, ...]
    """One for each of `scored`; the same for every token of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one training step did. One line of metrics.jsonl holds it."""

    step: int
    """1-based; also the version of the weights that came out of it."""
    values: dict[str, float] = field(default_factory=dict)
    """Name to number, as {"loss": -0.01, "reward/mean": 0.42}; docs/metrics.md explains each."""
    note: str = ""
    """What else there is to say of it: "stage harder: performance plateau, …" where the next stage begins after it."""
