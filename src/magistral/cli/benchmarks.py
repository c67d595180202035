"""`magistral eval BENCHMARK…`: from what a person wishes to measurements, their report, and judging again."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from magistral.cli.served import Means
from magistral.cli.voices import prompt_of, voice_of
from magistral.cli.wiring import progress, unfinished
from magistral.curation.sources.benchmarks import BENCHMARKS, Selection, read_benchmark
from magistral.errors import RunFolderError, UserError
from magistral.eval.ask import data_hash, plan, selected
from magistral.eval.measure import Asking, Grading, Voice, changed, judge_stored, require_all
from magistral.eval.protocol import PROTOCOLS, TEMPERATURE, Measuring
from magistral.eval.result import add_comparisons, sum_up
from magistral.eval.store import Lines, lines
from magistral.log import write_atomically
from magistral.pipeline.curriculum import seed_of
from magistral.show.visible import visible

if TYPE_CHECKING:
    from magistral.flow import Problem
    from magistral.verifiers.judges import Judges

Prices = tuple[float, float] | None
"""Of a million tokens, read and written."""
N_SHOWN = 20
"""Changed verdicts that `--regrade` prints; all are in changes.jsonl."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What changes a number. None: as the benchmark's protocol says."""

    model: str | None
    data: Path | None
    selection: Selection
    n_problems: int | None = None
    n_runs: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int = 0
    system: str | None = None
    version: str | None = None


def _given(data: Path | None) -> Path:
    if data is None:
        raise UserError("benchmarks are read from files that you have: name their folder with --data (docs/evaluation.md)")
    return data


def problems_of(name: str, wishes: Wishes) -> list[Problem]:
    found = read_benchmark(name, _given(wishes.data), wishes.selection)
    return found if wishes.n_problems is None else selected(found, wishes.n_problems, wishes.seed)


def settings_of(name: str, wishes: Wishes, model: str, problems: list[Problem]) -> Measuring:
    p = PROTOCOLS[name]

    def wish(value: Any, default: Any) -> Any:
        return default if value is None else value

    return Measuring(
        name=name, benchmark=name, model=model, seed=wishes.seed, n_problems=len(problems), data=data_hash(problems),
        selection=_said(name, wishes), n_runs=wish(wishes.n_runs, p.n_runs), temperature=wish(wishes.temperature, TEMPERATURE),
        top_p=wish(wishes.top_p, p.top_p), max_tokens=wish(wishes.max_tokens, p.max_tokens),
        system=prompt_of(model, wishes.version, wishes.system).system, version=wishes.version or "text",
    )  # fmt: skip


def _said(name: str, wishes: Wishes) -> str:
    s = wishes.selection
    told = {
        "languages": f"languages {', '.join(s.languages)}",
        "first_day": f"contests from {s.first_day}",
        "last_day": f"contests up to {s.last_day}",
        "errata": "with the problems that its errata call unfit",
    }
    parts = [f"{wishes.n_problems} of the problems"] if wishes.n_problems else []
    return "; ".join(parts + [text for field, text in told.items() if field in BENCHMARKS[name].selects and getattr(s, field)])


def _require_used(names: list[str], selection: Selection) -> None:
    """Raises UserError where a choice of problems means nothing to any of the benchmarks."""
    for field in ("languages", "first_day", "last_day", "errata"):
        if getattr(selection, field) and not any(field in BENCHMARKS[name].selects for name in names):
            able = ", ".join(name for name in BENCHMARKS if field in BENCHMARKS[name].selects)
            raise UserError(f"{', '.join(names)}: no choice of {field.replace('_', ' ')} there; it goes with {able}")


def measure_all(names: list[str], wishes: Wishes, means: Means, judges: Judges, out: Path, *, resume: bool) -> None:
    """One run's folder for each benchmark, under `out`. What is wrong with any is said before the model is asked anything."""
    model = wishes.model
    if model is None:
        raise UserError("name what is to be measured with --model: smollm2, a folder, a .gguf file, a run, or NAME=URL")
    _require_used(names, wishes.selection)
    found = {name: problems_of(name, wishes) for name in names}
    work = [(problems, settings_of(name, wishes, model, problems)) for name, problems in found.items()]
    prompt = prompt_of(model, wishes.version, wishes.system)
    with voice_of(model, prompt, means, longest=max(m.max_tokens for _, m in work)) as voice:
        for problems, m in work:
            with unfinished(out / m.name, m, "eval", model, resume=resume) as folder:
                if folder is not None:
                    _measure(m, problems, voice, judges, folder.path, means.prices)


