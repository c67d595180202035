"""How a recipe's model is trained: its sections [sft], [rl] and [runtime]."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from magistral.recipe_data import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class Lora(Section):
    """Train low-rank additions to the matrices instead of the matrices (Hu et al., arXiv 2106.09685)."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    last_layers: int | None = Field(default=None, gt=0)
    """Only these many layers from the top; absent: all."""


class Training(Section):
    """What supervised steps and RL steps have in common."""

    lr: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[Share, Share] = (0.9, 0.95)
    max_grad_norm: float = Field(default=1.0, gt=0)
    micro_batch_tokens: int = Field(default=1024, gt=0)
    """Tokens in one forward and backward pass: bounds memory, changes nothing else."""
    recompute: bool = False
    """Activations are computed again in the backward pass instead of kept: a third more work for much less memory."""
    lora: Lora | None = None
    """Absent: every weight is trained."""


class Best(Section):
    """Which checkpoint of SFT is the best: the one that solves the most problems, asked as [eval] says."""

    by: str = "held_out"
    """`held_out`: the recipe's own held-out problems; else a benchmark that `magistral eval` knows, as aime24 (paper, 5.3)."""
    data: str = ""
    """The folder of the benchmark's files."""
    n_problems: int | None = Field(default=None, gt=0)
    """So many of them, drawn by the recipe's seed; absent: all."""


class Sft(Training):
    n_traces: int = Field(gt=0)
    """Checked traces to learn from, at most where they come from files."""
    traces: tuple[str, ...] = ()
    """Runs of `magistral distill`, or files of such traces; empty: worked solutions of the recipe's problems."""
    general: tuple[str, ...] = ()
    """Files of general instructions to mix in: JSONL, {"messages": [{"role": "user", "content": "…"}, …]} a line."""
    general_share: float = Field(default=0.1, ge=0, lt=1)
    """Of all that is learned from, where `general` names files (Magistral, section 5.3)."""
    n_batch: int = Field(gt=0)
    """Traces in one step."""
    epochs: int = Field(default=1, gt=0)
    eval_every: int = Field(default=0, ge=0)
    """Steps between looks, after which the best checkpoint so far is kept; 0: once each epoch."""
    best: Best | None = None
    """Absent: the best checkpoint has the lowest loss on traces kept aside."""
    patience: int = Field(default=0, ge=0)
    """Looks in a row without a better checkpoint, after which the run ends; 0: it goes on to its last step."""


class Plateau(Section):
    """Reached when the mean over the last `steps` steps is not above that over the `steps` before them by `gain`."""

    of: Literal["performance", "length"]
    """`performance`: share of right answers; `length`: tokens of a completion; both as in metrics.jsonl, over all judged."""
    steps: int = Field(gt=0)
    gain: float = Field(gt=0)
    """Of performance in shares (0.01: a point), of length relative to the earlier mean."""


class Stage(Section):
    """A part of a run. What it does not say is as in the stage before, in the first as in [rl]."""

    name: str = Field(min_length=1)
    steps: int | None = Field(default=None, gt=0)
    """It ends after so many steps, if not before."""
    until: Plateau | None = None
    """It ends at this plateau. The last stage's end is the run's."""
    max_tokens: int | None = Field(default=None, gt=0)
    """Where any stage says it, `reward.l_max` follows: a completion is paid by the limit under which it was asked for."""
    n_batch: int | None = Field(default=None, gt=0)
    """`n_minibatch` changes with it: as many minibatches as in [rl]."""
    n_async: int | None = Field(default=None, gt=0)
    families: tuple[str, ...] = ()
    """Names of the [[problems.families]] that are asked from; none in the first stage: all."""
    drop_solved: bool = False
    """Problems of which every completion was right when they were last asked are left out from here on."""


