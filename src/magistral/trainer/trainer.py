"""One process's trainer: items in, an optimizer step, new weights out."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from magistral.errors import RunFolderError, TrainingFailed
from magistral.models.transformer import Masked, Transformer
from magistral.recipe import Rl, Training
from magistral.trainer.collate import Item, MicroBatch, collate
from magistral.trainer.lora import add_lora, merged_weights
from magistral.trainer.loss import grpo_loss, is_clipped, sft_loss, truncated_loss
from magistral.trainer.watch import means, watched

BROKEN = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError)
"""What torch says of a file that is cut short or not its own."""


class Trainer:
    """Changes `model` in place (and puts LoRA into it where the recipe says so)."""

    def __init__(self, model: Transformer, training: Training, *, seed: int, temperature: float = 1.0) -> None:
        self.model, self.training, self.temperature = model, training, temperature
        if training.lora is None:
            model.requires_grad_(True)  # noqa: FBT003 - torch's own form
        else:
            add_lora(model, training.lora, seed)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=training.lr, betas=training.betas, weight_decay=training.weight_decay)
        self.n_steps = 0

    def step(self, items: Sequence[Item]) -> dict[str, float]:
        """One optimizer step. Raises TrainingFailed, with the weights as they were, if the loss or gradient is no number."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for micro in collate(items, self.training.micro_batch_tokens):
            for name, value in self._accumulate(micro).items():
                sums[name] = sums.get(name, 0.0) + value
        norm = float(torch.nn.utils.clip_grad_norm_(self.trained, self.training.max_grad_norm))
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
        return self._logp(micro)[0]

    @torch.no_grad()
    def held_out_loss(self, items: Sequence[Item]) -> float:
        """Mean negative log-likelihood of a completion's token, in nats."""
        micros = collate(items, self.training.micro_batch_tokens)
        n = sum(len(m.target_N) for m in micros)
        return -sum(float(self.logprobs(m).sum()) for m in micros) / n

    def changed_weights(self) -> dict[str, Tensor]:
        """What a generator must load after a step; merged, copied nowhere that training would change under it."""
        return dict(merged_weights(self.model, changed_only=True))

    def all_weights(self) -> Iterator[tuple[str, Tensor]]:
        return merged_weights(self.model, changed_only=False)

    def save(self, file: Path) -> None:
        """What the next step needs beside the model's own weights."""
        names = [name for name, p in self.model.named_parameters() if p.requires_grad]
        trained = {name: p.detach() for name, p in zip(names, self.trained, strict=True)}
        torch.save({"trained": trained, "optimizer": self.optimizer.state_dict(), "n_steps": self.n_steps}, file)

    def restore(self, file: Path) -> None:
        """Raises RunFolderError if the file is of another recipe or cannot be read."""
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        try:
            state: dict[str, Any] = torch.load(file, weights_only=True)
            if {n: p.shape for n, p in parameters.items()} != {n: t.shape for n, t in state["trained"].items()}:
                raise RunFolderError(f"{file} is of another recipe: it holds other weights than this one trains")
            self.optimizer.load_state_dict(state["optimizer"])
            self.n_steps = int(state["n_steps"])
            with torch.no_grad():
                for name, tensor in state["trained"].items():
                    parameters[name].copy_(tensor)
        except BROKEN as e:
            said = f"{type(e).__name__}: {e}".partition("\n")[0]
            raise RunFolderError(
                f"{file} cannot be read ({said}): remove its folder to go on from the checkpoint before"
            ) from None

    def _accumulate(self, micro: MicroBatch) -> dict[str, float]:
        logp_N, entropy = self._logp(micro)
        loss, values = self._loss(micro, logp_N)
        loss.backward()  # type: ignore[no-untyped-call]
        return {
            "loss": float(loss.detach()),
            "n": len(logp_N),
            "n_inputs": len(micro.tokens_T),
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

    def _logp(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """[N] log-probabilities of the targets at the recipe's temperature, and the sum of the distributions' entropies."""
        hidden = self.model(micro.tokens_T[None], micro.positions_T[None], Masked(micro.mask_TT[None, None]))
        logits_SV = self.model.lm_head(hidden[0, micro.source_S])
        if self.temperature != 1.0:
            logits_SV = logits_SV / self.temperature
        logp_SV = logits_SV.log_softmax(-1)
        with torch.no_grad():
            entropy_S = -(logp_SV.exp() * logp_SV).sum(-1)
        return logp_SV[micro.row_N, micro.target_N], entropy_S[micro.row_N].sum()
