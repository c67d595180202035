"""The reference solutions of HumanEval and HumanEval-X pass their own tests, and what they say changed does not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from magistral.curation.sources import programs
from magistral.verifiers.code import CodeVerifier
from magistral.verifiers.pool import Pool
from magistral.verifiers.tests import CodeTests, read_tests

pytestmark = pytest.mark.slow
DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
LACKING = ("openssl", "boost")
"""Headers that a plain machine has not: three tasks of the C++ set."""
CHANGED = """
def magistral_changed(value):
    if isinstance(value, bool): return not value
    if isinstance(value, (int, float)): return value + 1
    if isinstance(value, str): return value + "x"
    if isinstance(value, list): return value + [0]
    if isinstance(value, tuple): return value + (0,)
    if isinstance(value, dict): return {**value, "x": 0}
    return 0 if value is None else None
def magistral_wrapped(f):
    return lambda *a, **k: magistral_changed(f(*a, **k))
"""


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    with Pool() as pool:
        yield CodeVerifier(pool)


def tasks(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the benchmark is not here: {path}")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def not_as_wanted(
    verifier: CodeVerifier, jobs: list[tuple[str, str, str, CodeTests]], wanted: Callable[[str], bool]
) -> list[tuple[str, str]]:
    with ThreadPoolExecutor(2) as threads:
        verdicts = list(threads.map(lambda job: verifier.judge(job[1], job[2], job[3]), jobs))
    return [(job[0], v.reason) for job, v in zip(jobs, verdicts, strict=True) if not wanted(v.judge)]


@pytest.mark.parametrize("name", ["humaneval/HumanEval.jsonl", "humaneval-x/python.jsonl"])
def test_every_reference_in_python_passes_and_changed_it_fails(verifier: CodeVerifier, name: str) -> None:
    right, changed = [], []
    for task in tasks(name):
        source = task["prompt"] + task["canonical_solution"]
        found = re.findall(r"^def (\w+)", task["prompt"], re.MULTILINE)
        entry = task.get("entry_point") or found[-1]
        tests = read_tests(json.dumps(programs.python_tests(task, entry)))
        right.append((task["task_id"], "python", source, tests))
        changed.append((task["task_id"], "python", f"{source}\n{CHANGED}\n{entry} = magistral_wrapped({entry})\n", tests))
    assert len(right) == 164
    assert not_as_wanted(verifier, right, lambda judge: judge == "accepted") == []
    assert not_as_wanted(verifier, changed, lambda judge: judge != "accepted") == []


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_every_reference_in_cpp_passes_and_emptied_it_fails(verifier: CodeVerifier) -> None:
    known = [t for t in tasks("humaneval-x/cpp.jsonl") if not any(word in t["declaration"] + t["test"] for word in LACKING)]
    assert len(known) == 161
    for task in known:
        if task["task_id"] == "CPP/38":  # its declaration runs on into the body
            task["declaration"] = task["prompt"]
    right = [
        (t["task_id"], "cpp", t["declaration"] + t["canonical_solution"], read_tests(json.dumps(programs.cpp_tests(t))))
        for t in known
    ]
    assert not_as_wanted(verifier, right, lambda judge: judge == "accepted") == []
    emptied = [
        (t["task_id"], "cpp", t["declaration"] + "return {}; }\n", read_tests(json.dumps(programs.cpp_tests(t))))
        for t in known
        if t["task_id"] != "CPP/23"  # its tests call the C library's own strlen, not the answer's
    ]
    assert not_as_wanted(verifier, emptied, lambda judge: judge != "accepted") == []
