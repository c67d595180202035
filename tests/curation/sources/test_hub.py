"""A data set of a hub is read at its commit, with its licence; a folder of the same form needs no hub."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from magistral.curation import problems
from magistral.curation.candidate import benchmark_questions, raw_candidates
from magistral.curation.sources import hub
from magistral.errors import UserError
from magistral.recipe import Problems

datasets = pytest.importorskip("datasets", reason="data sets of a hub need the package datasets")
COMMIT = "e53f048856ff4f594e959d75785d2c2d37b678ee"
ONE_LINE = r"^[^\n]*$"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits, as `datasets` finds them by the names of the files, and a card."""
    (tmp_path / "sums" / "data").mkdir(parents=True)
    for split, n in (("train", 9), ("test", 2)):
        rows = [{"prompt": f"{i} + 1 = ?", "answer": i + 1, "solutions": ["by counting"], "at": split} for i in range(n)]
        (tmp_path / "sums" / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sums" / "README.md").write_text("---\nlicense: mit\n---\nSums.\n")
    return tmp_path / "sums"


def test_a_folder_s_rows_are_candidates_with_its_licence_and_where_they_are_from(folder: Path) -> None:
    found = list(raw_candidates([Path(f"hf:{folder}?split=test&question=prompt&solutions=")]))
    assert [(c.id, c.question, c.reference) for c in found] == [("sums-1", "0 + 1 = ?", "1"), ("sums-2", "1 + 1 = ?", "2")]
    assert {(c.licence, c.origin, c.solutions) for c in found} == {("mit", f"hf:{folder}", ())}


def test_a_recipe_takes_its_problems_from_there_and_a_curation_its_benchmark(folder: Path) -> None:
    options = {"path": f"hf:{folder}", "question": "prompt", "reference": "answer"}
    wanted = {"source": "files", "n_train": 6, "n_held_out": 3, "families": [{"name": "sums", "options": options}]}
    train, held_out = problems(Problems.model_validate(wanted))
    assert len({p.question for p in train + held_out}) == 9
    questions = [question for _, question, _ in benchmark_questions([f"hf:{folder}?split=test"], Path())]
    assert questions == ["0 + 1 = ?", "1 + 1 = ?"]


def test_a_revision_is_asked_for_once_and_read_at_the_commit_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def info(_: object, name: str, *, revision: str, timeout: float) -> SimpleNamespace:
        asked.append((name, revision))
        return SimpleNamespace(sha=COMMIT, card_data=SimpleNamespace(license=["mit", "cc-by-4.0"]))

    def load(*place: str, **how: Any) -> list[dict[str, Any]]:
        asked.append((*place, how))
        return [{"question": "1 + 1 = ?", "answer": "2"}, {"question": "2 + 2 = ?", "answer": "4", "licence": "own"}]

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", info)
    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = list(hub.rows(Path("hf:openai/gsm8k@v1?config=main&split=test&reference=answer")))
    how = {"split": "test", "revision": COMMIT, "streaming": True}
    assert asked == [("openai/gsm8k", "v1"), ("openai/gsm8k", "main", how)]
    assert rows[0].where == f"hf:openai/gsm8k@{COMMIT}, row 1"
    assert rows[0].values == {
        "question": "1 + 1 = ?", "answer": "2", "reference": "2",
        "licence": "mit, cc-by-4.0", "origin": f"hf:openai/gsm8k@{COMMIT}",
    }  # fmt: skip
    assert rows[1].values["licence"] == "own"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("hf:openai/gsm8k", "write hf:OWNER/NAME@REVISION"),
        ("hf:gsm8k@main", "write hf:OWNER/NAME@REVISION"),
        ("hf:./nowhere", "no folder at ./nowhere"),
        ("hf:{folder}?split=dev", "Bad split: dev. Available splits: ['train', 'test']"),
        ("hf:{folder}?config=other", "config"),
        ("hf:{folder}?question=promt", "row 1: no column 'promt'; did you mean 'prompt'"),
        ("hf:openai/gsm8k@main", "name its folder: hf:./FOLDER"),
    ],
    ids=["no revision", "no owner", "no folder", "no such split", "no such config", "no such column", "no hub"],
)
def test_what_cannot_be_had_is_said(place: str, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=ONE_LINE) as e:
        list(hub.rows(Path(place.format(folder=folder))))
    assert said in str(e.value)


def test_a_missing_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'open-magistral\[hub\]'"):
        list(hub.rows(Path("hf:openai/gsm8k@main")))
