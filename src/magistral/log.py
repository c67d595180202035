"""A run is a folder of files that anybody can read; every view of it reads these and nothing else.

run.json            what ran: stage, name, model, versions, machine, seed; `state` is running, done, stopped or failed
recipe.toml         the resolved recipe
metrics.jsonl       a line a step: {"step": 3, "time": …, "values": {…}}, and a "note" where there is one
traces/*.parquet    a row a completion, one file a step (columns: TRACE_SCHEMA)
ledger/             what became of each asking, and what is written of those that are open (an rl run)
waits.json          who waits for whom, since when (an rl run)
checkpoints/        step-000010/: the model in Hugging Face format, and what the trainer needs to go on
eval.json           scores with intervals (an eval run; of a benchmark beside the files of eval/store.py)
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import platform
import shutil
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from magistral.errors import DiscFull, RunFolderError, UserError
from magistral.flow import Scored, encodable
from magistral.recipe import Recipe, Resolved, save_recipe

BEGUN = frozenset({"run.json", ".run.json.partial", "recipe.toml", "lock"})
"""What a run has before its work writes anything."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises DiscFull naming `path` where the disc fills meanwhile: of what writes there, each says so in its own way."""
    try:
        yield
    except Exception as e:
        if getattr(e, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(e):
            raise DiscFull(f"no space left on the disc at {path}: free some, then run the same command with --resume") from e
        raise


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Where to write what is to be `path`: under that name a file is whole or absent, whatever happens. Raises DiscFull."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with writing(path):
            yield partial
            partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)  # it may be what fills the disc
        raise


def write_atomically(path: Path, text: str) -> None:
    """As `whole`, and on the disc when this returns."""
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def append(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """To a JSONL file. A kill or a full disc may cut the last line short: readers leave that out. Raises DiscFull."""
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def plain(value: Any) -> Any:
    """Infinity and NaN are no JSON: an open bound is null."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def machine() -> dict[str, Any]:
    """What numbers must be read with: processor, cores, memory, versions."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    packages = ("open-magistral", "torch", "numpy", "tokenizers", "reasoning-gym")
    installed = {d.metadata["Name"].replace("_", "-"): d.version for d in metadata.distributions() if d.metadata["Name"]}
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        **{name: installed[name] for name in packages if name in installed},
    }


