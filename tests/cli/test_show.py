"""`magistral show`, as typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def show(*arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import typer; from magistral.cli.show import command; typer.run(command)"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, env=os.environ)


def test_it_prints_the_summary_and_the_path_of_the_report(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"stage": "rl", "state": "running", "started": 1.0}))
    done = show(str(tmp_path))
    assert done.returncode == 0
    assert "killed" in done.stdout
    assert done.stdout.endswith(f"report: {tmp_path}/report.html\n")
    assert "<!doctype html>" in (tmp_path / "report.html").read_text()


def test_why_says_who_waited_and_whether_the_ledger_adds_up(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"stage": "rl", "state": "running", "started": 1.0}))
    wait = {"who": "train", "for": "verify", "what": "3 of 8 groups are scored", "since": 1.0}
    (tmp_path / "waits.json").write_text(json.dumps({"waits": [wait], "workers": {}, "faults": []}))
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "closed.jsonl").write_text("")
    done = show(str(tmp_path), "--why")
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first.startswith("no process holds this run")
    assert second.startswith("train waits for verify, since")
    assert second.endswith("3 of 8 groups are scored")
    assert third == "step 0: 0 groups asked: 0 trained on, 0 dropped, 0 open with 0 tokens written"
    assert not (tmp_path / "report.html").exists()
