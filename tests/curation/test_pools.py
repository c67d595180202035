from __future__ import annotations

from pathlib import Path

from magistral.curation.candidate import Candidate
from magistral.curation.pools import write_pools


def kept(folder: Path, rates: list[float | None]) -> Path:
    file = folder / "kept.jsonl"
    candidates = [Candidate(id=str(i), question="q", reference="1") for i in range(len(rates))]
    graded = [c if rate is None else c.noted("grade", {"pass_rate": rate}) for c, rate in zip(candidates, rates, strict=True)]
    file.write_text("".join(c.line for c in graded))
    return file


def test_a_pass_rate_on_a_cut_is_of_the_easier_pool(tmp_path: Path) -> None:
    counts = write_pools(kept(tmp_path, [0.9, 0.6, 0.59, 0.3, 0.1, None]), tmp_path, (0.6, 0.3))
    assert counts == {"problems": 6, "pool-1": 2, "pool-2": 2, "pool-3": 1}


def test_without_grades_there_are_no_pools(tmp_path: Path) -> None:
    assert write_pools(kept(tmp_path, [None, None]), tmp_path, (0.5,)) == {"problems": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.jsonl", "pools.json", "problems.jsonl"]
