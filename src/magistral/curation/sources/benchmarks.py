"""The public benchmarks, read from files that you have: what to measure with, and what must not be trained on.

Nothing is fetched. `--data FOLDER` holds each benchmark under the names in BENCHMARKS; docs/evaluation.md says where they are
published.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import count
from pathlib import Path

from magistral.curation.sources import gpqa, livecodebench, programs
from magistral.curation.sources.base import Row
from magistral.curation.sources.files import Layout, needed, read_problems, read_rows
from magistral.errors import UserError
from magistral.flow import Problem
from magistral.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which of a benchmark's problems are taken."""

    languages: tuple[str, ...] = ()
    """Empty: all that there are."""
    first_day: date | None = None
    """LiveCodeBench: contests from this day on."""
    last_day: date | None = None
    errata: bool = False
    """LiveCodeBench: take the problems, too, that its own errata call unfit."""


Read = Callable[[Sequence[Path], Selection], Iterator[Problem]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    files: tuple[str, ...]
    """In the data folder; patterns. All that are found are read, in the order of their names."""
    read: Read
    selects: tuple[str, ...] = ()
    """The fields of a Selection that mean something here."""
    private: bool = False
    """Its authors ask that no problem be published in plain text: reports leave its texts out."""


_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE]-?\d+)?")
BENCHMARKS = Registry[Benchmark]("benchmark")


def read_benchmark(name: str, data: Path, selection: Selection = Selection()) -> list[Problem]:
    """Its problems from a folder, or from the one file that `data` names.

    Raises UnknownName, or UserError naming the file and line that cannot be read."""
    benchmark = BENCHMARKS[name]
    paths = files_of(name, data)
    if not paths:
        raise UserError(f"{name}: no {' or '.join(benchmark.files)} in {data}: docs/evaluation.md says where it is published")
    problems = list(benchmark.read(paths, selection))
    if not problems:
        raise UserError(f"{name}: nothing in {data} is of the languages or days that were asked for")
    ids = {p.id: p for p in problems}
    if len(ids) < len(problems):
        twice = next(p.id for p in problems if ids[p.id] is not p)
        raise UserError(f"{name}: two problems in {data} have the id {twice!r}: is a file there twice?")
    return problems


def files_of(name: str, data: Path) -> list[Path]:
    """Those of a benchmark that are there. Raises UnknownName."""
    return [data] if data.is_file() else sorted({p for pattern in BENCHMARKS[name].files for p in data.glob(pattern)})


def _rows_as(problem: Callable[[Row, int], Problem]) -> Read:
    def read(paths: Sequence[Path], selection: Selection) -> Iterator[Problem]:
        numbers = count(1)
        for path in paths:
            yield from (problem(row, next(numbers)) for row in read_rows(path))

    return read


def _aime(row: Row, number: int) -> Problem:
    return Problem(id=needed(row, "id"), question=needed(row, "problem"), reference=needed(row, "answer"))


def _math500(row: Row, number: int) -> Problem:
    return Problem(
        id=needed(row, "unique_id"), question=needed(row, "problem"), reference=needed(row, "answer"),
        family=str(row.values.get("subject", "")),
    )  # fmt: skip


def _gsm8k(row: Row, number: int) -> Problem:
    return Problem(
        id=f"gsm8k-{number}", question=needed(row, "question"), reference=needed(row, "answer").rpartition("####")[2].strip()
    )


def _olympiad(row: Row, number: int) -> Problem:
    """Several answers are one list. A single one has the unit that the set names, and all the tolerance that it allows."""
    answers = row.values.get("final_answer")
    if not isinstance(answers, list) or not answers:
        raise UserError(f"{row.where}: final_answer is no list of answers")
    reference = ", ".join(str(a).strip().strip("$") for a in answers)
    if (unit := str(row.values.get("unit") or "").strip("$ ")) and not row.values.get("is_multiple_answer"):
        reference += f" {unit}"
    if error := row.values.get("error"):
        if not _NUMBER.fullmatch(str(error)):
            raise UserError(f"{row.where}: the error {error!r} is no number")
        reference += f" to within {error}"
    context = row.values.get("context")
    return Problem(
        id=needed(row, "id"), question="\n\n".join(filter(None, [context, needed(row, "question")])),
        reference=reference, family=str(row.values.get("subfield", "")),
    )  # fmt: skip


