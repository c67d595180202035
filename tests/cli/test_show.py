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
