"""Does a run's ledger add up? Every asking is trained on, dropped or open: one of them, once; its traces agree, and so do its
checkpoints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from magistral.log import RunFolder
from magistral.pipeline.ledger import LedgerFolder
from magistral.recipe import load_recipe


@dataclass(frozen=True, slots=True)
class Audit:
    step: int
    n_asked: int
    n_trained: int
    n_dropped: int
    n_open: int
    n_begun: int
    """Tokens written of the open groups, that a resumed run goes on from."""
    faults: tuple[str, ...]
    """Empty: nothing was skipped, doubled or lost."""

    def __str__(self) -> str:
        asked = f"step {self.step}: {self.n_asked} groups asked: {self.n_trained} trained on, {self.n_dropped} dropped"
        return f"{asked}, {self.n_open} open with {self.n_begun} tokens written"


def audit(run: RunFolder) -> Audit:
    """While nobody writes to it. Raises RunFolderError where the ledger cannot be read."""
    files = LedgerFolder(run.path / "ledger")
    kept = files.read()
    step, n_asked, open_groups = kept.step, kept.next_ordinal, kept.open
    closed = [line for line in files.closed() if line["step"] <= step]
    trained = {line["ordinal"]: line["step"] for line in closed if line["state"] == "trained"}
    times = Counter([*(line["ordinal"] for line in closed), *open_groups])
    faults = [f"group {o} was never closed and is not open" for o in range(n_asked) if not times[o]]
    faults += [f"group {o} is in the ledger {n} times" for o, n in times.items() if n > 1]
    faults += [f"group {o} is in the ledger and was never asked" for o in times if not 0 <= o < n_asked]
    faults += _faults_of_traces(run, trained, step)
    faults += _faults_of_checkpoints(run)
    if [m["step"] for m in run.metrics() if m["step"] <= step] != list(range(1, step + 1)):
        faults.append("metrics.jsonl does not have each step once")
    n_begun = sum(len(b.tokens) for group in open_groups.values() for b in group)
    return Audit(step, n_asked, len(trained), len(closed) - len(trained), len(open_groups), n_begun, tuple(faults))


def _faults_of_traces(run: RunFolder, trained: dict[int, int], step: int) -> list[str]:
    seen: Counter[tuple[int, int]] = Counter()
    steps: dict[int, set[int]] = {}
    faults = []
    for row in _rows(run, step):
        seen[row["group"], row["index"]] += 1
        if row["trained"]:
            steps.setdefault(row["group"], set()).add(row["step"])
        faults += _faults_of_completion(row)
    faults += [f"completion {index} of group {group} is in the traces {n} times" for (group, index), n in seen.items() if n > 1]
    for group in sorted(trained.keys() | steps.keys()):
        expected = {trained[group]} if group in trained else set()
        if steps.get(group, set()) != expected:
            faults.append(f"group {group}: trained on in steps {expected} by the ledger, {steps.get(group, set())} by the traces")
    return faults


def _faults_of_checkpoints(run: RunFolder) -> Iterator[str]:
    """A trainer that is ahead of its checkpoint's name would take a step a second time."""
    from safetensors import safe_open

    for folder in sorted(run.checkpoints.glob("step-*")):
        step = int(folder.name.removeprefix("step-"))
        for file in sorted(folder.glob("trainer-0-of-*.safetensors")):
            rl = load_recipe(run.path / "recipe.toml").rl
            assert rl is not None
            expected = step * (rl.n_batch // rl.n_minibatch)
            with suppress(FileNotFoundError), safe_open(file, framework="numpy") as state:  # a run that goes on removes old ones
                if (found := int(state.get_tensor("n_steps"))) != expected:
                    yield f"checkpoint {folder.name} is of a trainer after {found} optimizer steps, not {expected}"


def _rows(run: RunFolder, step: int) -> Iterator[dict[str, Any]]:
    """Of the steps' own files: a batch that failed has one of another name."""
    import pyarrow.parquet as pq

    for file in sorted((run.path / "traces").glob("step-*.parquet")):
        if int(file.stem.removeprefix("step-")) <= step:
            yield from pq.read_table(file).to_pylist()


def _faults_of_completion(row: dict[str, Any]) -> list[str]:
    name, versions = f"completion {row['index']} of group {row['group']}", row["versions"]
    faults = []
    if not len(row["tokens"]) == len(row["logprobs"]) == len(versions):
        faults.append(
            f"{name} has {len(row['tokens'])} tokens, {len(row['logprobs'])} log-probabilities, {len(versions)} versions"
        )
    if versions != sorted(versions):
        faults.append(f"{name} has versions that fall")
    if row["trained"] and versions[-1] >= row["step"]:
        faults.append(f"{name} was written by weights that its own step made")
    return faults
