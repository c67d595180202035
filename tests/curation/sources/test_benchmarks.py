from __future__ import annotations

import base64
import json
import pickle
import struct
import zipfile
import zlib
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from magistral.curation.sources.benchmarks import BENCHMARKS, Selection, read_benchmark
from magistral.curation.sources.files import read_rows
from magistral.errors import UnknownName, UserError
from magistral.eval.protocol import PROTOCOLS
from magistral.flow import Outcome, Trace
from magistral.verifiers.choice import read_key
from magistral.verifiers.judges import Judges
from magistral.verifiers.math import MathVerifier
from magistral.verifiers.tests import read_tests

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"
ONE_LINE = r"^[^\n]*$"


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def boxed(answer: str) -> Trace:
    return Trace(thinking="so", summary=f"\\boxed{{{answer}}}", well_formed=True)


@pytest.mark.parametrize(
    ("name", "n", "kind"),
    [
        ("aime24", 30, "math"), ("aime25", 30, "math"), ("math500", 500, "math"), ("gsm8k", 1319, "math"),
        ("mgsm", 2750, "math"), ("olympiadbench", 675, "math"), ("humaneval", 164, "code"), ("humaneval_x", 328, "code"),
        ("mbpp", 500, "code"),
    ],
    ids=lambda value: str(value),
)  # fmt: skip
def test_a_public_benchmark_is_whole(name: str, n: int, kind: str) -> None:
    if not DATA.exists():
        pytest.skip(f"the benchmarks are not here: {DATA}")
    found = read_benchmark(name, DATA)
    assert len(found) == n
    assert {p.kind for p in found} == {kind}
    if kind == "code":
        assert all(read_tests(p.reference).n_drawn == len(read_tests(p.reference).tests) for p in found)


def test_every_benchmark_has_a_protocol() -> None:
    assert set(BENCHMARKS) == set(PROTOCOLS)


def test_languages_are_chosen(tmp_path: Path) -> None:
    for language, text in (("en", "One and one?\t2\n"), ("fr", "Un et un ?\t2\n")):
        (tmp_path / "mgsm").mkdir(exist_ok=True)
        (tmp_path / "mgsm" / f"mgsm_{language}.tsv").write_text(text)
    (only,) = read_benchmark("mgsm", tmp_path, Selection(languages=("fr",)))
    assert (only.id, only.question, only.reference, only.language) == ("fr-1", "Un et un ?", "2", "fr")


AIME = {"id": "2025-I-1", "problem": "?", "answer": "70"}


def test_a_translation_with_another_answer_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "aime_multilingual"
    lines(folder / "aime25_en.jsonl", [AIME])
    lines(folder / "aime25_fr.jsonl", [AIME])
    assert [(p.id, p.language) for p in read_benchmark("aime_multilingual", tmp_path)] == [
        ("2025-I-1-en", "en"), ("2025-I-1-fr", "fr")
    ]  # fmt: skip
    lines(folder / "aime25_fr.jsonl", [{**AIME, "answer": "71"}])
    with pytest.raises(UserError, match=r"aime25_fr.jsonl: the answer to '2025-I-1' is '71' in fr, and '70'"):
        read_benchmark("aime_multilingual", tmp_path)


@pytest.mark.parametrize(
    ("name", "rows", "said"),
    [
        ("aime24", [{"id": "a", "problem": "?"}], "test.jsonl:1: no column 'answer'"),
        ("aime24", [AIME, AIME], "two problems in"),
        ("olympiadbench", [{"id": 1, "question": "?", "final_answer": "2"}], "final_answer is no list"),
        (
            "olympiadbench",
            [{"id": 1, "question": "?", "final_answer": ["2"], "error": "0.1,0.2"}],
            "the error '0.1,0.2' is no number",
        ),
        ("humaneval_x", [{"task_id": "Python/0", "prompt": "x = 1", "test": ""}], "the prompt defines no function"),
        ("livecodebench_v5", [{"question_id": "a", "contest_date": "soon"}], "contest_date is no day"),
        ("aime24", [], "nothing in"),
    ],
    ids=["no answer", "an id twice", "no list of answers", "two errors", "no function", "no day", "empty"],
)
def test_what_cannot_be_read_is_said(name: str, rows: list[dict[str, Any]], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=ONE_LINE) as e:
        read_benchmark(name, lines(tmp_path / "test.jsonl", rows))
    assert said in str(e.value)