def _mgsm(paths: Sequence[Path], selection: Selection) -> Iterator[Problem]:
    """Two columns without names; row n is the same problem in every language."""
    for path in paths:
        language = path.stem.rpartition("_")[2]
        if selection.languages and language not in selection.languages:
            continue
        for number, line in enumerate(_lines(path), 1):
            question, _, answer = line.partition("\t")
            if not question.strip() or not answer.strip():
                raise UserError(f"{path.name}:{number}: a line is a question, a tab and an answer")
            yield Problem(
                id=f"{language}-{number}", question=question, reference=answer.strip(), family=language, language=language
            )


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"{path} cannot be read: {e}") from None


def _aime_multilingual(paths: Sequence[Path], selection: Selection) -> Iterator[Problem]:
    """Files of your own with the columns id, problem, answer, and language, which a file's name may say instead: aime25_fr.jsonl.

    Raises UserError where two languages have different answers to one problem: a translation that changed it."""
    answers: dict[str, str] = {}
    for path in paths:
        named = path.name.partition(".")[0].rpartition("_")[2]
        for p in read_problems(Layout(path=path, question="problem", reference="answer", language=named)):
            if selection.languages and p.language not in selection.languages:
                continue
            if answers.setdefault(p.id, p.reference) != p.reference:
                raise UserError(
                    f"{path.name}: the answer to {p.id!r} is {p.reference!r} in {p.language}, and {answers[p.id]!r} in another "
                    "language: one of them is a wrong translation"
                )
            yield Problem(
                id=f"{p.id}-{p.language}", question=p.question, reference=p.reference, family=p.language, language=p.language
            )


def _livecodebench(n_files: int) -> Benchmark:
    """`n_files`: of the release; the files test.jsonl, test2.jsonl … hold what each release added."""

    def read(paths: Sequence[Path], selection: Selection) -> Iterator[Problem]:
        return livecodebench.read(paths, selection.first_day, selection.last_day, errata=selection.errata)

    names = ("test", *(f"test{n}" for n in range(2, n_files + 1)))
    files = tuple(f"livecodebench/{name}.jsonl" for name in names)
    return Benchmark(files=files, read=read, selects=("first_day", "last_day", "errata"))


BENCHMARKS.register("aime24")(Benchmark(files=("aime24/test.jsonl",), read=_rows_as(_aime)))
BENCHMARKS.register("aime25")(Benchmark(files=("aime25/test.jsonl",), read=_rows_as(_aime)))
BENCHMARKS.register("aime_multilingual")(
    Benchmark(files=("aime_multilingual/*.jsonl",), read=_aime_multilingual, selects=("languages",))
)
BENCHMARKS.register("math500")(Benchmark(files=("math500/test.jsonl",), read=_rows_as(_math500)))
BENCHMARKS.register("gsm8k")(Benchmark(files=("gsm8k/test.jsonl",), read=_rows_as(_gsm8k)))
BENCHMARKS.register("mgsm")(Benchmark(files=("mgsm/mgsm_*.tsv",), read=_mgsm, selects=("languages",)))
BENCHMARKS.register("olympiadbench")(Benchmark(files=("olympiadbench/oe_to_maths_en_comp.jsonl",), read=_rows_as(_olympiad)))
BENCHMARKS.register("gpqa_diamond")(
    Benchmark(
        files=("gpqa/*.zip", "gpqa/gpqa_diamond.csv"),
        read=lambda paths, selection: gpqa.read(paths[0], "gpqa_diamond"),
        private=True,
    )
)
BENCHMARKS.register("livecodebench_v5")(_livecodebench(5))
BENCHMARKS.register("livecodebench_v6")(_livecodebench(6))
BENCHMARKS.register("humaneval")(
    Benchmark(files=("humaneval/HumanEval.jsonl",), read=_rows_as(lambda row, n: programs.humaneval(row)))
)
BENCHMARKS.register("humaneval_x")(
    Benchmark(files=("humaneval-x/*.jsonl",), read=_rows_as(lambda row, n: programs.humaneval_x(row)))
)
BENCHMARKS.register("mbpp")(
    Benchmark(files=("mbpp/mbpp.jsonl",), read=lambda paths, selection: programs.mbpp(read_rows(paths[0])))
)
