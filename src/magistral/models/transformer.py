"""The dense Mistral, Llama and Qwen family, once, for trainer and engine (Llama 2, arXiv 2307.09288; Mistral, 2310.06825).

RMSNorm, rotary positions, grouped-query attention, SwiGLU; optional biases, QK-norm, tied embeddings.
Shape letters: B sequences, T tokens, H heads, K key-value heads, D head size, M model width, L keys so far, V words.
Names of modules are those of Hugging Face, so that its files load as they are.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from magistral.models.sizes import Sizes


class Context(Protocol):
    """What a token may look at: a plain mask, or a cache of earlier keys and values."""

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        """[B, H, T, D] attention's output; a cache also stores the new keys and values."""


class Masked:
    """Attention inside the given tokens only. `mask` True: may look; None: causal."""

    def __init__(self, mask_B1TT: Tensor | None = None) -> None:
        self.mask = mask_B1TT

    def attend(self, layer: int, q_BHTD: Tensor, k_BKTD: Tensor, v_BKTD: Tensor) -> Tensor:
        repeats = q_BHTD.shape[1] // k_BKTD.shape[1]
        k, v = (x.repeat_interleave(repeats, dim=1) for x in (k_BKTD, v_BKTD))
        return F.scaled_dot_product_attention(q_BHTD, k, v, attn_mask=self.mask, is_causal=self.mask is None)


class RMSNorm(nn.Module):
    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Rope(nn.Module):
    """Rotary positions (RoFormer, arXiv 2104.09864), in Hugging Face's layout: first half against second half."""

    frequencies: Tensor

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        half = torch.arange(0, sizes.head_dim, 2, dtype=torch.float32) / sizes.head_dim
        self.register_buffer("frequencies", 1.0 / sizes.rope_theta**half, persistent=False)

    def forward(self, positions_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine, [B, 1, T, D]."""
        angles = positions_BT[:, None, :, None].float() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos(), angles.sin()


def rotate(x_BHTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x_BHTD.chunk(2, dim=-1)
    return x_BHTD * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim = layer, sizes.head_dim
        q_dim, kv_dim = sizes.n_heads * sizes.head_dim, sizes.n_kv_heads * sizes.head_dim
        self.q_proj = nn.Linear(sizes.dim, q_dim, bias=sizes.attention_bias)
        self.k_proj = nn.Linear(sizes.dim, kv_dim, bias=sizes.attention_bias)
        self.v_proj = nn.Linear(sizes.dim, kv_dim, bias=sizes.attention_bias)
        self.o_proj = nn.Linear(q_dim, sizes.dim, bias=sizes.attention_bias and sizes.family == "llama")
        self.q_norm = RMSNorm(sizes.head_dim, sizes.norm_eps) if sizes.qk_norm else None
        self.k_norm = RMSNorm(sizes.head_dim, sizes.norm_eps) if sizes.qk_norm else None

    def forward(self, x_BTM: Tensor, rope: tuple[Tensor, Tensor], context: Context) -> Tensor:
        B, T, _ = x_BTM.shape
        q, k, v = (proj(x_BTM).view(B, T, -1, self.head_dim) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        out = context.attend(self.layer, rotate(q, *rope), rotate(k, *rope), v)
        out_BTM: Tensor = self.o_proj(out.transpose(1, 2).reshape(B, T, -1))
        return out_BTM


class FeedForward(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(sizes.dim, sizes.hidden_dim, bias=False)
        self.up_proj = nn.Linear(sizes.dim, sizes.hidden_dim, bias=False)
        self.down_proj = nn.Linear(sizes.hidden_dim, sizes.dim, bias=False)

    def forward(self, x_BTM: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x_BTM)) * self.up_proj(x_BTM))
        return out


class Layer(nn.Module):
    def __init__(self, sizes: Sizes, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(sizes, layer)
        self.mlp = FeedForward(sizes)
        self.input_layernorm = RMSNorm(sizes.dim, sizes.norm_eps)
        self.post_attention_layernorm = RMSNorm(sizes.dim, sizes.norm_eps)

    def forward(self, x_BTM: Tensor, rope: tuple[Tensor, Tensor], context: Context) -> Tensor:
        x_BTM = x_BTM + self.self_attn(self.input_layernorm(x_BTM), rope, context)
        out: Tensor = x_BTM + self.mlp(self.post_attention_layernorm(x_BTM))
        return out


class Transformer(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.embed_tokens = nn.Embedding(sizes.n_words, sizes.dim)
        self.layers = nn.ModuleList(Layer(sizes, i) for i in range(sizes.n_layers))
        self.norm = RMSNorm(sizes.dim, sizes.norm_eps)
        self.lm_head = nn.Linear(sizes.dim, sizes.n_words, bias=False)
        if sizes.tied:
            self.lm_head.weight = self.embed_tokens.weight
        self.rope = Rope(sizes)

    def forward(self, tokens_BT: Tensor, positions_BT: Tensor, context: Context) -> Tensor:
        """[B, T, M] the last hidden state, normalised; `lm_head` makes logits of the places one wants."""
        x_BTM = self.embed_tokens(tokens_BT)
        rope = self.rope(positions_BT)
        for layer in self.layers:
            x_BTM = layer(x_BTM, rope, context)
        out: Tensor = self.norm(x_BTM)
        return out


def new_transformer(sizes: Sizes, seed: int) -> Transformer:
    """Random weights: normal, standard deviation 0.02; projections back into the stream scaled by 1/sqrt(2 layers) (GPT-2)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Transformer(sizes)
        for name, weight in model.named_parameters():
            if weight.dim() < 2:
                continue
            back = name.endswith(("o_proj.weight", "down_proj.weight"))
            nn.init.normal_(weight, std=0.02 / (2 * sizes.n_layers) ** 0.5 if back else 0.02)
    return model