@pytest.mark.parametrize(
    ("row", "right", "wrong"),
    [
        ({"final_answer": ["4.2"], "error": "1e-1", "unit": "%"}, ["4.2", "4.1", "4.3\\%", "4.25"], ["4.31", "4.09", "42"]),
        ({"final_answer": ["$15$"], "unit": "km/h"}, ["15", "15 km/h", "15\\text{ km/h}"], ["15 m", "15.01"]),
        ({"final_answer": ["32"], "unit": "$cm^2$"}, ["32", "32\\text{ cm}^2"], ["32 km", "32.5"]),
        ({"final_answer": ["$69$,$84$"], "is_multiple_answer": True}, ["69, 84", "84, 69", "$84$ and $69$"], ["69", "69, 85"]),
        ({"final_answer": ["$(6,3),(9,3)$"], "is_multiple_answer": True}, ["(9,3),(6,3)"], ["(3,6),(9,3)"]),
    ],
    ids=["an error", "a unit", "a unit with a power", "two answers", "two pairs"],
)
def test_olympiadbench_s_own_units_tolerances_and_lists_hold(
    row: dict[str, Any], right: list[str], wrong: list[str], tmp_path: Path
) -> None:
    rows = [{"id": 1, "question": "How much?", **row}]
    [problem] = read_benchmark("olympiadbench", lines(tmp_path / "test.jsonl", rows))
    with Judges() as judges:
        verifier = judges.verifier("math")
        assert isinstance(verifier, MathVerifier)
        found = {a: verifier.compare(a, problem.reference, question=problem.question) for a in right + wrong}
    assert [a for a, verdict in found.items() if verdict.outcome is Outcome.RIGHT] == right


def test_every_reference_of_olympiadbench_equals_itself() -> None:
    if not DATA.exists():
        pytest.skip(f"the benchmarks are not here: {DATA}")
    answers = {
        row.values["id"]: row.values["final_answer"] for row in read_rows(DATA / "olympiadbench/oe_to_maths_en_comp.jsonl")
    }
    with Judges() as judges:
        unlike = [
            p.id
            for p in read_benchmark("olympiadbench", DATA)
            if judges.verify(boxed(", ".join(answers[int(p.id)])), p).outcome is not Outcome.RIGHT
        ]
    assert unlike == []


def test_a_benchmark_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gpqa_diamond: no gpqa/\*.zip or gpqa/gpqa_diamond.csv in"):
        read_benchmark("gpqa_diamond", tmp_path)
    with pytest.raises(UnknownName, match=r"no benchmark named 'aime2'; did you mean 'aime2[45]'"):
        read_benchmark("aime2", tmp_path)


def problem_row(name: str, day: str, hidden: Any, **changes: Any) -> dict[str, Any]:
    return {
        "question_id": name, "question_title": "A Title", "question_content": "Add.", "contest_date": f"{day}T00:00:00",
        "starter_code": "", "difficulty": "easy", "metadata": "{}",
        "public_test_cases": json.dumps([{"input": "1 2", "output": "3", "testtype": "stdin"}]), "private_test_cases": hidden,
    } | changes  # fmt: skip


def packed(value: Any) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_livecodebench_by_window_with_its_hidden_tests_and_without_its_errata(tmp_path: Path) -> None:
    hidden = packed(json.dumps([{"input": "2 2", "output": "4", "testtype": "stdin"}]))
    method = problem_row(
        "method", "2024-08-01", "[]", starter_code="class Solution:", metadata='{"func_name": "add"}',
        public_test_cases=json.dumps([{"input": "1\n[2]", "output": "3", "testtype": "functional"}]),
    )  # fmt: skip
    folder = tmp_path / "livecodebench"
    lines(
        folder / "test.jsonl", [problem_row("early", "2024-07-31", hidden), method, problem_row("abc350_c", "2024-08-02", hidden)]
    )
    lines(folder / "test6.jsonl", [problem_row("late", "2025-02-01", hidden, question_title="Find the Peaks")])
    lines(folder / "test5.jsonl", [problem_row("last", "2025-01-31", hidden)])

    def ids(name: str, **selection: Any) -> list[str]:
        return [p.id for p in read_benchmark(name, tmp_path, Selection(**selection))]

    assert ids("livecodebench_v5") == ["early", "method", "last"]
    assert ids("livecodebench_v5", first_day=date(2024, 8, 1), last_day=date(2025, 1, 31)) == ["method", "last"]
    assert ids("livecodebench_v6", errata=True) == ["early", "method", "abc350_c", "last", "late"]
    early, called, _ = read_benchmark("livecodebench_v5", tmp_path)
    assert [t.expected for t in read_tests(early.reference).tests] == ["3", "4"]
    call = read_tests(called.reference).tests[0].call
    assert not isinstance(call, str)
    assert call is not None
    assert (call.function, call.args) == ("Solution().add", (1, [2]))


