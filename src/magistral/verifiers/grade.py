"""Pairs of answer and reference, as `magistral grade` reads them: a line of JSON in, a line out, in order.

In:  {"id": "a", "kind": "math", "reference": "27", "answer": "27"}, or with a whole `completion` instead of the bare `answer`;
     `reference` may be a list of accepted ones; `question` lets units that it names be added (math); `options`, by order of
     their letters, may be named by their text (choice).
     {"id": "b", "kind": "code", "language": "python", "source": "…", "tests": [{"stdin": "1", "expected": "1"}]}, or
     `completion` instead of `source`; `limits`, `compare`, `tolerance`, `checker`, `setup` as in the tests of a problem.
Out: {"id": "a", "line": 1, "verdict": "right", "reason": "27 = 27", "seconds": 0.0001, "tier": null}
"""

from __future__ import annotations

import difflib
import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from magistral.errors import VerifierFailed
from magistral.flow import Outcome, Problem, Trace, Verdict
from magistral.text.trace import THINK_TEXT, THINK_TOKENS, parse
from magistral.verifiers.answer import last_boxed
from magistral.verifiers.choice import read_key
from magistral.verifiers.judges import Judges, checking
from magistral.verifiers.tests import read_tests

_ORDER = (Outcome.RIGHT, Outcome.ERROR, Outcome.TIMED_OUT, Outcome.WRONG, Outcome.UNPARSABLE)
"""Of several references: the first of these that any gives. An error says that one reference might have been met."""
_TESTS = ("tests", "limits", "compare", "tolerance", "checker", "setup", "language")


Kind = Literal["math", "choice", "code"]
KINDS: tuple[str, ...] = get_args(Kind)


