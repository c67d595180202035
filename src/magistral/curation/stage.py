"""Stages one after another, each with files of its own, so that a run goes on after kill -9 with the first unfinished one.

stages/01-format/kept.jsonl      candidates that go on
stages/01-format/dropped.jsonl   {"reason", "detail", "candidate"} of each that does not
stages/01-format/counts.json     {"name", "reads", "in", "kept", "dropped": {reason: n}, "changed": {what: n}, "seconds"}

A stage's folder gets its name when all is in it. What a stage asks engines is kept beside it (engines/ask.py), so a stage
that is cut short begins anew and asks nothing twice. One candidate is held at a time.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from magistral.curation.candidate import Candidate, read_candidates


@dataclass(frozen=True, slots=True)
class Dropped:
    candidate: Candidate
    reason: str
    """The same few words for all that are dropped for it, as "proof": they are counted."""
    detail: str = ""


Filter = Callable[[Iterator[Candidate]], Iterator[Candidate | Dropped]]
"""What comes out is in the order of what went in; a candidate may become none, one, or more."""


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    filter: Filter
    reads: str = ""
    """The stage whose kept candidates it reads; empty: the one before it."""


Watch = Callable[[str, int], None]
"""Told a stage's name and how many candidates it has read since it last said."""


def run_stages(stages: Sequence[Stage], raw: Iterable[Candidate], folder: Path, watch: Watch = lambda _n, _i: None) -> Path:
    """The last stage's candidates. `raw` is read only where the first stage has not been finished before."""
    source: Iterable[Candidate] = raw
    kept: dict[str, Path] = {}
    for number, stage in enumerate(stages, 1):
        done = folder / "stages" / f"{number:02}-{stage.name}"
        if not done.exists():
            _run(stage, read_candidates(kept[stage.reads]) if stage.reads else source, done, watch)
        kept[stage.name] = done / "kept.jsonl"
        source = read_candidates(kept[stage.name])
    return kept[stages[-1].name]


def _run(stage: Stage, source: Iterable[Candidate], done: Path, watch: Watch) -> None:
    partial = done.with_name(f".{done.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    start, n_in = time.time(), 0
    dropped, changed = Counter[str](), Counter[str]()
    n_kept = 0

    def counted() -> Iterator[Candidate]:
        nonlocal n_in
        for candidate in source:
            n_in += 1
            watch(stage.name, 1)
            yield candidate

    with (partial / "kept.jsonl").open("w", encoding="utf-8") as kept, (partial / "dropped.jsonl").open("w") as left:
        for found in stage.filter(counted()):
            if isinstance(found, Dropped):
                dropped[found.reason] += 1
                row = {"reason": found.reason, "detail": found.detail, "candidate": json.loads(found.candidate.line)}
                left.write(json.dumps(row) + "\n")
            else:
                n_kept += 1
                if isinstance(what := found.notes.get(stage.name), str):
                    changed[what] += 1
                kept.write(found.line)
    counts = {
        "name": stage.name, "reads": stage.reads, "in": n_in, "kept": n_kept, "dropped": dict(dropped.most_common()),
        "changed": dict(changed.most_common()), "seconds": round(time.time() - start, 3),
    }  # fmt: skip
    (partial / "counts.json").write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    partial.rename(done)
