"""Inspect AI and lm-evaluation-harness measure a model behind our server: a small task of each, on a real socket.

They are looked for on the PATH, or in the folder that MAGISTRAL_OTHERS names (their own virtual environment's bin)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.fakes import Scripted, serving

pytestmark = pytest.mark.slow

INSPECT_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate

@task
def sums():
    return Task(
        dataset=MemoryDataset([Sample(input="2 + 2 = ?", target="4"), Sample(input="3 + 4 = ?", target="8")]),
        solver=generate(), scorer=match(numeric=True),
    )
"""
LM_EVAL_TASK = """
task: sums
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], max_gen_toks: 400}}
filter_list:
  - name: last
    filter:
      - function: regex
        regex_pattern: "answer is (\\\\d+)"
      - function: take_first
metric_list:
  - metric: exact_match
"""


def say(prompt: str) -> str:
    """Thinks of a wrong number and answers the right one, so that a tool which read the thinking would say so."""
    return "<think>\nIs it 99? The answer is 99.\n</think>\nThe answer is " + ("4" if "2 + 2" in prompt else "7")


@pytest.fixture
def url() -> Iterator[str]:
    with serving(Scripted(say)) as address:
        yield address


def tool(name: str) -> str:
    found = shutil.which(name, path=os.pathsep.join(filter(None, [os.environ.get("MAGISTRAL_OTHERS"), os.environ["PATH"]])))
    if found is None:
        pytest.skip(f"{name} is not installed: set MAGISTRAL_OTHERS to the bin folder of an environment that has it")
    return found


def run(command: list[str], folder: Path, **environment: str) -> None:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings = {"OPENAI_API_KEY": "none", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    done = subprocess.run(
        command, cwd=folder, env=kept | settings | environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_inspect_scores_one_of_two_sums(url: str, tmp_path: Path) -> None:
    inspect = tool("inspect")
    (tmp_path / "sums.py").write_text(INSPECT_TASK)
    command = [
        inspect,
        "eval",
        "sums.py",
        "--model",
        "openai/tiny",
        "--log-format",
        "json",
        "--log-dir",
        "logs",
        "--display",
        "none",
    ]
    run(command, tmp_path, OPENAI_BASE_URL=f"{url}/v1")
    (log,) = (tmp_path / "logs").glob("*.json")
    told = json.loads(log.read_text())
    assert told["status"] == "success"
    assert told["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 0.5


def test_lm_eval_scores_one_of_two_sums(url: str, tmp_path: Path) -> None:
    lm_eval = tool("lm_eval")
    rows = [{"question": "2 + 2 = ?", "answer": "4"}, {"question": "3 + 4 = ?", "answer": "8"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "sums.yaml").write_text(LM_EVAL_TASK.format(rows=tmp_path / "rows.jsonl"))
    command = [
        lm_eval, "--model", "local-chat-completions", "--tasks", "sums", "--include_path", "tasks", "--apply_chat_template",
        "--output_path", "out", "--model_args", f"model=tiny,base_url={url}/v1/chat/completions,num_concurrent=1,max_retries=1",
    ]  # fmt: skip
    run(command, tmp_path)
    (result,) = (tmp_path / "out").rglob("results*.json")
    assert json.loads(result.read_text())["results"]["sums"]["exact_match,last"] == 0.5