def test_both_kinds_of_its_tests_judge_a_program(tmp_path: Path) -> None:
    method = problem_row(
        "method", "2024-08-01", "[]", metadata='{"func_name": "add"}',
        public_test_cases=json.dumps([{"input": "1\n[2]", "output": "3", "testtype": "functional"}]),
    )  # fmt: skip
    found = read_benchmark("livecodebench_v5", lines(tmp_path / "test.jsonl", [problem_row("stdin", "2024-08-01", "[]"), method]))
    programs = {
        "stdin": "print(sum(map(int, input().split())))",
        "method": "class Solution:\n    def add(self, a, b):\n        return a + b[0]",
    }
    with Judges() as judges:
        for problem in found:
            for change, outcome in (("", Outcome.RIGHT), ("\nraise SystemExit(3)", Outcome.WRONG)):
                summary = f"```python\n{programs[problem.id]}{change}\n```"
                assert judges.verify(Trace(thinking="", summary=summary, well_formed=True), problem).outcome is outcome


class Evil:
    def __reduce__(self) -> Any:
        return print, ("run",)


@pytest.mark.parametrize(
    ("hidden", "said"),
    [(packed(Evil()), "it asks for builtins.print"), ("!", "cannot be unpacked"), (packed({"a": 1}), "is no JSON")],
    ids=["code in a pickle", "no base64", "no text"],
)
def test_hidden_tests_are_text_or_nothing(hidden: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match=said):
        read_benchmark("livecodebench_v5", lines(tmp_path / "test.jsonl", [problem_row("a", "2024-08-01", hidden)]))
    assert capsys.readouterr().out == ""


GPQA = (
    "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,"
    "Canary String,High-level domain\r\n"
    'rec1,"Which, here?",yes,no,maybe,"never, ever",GUID 26b5,Physics\r\n'
)


def locked(path: Path, name: str, text: bytes, password: bytes) -> None:
    """A zip in the old encryption that the authors' own has, which the standard library reads and does not write."""
    table = []
    for i in range(256):
        c = i
        for _ in range(8):
            c = (c >> 1) ^ 0xEDB88320 if c & 1 else c >> 1
        table.append(c)
    keys = [0x12345678, 0x23456789, 0x34567890]

    def update(byte: int) -> None:
        keys[0] = (keys[0] >> 8) ^ table[(keys[0] ^ byte) & 255]
        keys[1] = ((keys[1] + (keys[0] & 255)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = (keys[2] >> 8) ^ table[(keys[2] ^ (keys[1] >> 24)) & 255]

    for byte in password:
        update(byte)
    crc, out = zlib.crc32(text), bytearray()
    for byte in bytes(11) + bytes([crc >> 24]) + text:
        k = keys[2] | 2
        out.append(byte ^ (((k * (k ^ 1)) >> 8) & 255))
        update(byte)
    common = struct.pack("<HHHHHIIIHH", 20, 1, 0, 0, 33, crc, len(out), len(text), len(name), 0)
    local = b"PK\x03\x04" + common + name.encode() + bytes(out)
    central = b"PK\x01\x02" + struct.pack("<H", 20) + common + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name.encode()
    path.write_bytes(local + central + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), len(local), 0))


def test_gpqa_is_read_from_the_locked_zip_with_its_canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "dataset.zip"
    locked(file, "dataset/gpqa_diamond.csv", GPQA.encode(), b"secret")
    assert zipfile.is_zipfile(file)
    for wrong in ("", "guess"):
        monkeypatch.setenv("GPQA_PASSWORD", wrong)
        with pytest.raises(UserError, match=r"is locked .*: put its password into the environment variable GPQA_PASSWORD"):
            read_benchmark("gpqa_diamond", file)
    monkeypatch.setenv("GPQA_PASSWORD", "secret")
    (problem,) = read_benchmark("gpqa_diamond", file)
    assert (problem.id, problem.question, problem.kind, problem.family) == ("rec1", "Which, here?", "choice", "Physics")
    assert read_key(problem.reference) == ("A", ["yes", "no", "maybe", "never, ever"])
    assert json.loads(problem.reference)["canary"] == "GUID 26b5"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dataset.zip"]  # nothing was unpacked
    (tmp_path / "gpqa_diamond.csv").write_text(GPQA)
    assert read_benchmark("gpqa_diamond", tmp_path / "gpqa_diamond.csv") == [problem]
