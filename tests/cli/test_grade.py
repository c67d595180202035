"""`magistral grade` and `magistral sandbox` from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

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
    assert ran.stderr.startswith("magistral: error: --kind: no kind named 'maths'; did you mean 'math'?")


def test_a_grader_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magistral.verifiers.bench.installed", lambda: ["magistral"])
    with pytest.raises(UserError, match="math-verify is not installed here: pip install math-verify first"):
        bench_verifiers.command(grader=["math-verify"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"data": Path("/nonexistent")}, "--data: /nonexistent holds no references"),
        ({"kind": ["hostil"]}, "--kind: no pairs of kind 'hostil'; did you mean 'hostile'?"),
    ],
    ids=["a folder that is not there", "a kind that there is not"],
)
def test_pairs_that_there_are_not_are_said(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        bench_verifiers.command(**asked)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--kind", "foo", "--reference", "1", "--answer", "1"], "--kind: no kind named 'foo'; known: choice, code, math"),
        (["--reference", "1", "--answer", "1", "--completion", "x"], "--answer and --completion: one of both is what is judged"),
        (["pairs.jsonl", "--reference", "1"], "FILE and --reference: judge a file of pairs, or the one pair of the options"),
        (["--answer", "1"], "the options make no pair: the reference is missing"),
        (["--source", "a.py", "--language", "python"], "a.py cannot be read: No such file or directory"),
    ],
    ids=["a kind that there is not", "two answers", "a file and a pair", "no reference", "a source that is not there"],
)
def test_options_that_make_no_pair_are_named(options: list[str], said: str) -> None:
    ran = magistral("grade", *options)
    assert (ran.returncode, ran.stderr) == (2, f"magistral: error: {said}\n")


def test_a_source_is_code(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print(int(input()) + 1)", encoding="utf-8")
    (tmp_path / "tests.json").write_text('[{"stdin": "1", "expected": "2"}]', encoding="utf-8")
    ran = magistral("grade", "--source", str(tmp_path / "a.py"), "--language", "python", "--tests", str(tmp_path / "tests.json"))
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["reason"] == "accepted"


def test_bytes_that_are_no_text_are_an_error_of_their_line(tmp_path: Path) -> None:
    line = b'{"reference": "1", "answer": "1"}\n'
    (tmp_path / "pairs.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\n" + line.replace(b'"1"}', b'"\xff"}') + line)
    ran = magistral("grade", str(tmp_path / "pairs.jsonl"))
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [(t["line"], t["verdict"]) for t in told] == [(1, "right"), (3, "error"), (4, "right")]


def test_ctrl_c_keeps_what_is_judged_and_waits_for_nothing() -> None:
    command = [sys.executable, "-c", "from magistral.cli.main import main; main()", "grade", "-", "--deadline", "50"]
    env = {**os.environ, "PYTHONPATH": PACKAGE}
    slow = {"reference": r"\sqrt 2", "answer": "((9^{999})^{999})^{999}"}
    lines = [{"reference": "1", "answer": "1"}, slow, *[{"reference": "1", "answer": "1"}] * 3]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(json.dumps(line) + "\n" for line in lines).encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["line"] == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(40) == 130


def test_a_file_that_is_not_there_is_said_in_one_line() -> None:
    ran = magistral("grade", "/nonexistent.jsonl")
    assert (ran.returncode, ran.stderr) == (2, "magistral: error: /nonexistent.jsonl cannot be read: No such file or directory\n")


def test_a_tier_that_there_is_not_lists_those_there_are() -> None:
    ran = magistral("sandbox", "doctor", "--tier", "docker")
    assert ran.returncode == 2
    assert "known: bubblewrap, bubblewrap+cgroups, rlimits, uid+rlimits" in ran.stderr
