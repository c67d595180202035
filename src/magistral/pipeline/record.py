"""What became of each group, as files: metrics, traces and checkpoints of a run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from magistral.flow import Outcome, Scored, StepReport
from magistral.log import RunFolder
from magistral.pipeline.learner import Learner
from magistral.pipeline.ledger import Ledger
from magistral.pipeline.runtime_inline import InlineVerifier
from magistral.text.tokens import Tokenizer
from magistral.trainer.checkpoint import checkpoints, keep_only, save_checkpoint


class Checkpoints:
    """When a checkpoint is made, and how many are kept."""

    def __init__(self, run: RunFolder, learner: Learner, tokenizer: Tokenizer, *, keep: int, every: int) -> None:
        self.run, self.learner, self.tokenizer = run, learner, tokenizer
        self.keep, self.every = keep, every

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Nothing where the step has one."""
        if (self.run.checkpoints / f"step-{step:06d}").exists():
            return
        save_checkpoint(self.run, self.learner.trainer, self.tokenizer, {"step": step, **state})
        keep_only(self.run, [folder.name for folder in checkpoints(self.run)[-self.keep :]])


class Record:
    """The loop's record. `on_step` is told of each step (progress)."""

    def __init__(
        self,
        run: RunFolder,
        ledger: Ledger,
        learner: Learner,
        verifier: InlineVerifier,
        checkpoints: Checkpoints,
        *,
        on_step: Callable[[StepReport], None],
    ) -> None:
        self.run, self.ledger, self.learner, self.verifier, self.checkpoints = run, ledger, learner, verifier, checkpoints
        self.on_step = on_step
        self.step = 0
        self._dropped: list[Scored] = []
        self._n_dropped = 0
        self._since = time.perf_counter()

    def dropped(self, ordinal: int, scored: list[Scored], why: str) -> None:
        self.ledger.close(ordinal)
        self._dropped += scored
        self._n_dropped += 1

    def trained(self, version: int, groups: list[list[Scored]]) -> None:
        for group in groups:
            self.ledger.close(group[0].completion.group)
        batch = [s for group in groups for s in group]
        report = StepReport(step=version, values=self._values(version, batch))
        advantages = [self.learner.advantages[s.completion.group, s.completion.index] for s in batch]
        self.run.write_traces(
            f"step-{version:06d}", batch + self._dropped, step=version, advantages=[*advantages, *[None] * len(self._dropped)]
        )
        self.run.add_metrics(report.step, report.values)
        self.step, self._dropped, self._n_dropped = version, [], 0
        if version % self.checkpoints.every == 0:
            self.save_checkpoint()
        self.on_step(report)

    def save_checkpoint(self) -> None:
        self.checkpoints.save(self.step, {"ledger": self.ledger.state()})

    def save_failed(self, version: int, scored: list[Scored]) -> Path:
        name = f"failed-step-{version:06d}"
        self.run.write_traces(name, scored, step=version)
        return self.run.path / "traces" / f"{name}.parquet"

    def _values(self, version: int, batch: Sequence[Scored]) -> dict[str, float]:
        """Rewards over all that was judged since the last step, the dropped too: else only hard problems would show."""
        seconds, self._since = time.perf_counter() - self._since, time.perf_counter()
        seen = [*batch, *self._dropped]

        def mean(value: Callable[[Scored], float]) -> float:
            return fmean(value(s) for s in seen)

        n_written = sum(len(s.completion.tokens) for s in seen)
        trained = dict(self.learner.values)
        n_inputs = trained.pop("n_inputs")
        return {
            "reward/mean": mean(lambda s: s.reward.total),
            "reward/format": mean(lambda s: s.reward.format),
            "reward/correctness": mean(lambda s: s.reward.correctness),
            "reward/length": mean(lambda s: s.reward.length),
            "reward/language": mean(lambda s: s.reward.language),
            "right": mean(lambda s: s.verdict.outcome == Outcome.RIGHT),
            "well_formed": mean(lambda s: s.trace.well_formed),
            "tokens_mean": mean(lambda s: len(s.completion.tokens)),
            "groups_dropped": float(self._n_dropped),
            "verifier_failed": float(self.verifier.n_failed),
            "staleness": fmean(version - 1 - v for s in batch for v in s.completion.versions),
            "staleness_max": float(max(version - 1 - min(s.completion.versions) for s in batch)),
            "tokens_per_input": trained["n_tokens"] / n_inputs,
            "seconds": seconds,
            "tokens_per_s": n_written / seconds,
            **trained,
        }
