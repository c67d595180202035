"""Log-probabilities of a micro-batch's targets, as one module: FSDP2 gathers all that it needs before its forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from magistral.models.transformer import Masked, Transformer
from magistral.trainer.collate import MicroBatch

HEAD_ROWS = 1024
"""Places whose logits are held at once (chosen: 0.5 GB in float32 at 131,072 words). Under it they are kept for the backward
pass, over it computed again."""


class LogProbs(nn.Module):
    def __init__(self, model: Transformer, temperature: float) -> None:
        super().__init__()
        self.model, self.temperature = model, temperature

    def forward(self, micro: MicroBatch) -> tuple[Tensor, Tensor]:
        """[N] log-probabilities at the temperature, and the sum of the distributions' entropies."""
        hidden = self.model(micro.tokens_T[None], micro.positions_T[None], Masked(micro.mask_TT[None, None]))[0]
        if len(micro.source_S) <= HEAD_ROWS:
            return self._head(hidden[micro.source_S], micro.row_N, micro.target_N)
        places, logps, entropies = [], [], []
        for start in range(0, len(micro.source_S), HEAD_ROWS):
            source = micro.source_S[start : start + HEAD_ROWS]
            place = ((micro.row_N >= start) & (micro.row_N < start + len(source))).nonzero()[:, 0]
            part = hidden[source], micro.row_N[place] - start, micro.target_N[place]
            logp, entropy = checkpoint(self._head, *part, use_reentrant=False)
            places.append(place)
            logps.append(logp)
            entropies.append(entropy)
        return torch.cat(logps)[torch.cat(places).argsort()], torch.stack(entropies).sum()

    def _head(self, hidden_SM: Tensor, row_N: Tensor, target_N: Tensor) -> tuple[Tensor, Tensor]:
        logits_SV = self.model.lm_head(hidden_SM).float()
        if self.temperature != 1.0:
            logits_SV = logits_SV / self.temperature
        logp_SV = logits_SV.log_softmax(-1)
        with torch.no_grad():
            entropy_S = -(logp_SV.exp() * logp_SV).sum(-1)
        return logp_SV[row_N, target_N], entropy_S[row_N].sum()