class Rl(Training):
    steps: int = Field(gt=0)
    """At most, in all stages together."""
    group_size: int = Field(gt=1)
    """Completions of one problem."""
    n_batch: int = Field(gt=0)
    """Completions in one batch."""
    n_minibatch: int = Field(gt=0)
    """Completions in one optimizer step; divides n_batch."""
    n_async: int = Field(gt=0)
    """Completions asked for and not yet trained on."""
    eps_low: float = Field(gt=0, lt=1)
    eps_high: float = Field(gt=0)
    truncate_at: float | None = Field(default=None, gt=0)
    """Instead of the clip: importance weights truncated at this, so that every token gives a gradient. Absent: the clip."""
    temperature: float = Field(gt=0)
    max_tokens: int = Field(gt=0)
    """Longest completion."""
    checkpoint_every: int = Field(default=10, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    max_skipped: int = Field(default=64, gt=0)
    """Groups dropped in a row, all alike in reward, after which the run ends as a failure: there is nothing to learn from."""
    stages: tuple[Stage, ...] = ()
    """The curriculum, one after another; none: all steps are alike."""

    @model_validator(mode="after")
    def _counts_fit_in_each_stage(self) -> Self:
        self._check_counts()
        for number, stage in enumerate(self.stages):
            try:
                self.in_stage(number)._check_counts()
            except ValueError as e:
                raise ValueError(f"in stage {stage.name!r}: {e}") from None
            if number < len(self.stages) - 1 and not (stage.steps or stage.until):
                raise ValueError(f"stage {stage.name!r} never ends: give it steps or until")
        return self

    @property
    def changes_lengths(self) -> bool:
        """Whether a stage says how long completions may be."""
        return any(stage.max_tokens for stage in self.stages)

    def in_stage(self, number: int) -> Rl:
        """With the values that hold in that stage, 0-based."""
        stages = self.stages[: number + 1]
        said = {name: value for s in stages for name in ("max_tokens", "n_batch", "n_async") if (value := getattr(s, name))}
        if "n_batch" in said:
            said["n_minibatch"] = said["n_batch"] // (self.n_batch // self.n_minibatch)
        return self.model_copy(update=said)

    def _check_counts(self) -> None:
        for name in ("n_batch", "n_minibatch", "n_async"):
            if getattr(self, name) % self.group_size:
                raise ValueError(
                    f"{name}={getattr(self, name)} must be a multiple of group_size={self.group_size}: batches hold whole groups"
                )
        if self.n_batch % self.n_minibatch:
            raise ValueError(f"n_minibatch={self.n_minibatch} does not divide n_batch={self.n_batch}: make it a divisor")
        if self.n_async > 2 * self.n_batch:
            raise ValueError(f"n_async={self.n_async} is over 2 * n_batch={2 * self.n_batch}: lower n_async or raise n_batch")
        if self.n_async < self.n_batch:
            raise ValueError(f"n_async={self.n_async} is under n_batch={self.n_batch}: a batch would never fill; raise n_async")


class Runtime(Section):
    """Where the loop's roles run: all in one process, or each as an actor of Ray, on this machine or many."""

    kind: Literal["inline", "ray"] = "inline"
    address: str = ""
    """Of a Ray cluster, as `auto` or `ray://host:10001`; empty: Ray is started on this machine for the run alone."""
    n_generators: int = Field(default=1, gt=0)
    n_trainers: int = Field(default=1, gt=0)
    """Ranks that take each step together, every one with its part of the weights."""
    n_verifiers: int = Field(default=1, gt=0)
    generator_cpus: int = Field(default=1, gt=0)
    """Cores, and torch threads, of each."""
    trainer_cpus: int = Field(default=1, gt=0)
    generator_gpus: float = Field(default=0.0, ge=0)
    trainer_gpus: float = Field(default=0.0, ge=0)
    report_s: float = Field(default=0.1, gt=0)
    """Between two reports of a generator: what one that dies has written since then is written again."""
    limit_s: float = Field(default=600.0, gt=0)
    """A worker that has not answered for so long is taken for lost, and replaced."""
    verify_limit_s: float = Field(default=120.0, gt=0)
    """The same of a verifier, for a group."""
    head_limit_s: float = Field(default=30.0, gt=0, lt=60)
    """After the head of the cluster has not answered for so long the run ends, to be resumed; after 60 s Ray would end it."""
    max_lost: int = Field(default=16, gt=0)
    """Workers lost since the last step, after which the run ends as a failure."""

    @model_validator(mode="after")
    def _ranks_are_processes(self) -> Self:
        if self.kind == "inline" and self.n_trainers > 1:
            raise ValueError(f'n_trainers={self.n_trainers} are as many processes: set kind = "ray"')
        return self


_PARALLEL = {
    "--tensor-parallel-size": "tensor", "-tp": "tensor", "--pipeline-parallel-size": "pipeline", "-pp": "pipeline",
    "--data-parallel-size": "data", "-dp": "data",
}  # fmt: skip


def parallel_flags(flags: Sequence[str], n_gpus: float) -> tuple[str, ...]:
    """What `vllm serve` needs beside `flags` so that a server uses all GPUs of its generator; 0: it is none of our concern.

    Raises ValueError where `flags` name another number of them."""
    if not n_gpus:
        return ()
    words = [word for flag in flags for word in flag.split("=", 1)]
    named = {_PARALLEL[word]: int(size) for word, size in pairwise(words) if word in _PARALLEL and size.isdecimal()}
    n, others = max(1.0, n_gpus), prod(size for name, size in named.items() if name != "tensor")
    size = named.get("tensor", n / others)
    if size * others != n or size != int(size):
        said = " ".join(flags) or "a whole number of GPUs"
        raise ValueError(
            f"runtime.generator_gpus={n_gpus:g} and engine.flags ({said}) do not agree on the GPUs of a vLLM server: make them "
            "equal, or leave out --tensor-parallel-size, which follows"
        )
    return () if "tensor" in named or size == 1 else ("--tensor-parallel-size", f"{size:g}")