def _measure(m: Measuring, problems: list[Problem], voice: Voice, judges: Judges, folder: Path, prices: Prices) -> None:
    """Ask, judge and sum up one benchmark, or what a run that was cut short left of it."""
    with Lines(folder / "completions.jsonl") as completions, Lines(folder / "verdicts.jsonl") as verdicts:
        done = completions.keys()
        left = plan(problems, m.n_runs, lambda name, index: seed_of(m.seed, "eval", name, index), done)
        with (
            progress(f"eval: {m.name}", len(problems) * m.n_runs, len(done)) as advance,
            Grading(judges, verdicts, problems) as grading,
        ):
            judge_stored(completions, verdicts.keys(), grading)
            spent = Asking(m, voice, completions, grading).all_of(left, on_written=advance)
    require_all(spent)
    asking = {"seconds": spent.seconds, "engine_busy": spent.busy_share, "prices": prices}
    sum_up(m, problems, folder, judges, asking, private=BENCHMARKS[m.name].private)


def regrade_all(out: Path, data: Path | None, judges: Judges) -> None:
    """Judge what is stored again, with this version's verifiers and the references in `data`; say which verdicts changed."""
    data = _given(data)
    for folder in runs_in(out):
        m = Measuring.model_validate(tomllib.loads((folder / "recipe.toml").read_text(encoding="utf-8")))
        asked = {row["problem_id"] for row in lines(folder / "completions.jsonl")}
        problems = [p for p in read_benchmark(m.name, data, Selection(errata=True)) if p.id in asked]
        if missing := asked - {p.id for p in problems}:
            raise UserError(f"{data} lacks {len(missing)} problems that {folder} holds answers to, as {min(missing)!r}")
        if (now := data_hash(problems)) != m.data:
            typer.echo(f"{m.name}: {data} is not what was asked: verdicts may change because of it")
            m = m.model_copy(update={"data": now})
        changes = _judge_again(folder, problems, judges)
        before = json.loads((folder / "eval.json").read_text(encoding="utf-8"))
        asking = {name: before[name] for name in ("seconds", "engine_busy", "prices")}
        sum_up(m, problems, folder, judges, asking, private=BENCHMARKS[m.name].private)
        typer.echo(f"{m.name}: {len(changes)} verdicts changed ({folder / 'changes.jsonl'})")
        for change in changes[:N_SHOWN]:
            was, now = change["before"], change["after"]
            told = f"{was['outcome']} ({was['reason']}) -> {now['outcome']} ({now['reason']})"
            typer.echo(visible(f"  {change['problem_id']} #{change['index']}: {told}"))


def _judge_again(folder: Path, problems: list[Problem], judges: Judges) -> list[dict[str, Any]]:
    """The new verdicts take the old ones' place when all are there."""
    new = folder / "verdicts.new.jsonl"
    new.unlink(missing_ok=True)
    with Lines(folder / "completions.jsonl") as completions, Lines(new) as verdicts:
        with Grading(judges, verdicts, problems) as grading:
            judge_stored(completions, (), grading)
        before = {(row["problem_id"], row["index"]): row for row in lines(folder / "verdicts.jsonl")}
        compared = [(before.get((row["problem_id"], row["index"])), row) for row in verdicts]
    changes = [c for old, row in compared if old is not None and (c := changed(old, row)) is not None]
    changes.sort(key=lambda c: (c["problem_id"], c["index"]))
    write_atomically(folder / "changes.jsonl", "".join(json.dumps(c, ensure_ascii=False) + "\n" for c in changes))
    new.replace(folder / "verdicts.jsonl")
    return changes


def runs_in(out: Path) -> list[Path]:
    """The finished measurements under `out`. Raises RunFolderError where there is none."""
    found = sorted(path.parent for path in out.glob("*/eval.json") if (path.parent / "completions.jsonl").exists())
    if not found:
        raise RunFolderError(f"{out} holds no finished measurement of a benchmark: name the folder that --out named")
    return found


def report(out: Path, others: list[Path]) -> None:
    """Write report.html and report.md beside the measurements, and print the table."""
    from magistral.show.benchmarks import read_measurements, table, write_report

    for folder in runs_in(out):
        if others:
            add_comparisons(folder, others)
    measured = read_measurements(out)
    write_report(measured, out, title=out.resolve().name)
    typer.echo(table(measured))
    typer.echo(f"report: {out / 'report.html'}, {out / 'report.md'}")
