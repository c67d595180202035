"""What became of each group, as files: metrics, traces, ledger and checkpoints of a run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from magistral.errors import RunFolderError
from magistral.flow import Completion, Outcome, Scored, StepReport
from magistral.log import RunFolder
from magistral.pipeline.growing import begun_of
from magistral.pipeline.ledger import Ledger, LedgerFolder
from magistral.pipeline.memory import peak_mb
from magistral.pipeline.replay import trained_groups
from magistral.pipeline.roles import Roles, Trained, Trainer
from magistral.trainer.checkpoint import checkpoints, keep_only


class Checkpoints:
    """step-000010/: the model in Hugging Face format and the trainer's state; whole under its name or absent."""

    def __init__(self, run: RunFolder, *, n_bytes: int, keep: int, every: int) -> None:
        """`n_bytes`: about what one takes on the disc."""
        self.run, self.n_bytes, self.n_kept, self.every = run, n_bytes, keep, every

    def newest(self) -> tuple[int, Path | None]:
        """Its step; 0 where there is none."""
        folders = checkpoints(self.run)
        return (int(folders[-1].name.removeprefix("step-")), folders[-1]) if folders else (0, None)

    async def save(self, step: int, trainer: Trainer) -> None:
        if step <= self.newest()[0]:
            return
        with self.run.new_checkpoint(step, self.n_bytes) as partial:
            await trainer.save(partial)
        keep_only(self.run, [folder.name for folder in checkpoints(self.run)[-self.n_kept :]])

    async def bring_up(self, trainer: Trainer, step: int) -> None:
        """A fresh trainer to where it was after `step`: the newest checkpoint, then the same steps on the same completions
        again, as the traces have them. On the same machine this gives the same weights, bit for bit."""
        saved, folder = self.newest()
        if folder is not None:
            await trainer.restore(folder)
        for version in range(saved + 1, step + 1):
            await trainer.step(trained_groups(self.run, version), version)


class Record:
    """The loop's record. `on_step` is told of each step (progress)."""

    def __init__(
        self, run: RunFolder, ledger: Ledger, roles: Roles, checkpoints: Checkpoints, *, on_step: Callable[[StepReport], None]
    ) -> None:
        self.run, self.ledger, self.roles, self.checkpoints, self.on_step = run, ledger, roles, checkpoints, on_step
        self.files = LedgerFolder(run.path / "ledger")
        self.step = 0
        self._dropped: dict[int, tuple[list[Scored], str]] = {}
        """Since the last step, with why."""
        self._since = time.perf_counter()

    def resume(self) -> None:
        """To where the folder's last whole step ended; what came after it is forgotten. Raises RunFolderError."""
        self.step, (saved, _) = self.files.restore(self.ledger, self.run.metrics()), self.checkpoints.newest()
        if saved > self.step:
            raise RunFolderError(
                f"{self.run.path}: its ledger ends at step {self.step} and it has a checkpoint of step {saved}: an older version "
                "wrote this run; take its checkpoint as a new run's --model"
            )
        self.run.forget_after(self.step)

    def finished(self, ordinal: int, group: list[Completion]) -> None:
        self.ledger.open[ordinal] = tuple(begun_of(c) for c in group)

    def dropped(self, ordinal: int, scored: list[Scored], why: str) -> None:
        self.ledger.close(ordinal)
        self._dropped[ordinal] = scored, why

    def trained(self, version: int, groups: list[list[Scored]], trained: Trained) -> None:
        """The ledger comes last: a step counts when it stands there."""
        batch, dropped = [s for group in groups for s in group], [s for group, _ in self._dropped.values() for s in group]
        values = self._values(version, batch, dropped) | trained.values
        advantages = [trained.advantages[s.completion.group, s.completion.index] for s in batch]
        self.run.write_traces(
            f"step-{version:06d}", batch + dropped, step=version, advantages=[*advantages, *[None] * len(dropped)]
        )
        closed = [_line(version, group[0].completion.group, group, "") for group in groups]
        for line in closed:
            self.ledger.close(line["ordinal"])
        closed += [_line(version, ordinal, scored, why) for ordinal, (scored, why) in self._dropped.items()]
        note = self.ledger.curriculum.after(version, values, closed, self.ledger.next_ordinal)
        report = StepReport(step=version, values=values, note=note)
        self.run.add_metrics(version, values, note)
        self.ledger.open.update(self.roles.generator.partial())
        self.files.save(version, self.ledger, closed)
        self.step, self._dropped = version, {}
        self.on_step(report)

    async def keep(self, version: int) -> None:
        if version % self.checkpoints.every == 0:
            await self.checkpoints.save(version, self.roles.trainer)

    def failed(self, version: int, groups: list[list[Scored]]) -> Path:
        name = f"failed-step-{version:06d}"
        self.run.write_traces(name, [s for group in groups for s in group], step=version)
        return self.run.path / "traces" / f"{name}.parquet"

    def _values(self, version: int, batch: Sequence[Scored], dropped: Sequence[Scored]) -> dict[str, float]:
        """Rewards over all that was judged since the last step, the dropped too: else only hard problems would show."""
        seconds, self._since = time.perf_counter() - self._since, time.perf_counter()
        seen = [*batch, *dropped]

        def mean(value: Callable[[Scored], float]) -> float:
            return fmean(value(s) for s in seen)

        n_written = sum(len(s.completion.tokens) for s in seen)
        return {
            "reward/mean": mean(lambda s: s.reward.total),
            "reward/format": mean(lambda s: s.reward.format),
            "reward/correctness": mean(lambda s: s.reward.correctness),
            "reward/length": mean(lambda s: s.reward.length),
            "reward/language": mean(lambda s: s.reward.language),
            "right": mean(lambda s: s.verdict.outcome == Outcome.RIGHT),
            "well_formed": mean(lambda s: s.trace.well_formed),
            "tokens_mean": mean(lambda s: len(s.completion.tokens)),
            "groups_dropped": float(len(self._dropped)),
            **_n_dropped([scored for scored, _ in self._dropped.values()]),
            "stage": float(self.ledger.curriculum.number),
            "verifier_failed": float(self.roles.verifier.n_failed),
            "staleness": fmean(version - 1 - v for s in batch for v in s.completion.versions),
            "staleness_max": float(max(version - 1 - min(s.completion.versions) for s in batch)),
            "seconds": seconds,
            "tokens_per_s": n_written / seconds,
            "peak_mb/run": peak_mb(children=False),
            **self.roles.values(),
        }


def _n_dropped(groups: Sequence[Sequence[Scored]]) -> dict[str, float]:
    """By what would mend it: easier problems, harder ones, or the verifier."""
    n = dict.fromkeys(("all_right", "all_wrong", "alike", "unjudged"), 0.0)
    for group in groups:
        n_right = sum(s.verdict.outcome == Outcome.RIGHT for s in group)
        equal = "all_wrong" if n_right == 0 else "all_right" if n_right == len(group) else "alike"
        n["unjudged" if len(group) < 2 else equal] += 1
    return {f"dropped/{why}": count for why, count in n.items()}


def _line(step: int, ordinal: int, scored: Sequence[Scored], why: str) -> dict[str, Any]:
    """Of closed.jsonl. `why`: the group was dropped; empty: it was trained on."""
    right = fmean(s.verdict.outcome == Outcome.RIGHT for s in scored) if scored else 0.0
    state = {"state": "dropped", "why": why} if why else {"state": "trained"}
    return {"ordinal": ordinal, "step": step, **state, "right": right}
