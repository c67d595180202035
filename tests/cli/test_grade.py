"""`magistral grade` and `magistral sandbox` from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from magistral.cli import bench_verifiers
from magistral.errors import UserError

PACKAGE = str(Path(__file__).parents[2] / "src")


def magistral(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from magistral.cli.main import main; main()", *arguments]
    env = {**os.environ, "PYTHONPATH": PACKAGE}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, env=env)


def test_a_file_is_judged_line_by_line() -> None:
    lines = [{"id": "a", "reference": "27", "answer": "27"}, {"id": "b", "reference": "27", "answer": "28"}]
    ran = magistral("grade", "-", "--workers", "2", stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line)["verdict"] for line in ran.stdout.splitlines()] == ["right", "wrong"]


def test_a_line_that_cannot_be_judged_is_told_and_leaves_with_1() -> None:
    ran = magistral("grade", "-", stdin="no json\n")
    assert (ran.returncode, json.loads(ran.stdout)["verdict"]) == (1, "error")
    assert "1 line could not be judged: its reason is where the verdict is error" in ran.stderr


def test_one_pair_is_explained() -> None:
    ran = magistral("grade", "--reference", "7/2", "--answer", "3 1/2", "--explain")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[0].split() == ["verdict", "right"]


def test_nothing_to_judge_says_what_to_give() -> None:
    ran = magistral("grade", "--reference", "5")
    assert ran.returncode == 2
    assert ran.stderr.startswith("magistral: error: nothing to judge: give a FILE")


def test_a_kind_that_there_is_not_is_named_with_the_nearest() -> None:
    ran = magistral("grade", "--kind", "maths", "--reference", "5", "--answer", "5")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("magistral: error: --kind maths: did you mean 'math'?")


def test_a_grader_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral.verifiers.bench.installed", lambda: ["magistral"])
    with pytest.raises(UserError, match="math-verify is not installed here: pip install math-verify first"):
        bench_verifiers.command(grader=["math-verify"])


def test_a_file_that_is_not_there_is_said_in_one_line() -> None:
    ran = magistral("grade", "/nonexistent.jsonl")
    assert (ran.returncode, ran.stderr) == (2, "magistral: error: /nonexistent.jsonl cannot be read: No such file or directory\n")


def test_a_tier_that_there_is_not_lists_those_there_are() -> None:
    ran = magistral("sandbox", "doctor", "--tier", "docker")
    assert ran.returncode == 2
    assert "known: bubblewrap, bubblewrap+cgroups, rlimits, uid+rlimits" in ran.stderr