@dataclass(frozen=True)
class RunFolder:
    """One run's files. Make one with `open_run` (to write) or `read_run` (to look)."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @contextmanager
    def new_checkpoint(self, step: int, n_bytes: int) -> Iterator[Path]:
        """A folder to write into, which gets its final name only when the work inside has ended well. Raises DiscFull."""
        self.checkpoints.mkdir(exist_ok=True)
        require_space(self.checkpoints, n_bytes)
        partial, final = self.checkpoints / ".partial", self.checkpoints / f"step-{step:06d}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            with writing(final):
                partial.mkdir()
                yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)

    def info(self) -> dict[str, Any]:
        """Raises RunFolderError where run.json cannot be read."""
        return read_object(self.path / "run.json")

    @property
    def state(self) -> str:
        """As run.json says it; `killed` where it says running and nobody holds the lock, which the kernel drops at a death."""
        said = str(self.info().get("state", "stopped"))
        if said != "running":
            return said
        try:
            with (self.path / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return said
        except OSError:
            return "killed"
        return "killed"

    def set_info(self, **changes: Any) -> None:
        file = self.path / "run.json"
        known = self.info() if file.exists() else {}
        write_atomically(file, json.dumps({**known, **changes}, indent=1) + "\n")

    def add_metrics(self, step: int, values: Mapping[str, float], note: str = "") -> None:
        """`note`: as of a StepReport."""
        line = {"step": step, "time": round(time.time(), 3), "values": dict(values)} | ({"note": note} if note else {})
        append(self.path / "metrics.jsonl", [line])

    def metrics(self) -> list[dict[str, Any]]:
        """All whole lines; a last line cut short by a crash is left out. Raises RunFolderError for a line that is none."""
        file = self.path / "metrics.jsonl"
        if not file.exists():
            return []
        lines = file.read_bytes().split(b"\n")
        return [_metrics_line(file, n, line) for n, line in enumerate(lines[:-1], start=1) if line]

    def forget_after(self, step: int) -> None:
        """Drop metrics and traces of steps after `step`: a resumed run takes those steps again."""
        kept = [json.dumps(m) for m in self.metrics() if m["step"] <= step]
        if (self.path / "metrics.jsonl").exists():
            write_atomically(self.path / "metrics.jsonl", "".join(line + "\n" for line in kept))
        for file in (self.path / "traces").glob("step-*.parquet"):
            if int(file.stem.removeprefix("step-")) > step:
                file.unlink()

    def write_traces(
        self, name: str, scored: Sequence[Scored], *, step: int, advantages: Sequence[float | None] | None = None
    ) -> None:
        """`name` as "step-000001" or "eval". An advantage of None: not trained on."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [_trace_row(s, step, a) for s, a in zip(scored, advantages or [None] * len(scored), strict=True)]
        folder = self.path / "traces"
        folder.mkdir(exist_ok=True)
        with whole(folder / f"{name}.parquet") as partial:
            pq.write_table(pa.Table.from_pylist(rows), partial)

    def traces(self) -> Iterator[dict[str, Any]]:
        """Rows of all traces, file by file in the order of their names. Raises RunFolderError naming a broken one."""
        import pyarrow.parquet as pq

        for file in sorted((self.path / "traces").glob("*.parquet")):
            try:
                rows = pq.read_table(file).to_pylist()
            except (OSError, ValueError) as e:
                said = str(e).partition("\n")[0]
                raise RunFolderError(f"{file} cannot be read ({said}): remove it to see the others") from None
            yield from rows


def read_object(file: Path) -> dict[str, Any]:
    """A run's JSON file. Raises RunFolderError where it cannot be read."""
    try:
        return _object(file.read_bytes())
    except (OSError, ValueError, RecursionError) as e:
        raise RunFolderError(f"{file} cannot be read ({e}): the run is broken; name another folder") from None


def _object(text: bytes) -> dict[str, Any]:
    """Raises ValueError (or RecursionError) where `text` is no JSON object."""
    value = json.loads(text.decode("utf-8"))
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    return value


def _metrics_line(file: Path, n: int, text: bytes) -> dict[str, Any]:
    try:
        line = _object(text)
        step = line.get("step")
        if type(step) is not int or not 0 <= step < 2**53 or not isinstance(line.get("values"), dict):
            raise ValueError("no step with its values")
    except (ValueError, RecursionError) as e:
        raise RunFolderError(f"{file}, line {n} cannot be read ({e}): remove that line") from None
    return line


def _trace_row(scored: Scored, step: int, advantage: float | None) -> dict[str, Any]:
    c, p, r, v = scored.completion, scored.completion.problem, scored.reward, scored.verdict
    row = {
        "step": step,
        "group": c.group,
        "index": c.index,
        "problem_id": p.id,
        "family": p.family,
        "question": p.question,
        "reference": p.reference,
        "language": p.language,
        "seed": c.seed,
        "prompt_tokens": list(c.prompt_tokens),
        "tokens": list(c.tokens),
        "logprobs": list(c.logprobs),
        "versions": list(c.versions),
        "text": c.text,
        "finish": str(c.finish),
        "thinking": scored.trace.thinking,
        "summary": scored.trace.summary,
        "well_formed": scored.trace.well_formed,
        "fault": scored.trace.fault,
        "outcome": str(v.outcome),
        "reason": v.reason,
        "answer": v.answer,
        "verifier_stage": v.stage,
        "verifier_seconds": v.seconds,
        "verifier_judge": v.judge,
        "verifier_tier": v.tier,
        "verifier_peak_mb": v.peak_mb,
        "reward_format": r.format,
        "reward_correctness": r.correctness,
        "reward_length": r.length,
        "reward_language": r.language,
        "reward_total": r.total,
        "reward_reasons": [encodable(reason) for reason in r.reasons],
        "advantage": advantage,
        "trained": advantage is not None,
    }
    return {name: encodable(value) if isinstance(value, str) else value for name, value in row.items()}