class Pair(BaseModel):
    """One line; keys that are not near one of ours are the reader's own."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    id: str | int | None = None
    kind: Kind = "math"
    reference: str | int | float | list[str | int | float] = ""
    answer: str | int | float | None = None
    completion: str | None = None
    question: str = ""
    options: list[str] | None = None
    language: str | None = None
    source: str | None = None
    tests: list[Any] | None = None
    limits: dict[str, Any] | None = None
    compare: str | None = None
    tolerance: float | None = None
    checker: str | None = None
    setup: str | None = None
    draw: int = 0

    @model_validator(mode="before")
    @classmethod
    def _is_spelt_right(cls, data: Any) -> Any:
        for name in data.keys() - cls.model_fields.keys():
            if near := difflib.get_close_matches(name, cls.model_fields, n=1, cutoff=0.8):  # chosen: anwser, refrence, test
                raise ValueError(f"unknown key {name!r}; did you mean {near[0]!r}?")
        return data

    @field_validator("id", mode="before")
    @classmethod
    def _id_is_a_name(cls, value: Any) -> Any:
        if value is not None and type(value) not in (str, int):
            raise ValueError("an id is text or a whole number")
        return value

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        bare = self.source if self.kind == "code" else self.answer
        if (bare is None) == (self.completion is None):
            raise ValueError(f"kind {self.kind} has {'source' if self.kind == 'code' else 'answer'} or completion, one of both")
        if self.kind == "code" and self.tests is None:
            raise ValueError("kind code has tests")
        if self.kind == "code" and self.source is not None and not self.language:
            raise ValueError("a source has its language")
        if self.kind != "code" and self.reference in ("", []):
            raise ValueError("the reference is missing")
        return self

    @property
    def references(self) -> list[str]:
        """As the verifier of this kind reads them."""
        if self.kind == "code":
            given = {name: getattr(self, name) for name in _TESTS}
            return [json.dumps({name: value for name, value in given.items() if value is not None})]
        said = [str(r) for r in (self.reference if isinstance(self.reference, list) else [self.reference])]
        if self.options is None:
            return said
        return [json.dumps({"key": read_key(r)[0], "options": self.options}, ensure_ascii=False) for r in said]


def grade(lines: Iterable[str | bytes], judges: Judges, *, n_workers: int, explain: bool = False) -> Iterator[dict[str, Any]]:
    """A record for each line that is not empty, in order; a line that cannot be read is one, too. Holds few lines at a time."""
    waiting: deque[Future[dict[str, Any]]] = deque()
    threads = ThreadPoolExecutor(n_workers)
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            waiting.append(threads.submit(_graded, line, number, judges, explain))
            while len(waiting) >= 4 * n_workers or (waiting and waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)  # whoever was interrupted does not wait for what is under way


def _graded(line: str | bytes, number: int, judges: Judges, explain: bool) -> dict[str, Any]:
    name: str | int | None = None
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            raise ValueError('an object is wanted, as {"reference": …}')
        name = data["id"] if type(data.get("id")) in (str, int) else None
        pair = Pair.model_validate(data)
        verdict = judge(pair, judges)
    except ValidationError as e:
        verdict = Verdict(outcome=Outcome.ERROR, reason=f"line {number}: {fault_of(e)}", stage="reading")
    except (ValueError, RecursionError) as e:
        verdict = Verdict(outcome=Outcome.ERROR, reason=f"line {number} cannot be read as JSON: {e}", stage="reading")
    return {"id": name, "line": number} | record(verdict, explain=explain)


def fault_of(error: ValidationError) -> str:
    """The first, for a person."""
    fault = error.errors()[0]
    where = f"{fault['loc'][0]}: " if fault["loc"] else ""
    return where + fault["msg"].removeprefix("Value error, ")


def judge(pair: Pair, judges: Judges) -> Verdict:
    """What cannot be judged is Outcome.ERROR. Raises UserError where this host cannot judge such a pair."""
    verdicts = []
    for reference in pair.references:
        problem = Problem(id="" if pair.id is None else str(pair.id), question=pair.question, reference=reference, kind=pair.kind)
        try:
            if pair.completion is not None:
                verdict = judges.verify(_trace(pair.completion), problem, draw=pair.draw)
            else:
                with checking(problem.id):
                    verdict = _BARE[pair.kind](judges.verifier(pair.kind), pair, problem)
        except VerifierFailed as e:
            verdict = Verdict(outcome=Outcome.ERROR, reason=str(e), stage="verifier")
        verdicts.append(verdict)
        if verdict.outcome is Outcome.RIGHT:
            break
    return min(verdicts, key=lambda v: _ORDER.index(v.outcome))


def _math(verifier: Any, pair: Pair, problem: Problem) -> Verdict:
    answer = str(pair.answer).strip()
    inside = last_boxed(answer) if answer.startswith("\\boxed") and answer.endswith("}") else None
    verdict: Verdict = verifier.compare(answer if inside is None else inside, problem.reference, question=problem.question)
    return verdict


def _choice(verifier: Any, pair: Pair, problem: Problem) -> Verdict:
    verdict: Verdict = verifier.compare(str(pair.answer), problem.reference)
    return verdict


def _code(verifier: Any, pair: Pair, problem: Problem) -> Verdict:
    tests = read_tests(problem.reference)
    verdict: Verdict = verifier.judge(pair.language, pair.source, tests, problem=problem.id, draw=pair.draw)
    return verdict


_BARE = {"math": _math, "choice": _choice, "code": _code}


def _trace(completion: str) -> Trace:
    """By whichever marks the completion uses."""
    return parse(
        completion, THINK_TOKENS if THINK_TOKENS.open in completion and THINK_TEXT.open not in completion else THINK_TEXT
    )


def record(verdict: Verdict, *, explain: bool) -> dict[str, Any]:
    told: dict[str, Any] = {
        "verdict": str(verdict.outcome),
        "reason": verdict.judge or verdict.reason,
        "seconds": round(verdict.seconds, 6),
        "tier": verdict.tier or None,
    }
    if verdict.judge:
        told["detail"] = verdict.reason
    if explain:
        told |= {
            "stage": verdict.stage,
            "answer": verdict.answer,
            "answer_read": verdict.read[0],
            "reference_read": verdict.read[1],
            "peak_mb": verdict.peak_mb,
            "versions": verdict.versions,
        }
    return told
