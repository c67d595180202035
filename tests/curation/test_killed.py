"""The verbs themselves: killed in the middle they go on, and distil, SFT and eval follow on each other."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.curation.endpoint import Endpoint, serving

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-c", "from magistral.cli.main import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
N_PARALLEL = 4


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments, "--threads", "1"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )


def magistral(*arguments: str) -> str:
    done = start(*arguments)
    said, _ = done.communicate(timeout=300)
    assert done.returncode == 0, said
    return said


def kill_after(process: subprocess.Popen[str], endpoint: Endpoint, n_answers: int) -> None:
    end = time.monotonic() + 120
    while sum(endpoint.answered.values()) < n_answers:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def solve(question: str, seed: int) -> tuple[str, str]:
    """Sums, one operation a line; every fourth completion is wrong."""
    terms = re.findall(r"[-+]? ?\d+", question)
    total = sum(int(term.replace(" ", "")) for term in terms) + (seed % 4 == 0)
    return f"{''.join(terms)} = {total}", f"The answer is \\boxed{{{total}}}."


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "recipes" / "nano.toml", tmp_path / "recipe.toml"))


def with_teacher(recipe: Path, endpoint: Endpoint) -> Path:
    asked = f'model = "t={endpoint.url}"\nmax_tokens = 60\nn_parallel = {N_PARALLEL}\n'
    recipe.write_text(
        recipe.read_text(encoding="utf-8")
        + f'\n[distill]\nlicence = "Apache-2.0"\nmin_thinking = 4\nmost_over = 9\n[distill.teacher]\n{asked}'
        + f'\n[curation]\nfiles = ["{recipe.parent / "raw.jsonl"}"]\n[curation.difficulty]\nn_completions = 4\n'
        + f"[curation.difficulty.first]\n{asked}",
        encoding="utf-8",
    )
    return recipe


def asked_in(answers: Path) -> list[tuple[str, int]]:
    rows = [json.loads(line) for file in sorted(answers.rglob("0*.jsonl")) for line in file.read_text().splitlines()]
    return [(row["id"], row["index"]) for row in rows]


def test_distil_sft_and_eval_follow_on_each_other_and_a_kill_loses_nothing(recipe: Path, tmp_path: Path) -> None:
    traces, sft, measured = (str(tmp_path / name) for name in ("traces", "sft", "eval"))
    with serving(Endpoint(solve, pace_s=0.003)) as endpoint:
        with_teacher(recipe, endpoint)
        kill_after(start("distill", str(recipe), "--out", traces), endpoint, 40)
        magistral("distill", str(recipe), "--out", traces, "--resume")
        asked = asked_in(tmp_path / "traces" / "answers")
        assert len(asked) == len(set(asked)) == 4 * 70
        twice = [key for key, n in endpoint.answered.items() if n > 1]
        assert len(twice) <= 2 * N_PARALLEL  # those that were on their way when it was killed
    rows = [json.loads(line) for line in (tmp_path / "traces" / "traces.jsonl").read_text().splitlines()]
    assert len(rows) > 70
    assert all(f"\\boxed{{{row['reference']}}}" in row["summary"] for row in rows)
    general = tmp_path / "general.jsonl"
    conversation = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hello you"}]}
    general.write_text((json.dumps(conversation) + "\n") * 40)
    magistral(
        "sft", str(recipe), "--out", sft, "--set", f'sft.traces=["{traces}"]', "--set", f'sft.general=["{general}"]',
        "--set", "sft.n_traces=500", "--set", "sft.epochs=6",
    )  # fmt: skip
    magistral("eval", str(recipe), "--model", sft, "--out", measured)
    scores = json.loads((tmp_path / "eval" / "eval.json").read_text())["scores"]
    assert scores["well_formed"]["value"] > 0.5


def test_curation_goes_on_after_a_kill_with_the_same_problems_in_the_end(recipe: Path, tmp_path: Path) -> None:
    raw = [{"id": f"p{i}", "question": f"What is {i} + {i + 3}?", "reference": str(2 * i + 3)} for i in range(60)]
    raw += [{"id": "proof", "question": "Prove that 1 + 1 = 2.", "reference": "2"}]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw))
    with serving(Endpoint(solve, pace_s=0.003)) as endpoint:
        with_teacher(recipe, endpoint)
        kill_after(start("curate", str(recipe), "--out", str(tmp_path / "cut")), endpoint, 50)
        magistral("curate", str(recipe), "--out", str(tmp_path / "cut"), "--resume")
        twice = [key for key, n in endpoint.answered.items() if n > 1]
        assert len(twice) <= 2 * N_PARALLEL
        said = magistral("curate", str(recipe), "--out", str(tmp_path / "whole"))
    asked = asked_in(tmp_path / "cut" / "answers")
    assert len(asked) == len(set(asked)) == 4 * 60
    assert (tmp_path / "cut" / "problems.jsonl").read_text() == (tmp_path / "whole" / "problems.jsonl").read_text()
    assert (tmp_path / "cut" / "report.html").exists()
    assert "problems.jsonl" in said


def killed_once(file: Path, n_lines: int, *arguments: str) -> None:
    """The verb, killed when `file` has so many lines, and resumed."""
    process, end = start(*arguments), time.monotonic() + 120
    while not file.exists() or file.read_bytes().count(b"\n") < n_lines:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    magistral(*arguments, "--resume")


def test_sft_and_the_eval_of_a_recipe_go_on_after_a_kill_with_the_same_end(recipe: Path, tmp_path: Path) -> None:
    few = ("--set", "sft.epochs=3", "--set", "sft.eval_every=2", "--set", "problems.n_held_out=40")
    for name in ("cut", "whole"):
        sft = ("sft", str(recipe), "--out", str(tmp_path / f"sft-{name}"), *few)
        measure = ("eval", str(recipe), "--model", str(tmp_path / f"sft-{name}"), "--out", str(tmp_path / f"eval-{name}"), *few)
        if name == "cut":
            killed_once(tmp_path / "sft-cut" / "metrics.jsonl", 5, *sft)
            killed_once(tmp_path / "eval-cut" / "written.jsonl", 20, *measure)
        else:
            magistral(*sft)
            magistral(*measure)
    runs = {name: json.loads((tmp_path / f"sft-{name}" / "run.json").read_text()) for name in ("cut", "whole")}
    assert runs["cut"]["best"] == runs["whole"]["best"]
    found = {name: json.loads((tmp_path / f"eval-{name}" / "eval.json").read_text()) for name in ("cut", "whole")}
    assert found["cut"]["scores"] == found["whole"]["scores"]
    assert not (tmp_path / "eval-cut" / "written.jsonl").exists()


@pytest.mark.slow
def test_a_grader_learns_by_rl_from_the_first_pass_and_grades_the_whole_set(recipe: Path, tmp_path: Path) -> None:
    raw = [{"id": f"p{i}", "question": f"{i % 9} + {i // 9} = ?", "reference": str(i % 9 + i // 9)} for i in range(40)]
    (tmp_path / "raw.jsonl").write_text("".join(json.dumps(row) + "\n" for row in raw))
    changes = [
        "--set", 'curation.difficulty.grader={model="rl", max_tokens=60}', "--set", "rl.steps=2", "--set", "rl.max_skipped=1000",
        "--set", f"model.base={tmp_path / 'sft'}",
    ]  # fmt: skip
    magistral("sft", str(recipe), "--out", str(tmp_path / "sft"))
    with serving(Endpoint(solve)) as endpoint:
        text = with_teacher(recipe, endpoint).read_text(encoding="utf-8")
        start_, end = text.index("[model.scratch]"), text.index("[problems]")
        recipe.write_text(text[:start_] + text[end:], encoding="utf-8")
        magistral("curate", str(recipe), "--out", str(tmp_path / "out"), *changes)
    counts = [json.loads(file.read_text()) for file in sorted((tmp_path / "out" / "stages").glob("*/counts.json"))]
    passes = {c["name"]: c for c in counts}
    assert passes["second-pass"]["in"] == passes["first-pass"]["in"] == 40
    assert 0 < passes["first-pass"]["kept"] < 40
    assert json.loads((tmp_path / "out" / "grader" / "run.json").read_text())["state"] == "done"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("missing.jsonl",), "missing.jsonl cannot be read: No such file or directory"),
        (("recipe.toml",), "has no section [curation]: nothing to do"),
        (("raw.jsonl", "--set", "seed=1"), "--set changes a recipe: name one instead of a file of problems"),
        (("raw.jsonl", "--out", "there"), "there already holds a curation: add --resume to go on with it, or name another --out"),
        (("bad.jsonl",), "bad.jsonl:2: no JSON"),
        (("list.jsonl",), "list.jsonl:1: question: Input should be a valid string"),
    ],
    ids=["no file", "no section", "nothing to set", "in use", "no JSON", "no text"],
)
def test_what_curate_cannot_do_is_one_line(recipe: Path, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "raw.jsonl").write_text('{"question": "What is 1 + 1?", "reference": 2}\n')
    (tmp_path / "bad.jsonl").write_text('{"question": "What is 1 + 1?", "reference": 2}\n{"quest\n')
    (tmp_path / "list.jsonl").write_text('{"question": ["What"], "reference": 2}\n')
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "curation.json").write_text("{}")
    given = arguments if "--out" in arguments else (*arguments, "--out", "out")
    done = subprocess.run(
        [*COMMAND, "curate", *given], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, check=False
    )
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if "error" in line]
    assert said in line