def read_run(path: Path) -> RunFolder:
    """Raises RunFolderError where there is no run."""
    if not (path / "run.json").exists():
        raise RunFolderError(f"{path} holds no run (no run.json there): name the folder that a verb's --out named")
    return RunFolder(path)


@contextmanager
def open_run(path: Path, recipe: Resolved, *, stage: str, model: str, resume: bool) -> Iterator[RunFolder]:
    """A folder to write a run into, locked while it is open (the kernel drops the lock of a killed process).

    Raises RunFolderError if another process writes there, or if it holds a run and `resume` is false, or another recipe's run."""
    run = RunFolder(path)
    if path.is_dir() and not _may_hold({p.name for p in path.iterdir()}):
        raise RunFolderError(f"{path} exists and holds no run: name an empty or a new folder")
    with locked(path):
        existed = (path / "run.json").exists()
        if existed and not resume:
            raise RunFolderError(f"{path} already holds a run: add --resume to go on with it, or name another --out")
        if existed:
            _same_run(run, recipe, stage, model)
        else:
            save_recipe(recipe, path / "recipe.toml")
            run.set_info(stage=stage, name=recipe.name, model=model, seed=recipe.seed, machine=machine(), started=time.time())
        try:
            yield from _with_state(run)
        except UserError:
            if not existed:
                _take_back(path)
            raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """A folder for this process alone, made if it is not there. Raises RunFolderError if it is another's."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / "lock").open("w")
    except OSError as e:
        raise RunFolderError(f"{path} cannot be written: {e.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunFolderError(f"{path} is in use by another process: wait for it, or name another --out") from None
        yield


def _may_hold(names: set[str]) -> bool:
    """A run, or what a kill at its very start left: with our lock in it, a recipe.toml is no person's own."""
    return not names or "run.json" in names or ("lock" in names and names <= BEGUN)


def _take_back(path: Path) -> None:
    """Of a new run that could not be done as asked: remove the folder, unless work was written into it."""
    if {p.name for p in path.iterdir()} <= BEGUN:
        shutil.rmtree(path)


def _with_state(run: RunFolder) -> Iterator[RunFolder]:
    if run.info().get("state") != "done":
        run.set_info(state="running", pid=os.getpid())
    try:
        yield run
    except KeyboardInterrupt:
        run.set_info(state="stopped")
        raise
    except Exception as e:
        if run.info().get("state") != "done":
            with suppress(DiscFull):  # what went wrong first is to be told
                run.set_info(state="failed", error=f"{type(e).__name__}: {e}")
        raise


def _same_run(run: RunFolder, recipe: Resolved, stage: str, model: str) -> None:
    info = run.info()
    if info.get("stage") != stage:
        raise RunFolderError(f"{run.path} holds a run of `magistral {info.get('stage')}`, not of `{stage}`: name another --out")
    try:
        before = type(recipe).model_validate(tomllib.loads((run.path / "recipe.toml").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        before = None
    if before is not None and isinstance(recipe, Recipe):  # a run may go on elsewhere
        before = before.model_copy(update={"runtime": recipe.runtime, "log": recipe.log})
    if before != recipe:
        raise RunFolderError(f"{run.path} was started with another recipe (see its recipe.toml): name another --out")
    named = str(info.get("model"))
    if Path(named).resolve() != Path(model).resolve():
        raise RunFolderError(f"{run.path} was started with the model {named}, not {model}: name that one, or another --out")


def require_space(path: Path, n_bytes: int) -> None:
    """Raises DiscFull before anything is written that would not fit."""
    free = shutil.disk_usage(path).free
    if free < n_bytes:
        raise DiscFull(
            f"{path}: {free / 1e6:,.0f} MB free and {n_bytes / 1e6:,.0f} MB needed: free some space or name another --out"
        )
