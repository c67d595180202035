"""The trainer: items in, an optimizer step, new weights out; alone, or as one of several ranks that do the same."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from magistral.errors import TrainingFailed
from magistral.models.transformer import Transformer
from magistral.recipe_train import Rl, Training
from magistral.trainer.collate import Item, MicroBatch, collate
from magistral.trainer.logprobs import LogProbs
from magistral.trainer.lora import add_lora, merged_weights
from magistral.trainer.loss import grpo_loss, is_clipped, sft_loss, truncated_loss
from magistral.trainer.ranks import ALONE, Ranks, recompute, whole
from magistral.trainer.shards import load_shards, save_shard
from magistral.trainer.watch import means, watched


class Trainer:
    """Changes `model` in place: puts LoRA into it and shards it, where recipe and ranks say so. Of several ranks each makes one,
    of the same model, and all call the same methods with the same arguments: every one of them may gather tensors."""

    def __init__(
        self, model: Transformer, training: Training, *, seed: int, temperature: float = 1.0, ranks: Ranks = ALONE
    ) -> None:
        self.model, self.training, self.ranks = model, training, ranks
        if training.lora is None:
            model.requires_grad_(True)  # noqa: FBT003 - torch's own form
        else:
            add_lora(model, training.lora, seed)
        if training.recompute:
            recompute(model)
        self._logp = LogProbs(model, temperature)
        if ranks.sharded:
            ranks.shard(self._logp, model)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.trained.values(), lr=training.lr, betas=training.betas, weight_decay=training.weight_decay
        )
        for p in self.trained.values():  # now, so that a saved state has a place to go
            zeros = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self.optimizer.state[p] = {"step": torch.tensor(0.0), **zeros}
        self.n_steps = 0

    def step(self, items: Sequence[Item]) -> dict[str, float]:
        """One optimizer step. Raises TrainingFailed, with the weights as they were, if the loss or gradient is no number."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for micro in self._collate(items):
            for name, value in self._accumulate(micro).items():
                sums[name] = sums.get(name, 0.0) + value
        sums = self.ranks.sum(sums)
        norm = float(whole(torch.nn.utils.clip_grad_norm_(self.trained.values(), self.training.max_grad_norm)))
        if not (math.isfinite(sums["loss"]) and math.isfinite(norm)):
            raise TrainingFailed(f"step {self.n_steps + 1}: the loss is {sums['loss']} and the gradient norm {norm}")
        lr = self.training.lr * min(1.0, (self.n_steps + 1) / (self.training.warmup_steps + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.n_steps += 1
        loss, n_inputs = sums.pop("loss"), sums.pop("n_inputs")
        return {
            "loss": loss,
            "grad_norm": norm,
            "lr": lr,
            "n_tokens": sums["n"],
            "n_inputs": n_inputs,
            **means(sums),
        }

    @torch.no_grad()
    def logprobs(self, micro: MicroBatch) -> Tensor:
        """[N] of the targets, under the weights of now."""
        self.model.eval()
        logp_N: Tensor = self._logp(micro)[0]
        return logp_N

    @torch.no_grad()
    def held_out_loss(self, items: Sequence[Item]) -> float:
        """Mean negative log-likelihood of a completion's token, in nats."""
        sums = {"logp": 0.0, "n": 0.0}
        for micro in self._collate(items):
            sums["logp"] += float(self.logprobs(micro).sum())
            sums["n"] += len(micro.target_N)
        sums = self.ranks.sum(sums)
        return -sums["logp"] / sums["n"]

    def changed_weights(self) -> dict[str, Tensor]:
        """What a generator must load after a step; merged, copied nowhere that training would change under it. On the first
        rank; on others empty."""
        return dict(self.ranks.on_first(merged_weights(self.model, changed_only=True)))

    def all_weights(self) -> Iterator[tuple[str, Tensor]]:
        """On the first rank; others too must ask to the end, and get nothing."""
        return self.ranks.on_first(merged_weights(self.model, changed_only=False))

    def save(self, folder: Path) -> None:
        """What the next step needs beside the model's own weights: this rank's part of it."""
        save_shard(folder, {**self._state(), "n_steps": torch.tensor(self.n_steps)}, self.ranks)

    def restore(self, folder: Path) -> None:
        """From any number of ranks. Raises RunFolderError if it is of another recipe or cannot be read."""
        n_steps = torch.tensor(0)
        load_shards(folder, {**self._state(), "n_steps": n_steps})
        self.n_steps = int(n_steps)

    def _state(self) -> dict[str, Tensor]:
        state = {f"trained.{name}": p.detach() for name, p in self.trained.items()}
        for name, p in self.trained.items():
            state |= {f"{kind}.{name}": tensor for kind, tensor in self.optimizer.state[p].items()}
        return state

    def _collate(self, items: Sequence[Item]) -> Iterator[MicroBatch]:
        mine = collate(items, self.training.micro_batch_tokens, share=(self.ranks.rank, self.ranks.n))
        return (micro.to(self.ranks.device) for micro in mine)

    def _accumulate(self, micro: MicroBatch) -> dict[str, float]:
        logp_N, entropy = self._logp(micro)
        loss, values = self._loss(micro, logp_N)
        (loss * self.ranks.n).backward()  # type: ignore[no-untyped-call]  # FSDP2 takes the mean over ranks, we the sum
        return {
            "loss": float(loss.detach()),
            "n": len(logp_N),
            "n_inputs": len(micro.tokens_T) if len(logp_N) else 0,
            "entropy": float(entropy),
            **values,
        }

    def _loss(self, micro: MicroBatch, logp_N: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss and sums over tokens of what is worth watching."""
        if not isinstance(self.training, Rl):
            return sft_loss(logp_N, micro.weight_N), {}
        given = (logp_N, micro.sampled_logp_N, micro.advantage_N, micro.weight_N)
        log_ratio_N, truncate_at = logp_N.detach() - micro.sampled_logp_N, self.training.truncate_at
        if truncate_at is not None:
            return truncated_loss(*given, truncate_at=truncate_at), watched(log_ratio_N, log_ratio_N.exp() > truncate_at, micro)
        eps_low, eps_high = self.training.eps_low, self.training.eps_high
        loss = grpo_loss(*given, eps_low=eps_low, eps_high=eps_high)
        clipped_N = is_clipped(logp_N.detach(), *given[1:3], eps_low=eps_low, eps_high=eps_high)
        return loss, watched(log_ratio_N, clipped_N, micro)
