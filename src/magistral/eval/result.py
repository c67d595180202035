"""A finished measurement's eval.json: everything that a report says, so that the report reads nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magistral.errors import UserError
from magistral.eval import summary
from magistral.eval.judge import equality
from magistral.eval.protocol import PROTOCOLS, Measuring, departures, missing
from magistral.eval.published import is_another_aime, published
from magistral.eval.store import how_asked, lines, read_verdicts
from magistral.flow import Problem
from magistral.log import plain, write_atomically
from magistral.verifiers.judges import Judges

if TYPE_CHECKING:
    import pyarrow as pa

SETTINGS = ("benchmark", "model", "n_problems", "n_runs", "seed", "data", "selection", "system")
N_HARDEST = 10
TRACES_EACH = 2
"""Of each of the hardest problems: a right completion if there is one, and a wrong one."""
MAX_CHARACTERS = 8000
"""Of one text in eval.json."""


def sum_up(
    m: Measuring, problems: Sequence[Problem], folder: Path, judges: Judges, asking: Mapping[str, Any], *, private: bool
) -> None:
    """Write verdicts.parquet and eval.json. `asking`: what is to be said of how it was asked: seconds, engine_busy, prices.

    Raises RunFailed where nothing could be judged."""
    import pyarrow.parquet as pq

    verdicts = summary.with_classes(read_verdicts(folder / "verdicts.jsonl"), lambda kind: equality(kind, judges))
    temporary = folder / ".verdicts.partial"
    pq.write_table(verdicts, temporary)
    temporary.replace(folder / "verdicts.parquet")
    counts, how = summary.counted(verdicts), how_asked(folder)
    references = [p.reference for p in problems]
    result = {
        **{name: getattr(m, name) for name in SETTINGS},
        "weights": how.weights,
        "departures": [
            *departures(m, how), *missing(m, (p.language for p in problems)), *_guesses(verdicts),
            *(["not of AIME 2024, as the published numbers are"] if is_another_aime(m.benchmark, references) else []),
        ],
        "comparable": PROTOCOLS[m.benchmark].of_paper, **asking,
        "dropped": verdicts.num_rows - int(counts.n.sum()),
        "scores": summary.scores(counts), "at_every_k": summary.at_every_k(counts),
        "by_family": summary.by(counts, counts.family), "by_language": summary.by(counts, counts.language),
        "by_length": summary.by_length(verdicts), "totals": summary.totals(verdicts, asking["prices"]),
        "published": [row._asdict() for row in published(m.benchmark, references)], "compared": [],
        "hardest": hardest_problems(verdicts, counts, problems, folder, private=private),
    }  # fmt: skip
    write_result(folder, result)


def _guesses(verdicts: pa.Table) -> list[str]:
    import pyarrow.compute as pc

    n = pc.sum(verdicts["guessed"]).as_py() or 0  # null in verdicts of before
    return [f"the tokens of {n} completions are guessed from their characters: the endpoint's count cannot be true"] if n else []


def hardest_problems(
    verdicts: pa.Table, counts: summary.Counts, problems: Sequence[Problem], folder: Path, *, private: bool
) -> list[dict[str, Any]]:
    """The problems with the fewest right completions, and traces of them; of a private benchmark without any text."""
    rates, by_id = summary.hardest(counts, N_HARDEST), {p.id: p for p in problems}
    found: dict[str, dict[str, Any]] = {
        name: {"problem_id": name, "right": rate, "family": by_id[name].family, "question": "", "reference": "", "traces": []}
        for name, rate in rates.items()
    }
    if private:
        return list(found.values())
    chosen = _chosen(verdicts, rates)
    for name, record in found.items():
        record |= {"question": by_id[name].question[:MAX_CHARACTERS], "reference": _reference(by_id[name])}
    for kept in lines(folder / "completions.jsonl"):
        if (row := chosen.get((kept["problem_id"], kept["index"]))) is not None:
            found[kept["problem_id"]]["traces"].append({
                **{name: row[name] for name in ("index", "outcome", "reason", "answer", "n_tokens", "finish")},
                "thinking": _cut(kept["thinking"]), "summary": _cut(kept["summary"]),
            })  # fmt: skip
    return list(found.values())


def _chosen(verdicts: pa.Table, names: Iterable[str]) -> dict[tuple[str, int], dict[str, Any]]:
    """The first right and the first wrong completion of each problem, else the first two."""
    import pyarrow as pa
    import pyarrow.compute as pc

    part = verdicts.filter(pc.is_in(verdicts["problem_id"], pa.array(list(names), pa.string()))).to_pylist()
    kept: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(part, key=lambda row: (row["outcome"] != "right", row["index"])):
        kept.setdefault(row["problem_id"], []).append(row)
    return {
        (name, row["index"]): row
        for name, rows in kept.items()
        for row in ([rows[0], *[r for r in rows[1:] if r["outcome"] != "right"]])[:TRACES_EACH]
    }


def _reference(problem: Problem) -> str:
    return "its tests" if problem.kind == "code" else problem.reference[:MAX_CHARACTERS]


def _cut(text: str) -> str:
    """The start and the end: where a thinking begins and what it came to."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    return f"{text[:half]}\n… ({len(text) - 2 * half} characters) …\n{text[-half:]}"


def compare(mine: Path, other: Path) -> dict[str, Any] | None:
    """Two measurements of one benchmark, by the folders of their runs; None where `other` has not measured it to its end.

    `flags` says what makes them differ beside the model: one should not read the difference as the model's then.
    Raises UserError where they have no problem in common."""
    import pyarrow.parquet as pq

    if not (other / "eval.json").exists():
        return None
    a, b = (json.loads((path / "eval.json").read_text(encoding="utf-8")) for path in (mine, other))
    counts = [summary.counted(pq.read_table(path / "verdicts.parquet")) for path in (mine, other)]
    flags = [f"{name} {a[name]} against {b[name]}" for name in ("n_runs", "data") if a[name] != b[name]]
    if a.get("weights", "") != b.get("weights", ""):  # neither stood in files of before
        flags.append(f"weights {a.get('weights') or 'unknown'} against {b.get('weights') or 'unknown'}")
    if a.get("system", "") != b.get("system", ""):
        flags.append("their system prompts")
    flags += [f"{who}: {line}" for who, run in (("ours", a), ("the other", b)) for line in run["departures"]]
    try:
        return {"with": b["model"], "flags": flags, **summary.paired(*counts)}
    except UserError as e:
        raise UserError(f"{mine} and {other} cannot be compared: {e}") from None


def write_result(folder: Path, result: Mapping[str, Any]) -> None:
    write_atomically(folder / "eval.json", json.dumps(plain(result), indent=1, ensure_ascii=False) + "\n")


def add_comparisons(folder: Path, others: Sequence[Path]) -> None:
    """Compare with the runs of the same benchmark in other folders, and keep it in eval.json."""
    result = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
    found = [compare(folder, other / folder.name) for other in others]
    write_result(folder, result | {"compared": [c for c in found if c is not None]})
