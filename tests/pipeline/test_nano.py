"""The nano recipe from nothing to RL through the command itself: reward rises, kill -9 loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from magistral.log import read_run

ROOT = Path(__file__).parents[2]
RECIPE = str(ROOT / "recipes" / "nano.toml")
COMMAND = [sys.executable, "-c", "from magistral.cli.main import main; main()"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def magistral(*arguments: str, expect: int = 0) -> str:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)
    assert done.returncode == expect, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("nano") / "sft"
    magistral("sft", RECIPE, "--out", str(out), "--threads", "1")
    return out


@pytest.fixture(scope="module")
def rl(sft: Path) -> Path:
    out = sft.parent / "rl"
    magistral("rl", RECIPE, "--model", str(sft), "--out", str(out), "--threads", "1")
    return out


def rewards(run: Path) -> list[float]:
    return [m["values"]["reward/mean"] for m in read_run(run).metrics()]


def groups_by_step(run: Path) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for row in read_run(run).traces():
        found.setdefault(row["group"], set()).add(row["step"])
    return found


def test_sft_finds_the_form(sft: Path) -> None:
    out = sft.parent / "eval"
    magistral("eval", RECIPE, "--model", str(sft), "--out", str(out), "--threads", "1")
    result: dict[str, Any] = json.loads((out / "eval.json").read_text())
    assert result["scores"]["well_formed"]["value"] > 0.2
    assert result["n_problems"] == 30


def test_reward_rises(rl: Path) -> None:
    curve = rewards(rl)
    assert fmean(curve[-10:]) > fmean(curve[:10]) + 0.015  # the form alone pays 0.2


def test_completions_live_through_weight_updates_within_the_bound(rl: Path) -> None:
    rows = list(read_run(rl).traces())
    assert any(len(set(row["versions"])) > 1 for row in rows)  # in flight
    assert all(row["versions"] == sorted(row["versions"]) for row in rows)
    assert max(m["values"]["staleness"] for m in read_run(rl).metrics()) <= 2


def test_a_finished_run_is_left_as_it_is(rl: Path, sft: Path) -> None:
    before = (rl / "metrics.jsonl").read_bytes()
    assert "finished before" in magistral("rl", RECIPE, "--model", str(sft), "--out", str(rl), "--resume")
    assert (rl / "metrics.jsonl").read_bytes() == before
    refused = magistral("rl", RECIPE, "--model", str(sft), "--out", str(rl), expect=2)
    assert "already holds a run: add --resume" in refused


def test_a_killed_run_resumes_and_asks_every_problem_exactly_once(sft: Path, tmp_path: Path) -> None:
    out = tmp_path / "rl"
    arguments = ["rl", RECIPE, "--model", str(sft), "--out", str(out), "--threads", "1"]
    child = subprocess.Popen([*COMMAND, *arguments], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for_step(out, 6, child)
    in_use = magistral(*arguments, "--resume", expect=2)
    assert "in use by another process" in in_use
    child.send_signal(signal.SIGKILL)
    child.wait()
    magistral(*arguments, "--resume")
    steps = [m["step"] for m in read_run(out).metrics()]
    assert steps == list(range(1, len(steps) + 1))
    groups = groups_by_step(out)
    assert all(len(s) == 1 for s in groups.values())  # none twice
    rows = Counter(row["group"] for row in read_run(out).traces())
    assert set(rows.values()) == {8}  # whole groups
    n_in_flight = 128 // 8
    missing = set(range(max(groups) + 1)) - set(groups)
    assert len(missing) < n_in_flight  # none skipped: what is missing was in flight at the end


def wait_for_step(out: Path, step: int, child: subprocess.Popen[bytes]) -> None:
    for _ in range(2400):
        assert child.poll() is None, "the run ended before it could be killed"
        if (out / "run.json").exists() and any(m["step"] >= step for m in read_run(out).metrics()):
            return
        time.sleep(0.05)
    raise AssertionError("no step within two minutes")
