"""The curriculum: kept problems in pools by pass rate, from easy to hard, as files that a recipe may name one after another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from magistral.curation.candidate import read_candidates
from magistral.curation.difficulty import pass_rate
from magistral.log import write_atomically


def write_pools(kept: Path, folder: Path, cuts: Sequence[float]) -> dict[str, int]:
    """problems.jsonl with all, pool-1.jsonl (easiest) to pool-N.jsonl; returns how many are in each.

    A problem that no pass graded is in problems.jsonl alone; where none was, there are no pools."""
    names = ["problems", *(f"pool-{i}" for i in range(1, len(cuts) + 2))]
    counts = dict.fromkeys(names, 0)
    with ExitStack() as files:
        open_ = {name: files.enter_context((folder / f".{name}.partial").open("w", encoding="utf-8")) for name in names}
        for candidate in read_candidates(kept):
            rate = pass_rate(candidate)
            pools = ["problems"] if rate is None else ["problems", f"pool-{1 + sum(rate < cut for cut in cuts)}"]
            for name in pools:
                open_[name].write(candidate.line)
                counts[name] += 1
    if counts["problems"] and not sum(counts[name] for name in names[1:]):  # nothing was graded
        for name in names[1:]:
            (folder / f".{name}.partial").unlink()
            del counts[name]
    for name in counts:
        (folder / f".{name}.partial").replace(folder / f"{name}.jsonl")
    write_atomically(folder / "pools.json", json.dumps(counts, indent=1) + "\n")
    return counts
