"""What is worth watching of a step: how far the weights are from those that wrote its tokens, and why.

Where a token was written by the weights of now (gap 0) after others of its completion were written by older ones, its keys and
values so far are stale; what its ratio is off by is what keeping them costs, measured against the trainer's fresh ones.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from magistral.trainer.collate import MicroBatch

LARGEST_GAP = 3
"""Larger gaps are counted with this one (chosen: at n_async / n_batch <= 2 they are rare)."""


def watched(log_ratio_N: Tensor, clipped_N: Tensor, micro: MicroBatch) -> dict[str, float]:
    """Sums over tokens, of all and by kind, each with its count `n`."""
    kinds = {f"gap{g}/": micro.gap_N == g for g in range(LARGEST_GAP)}
    kinds[f"gap{LARGEST_GAP}/"] = micro.gap_N >= LARGEST_GAP
    kinds["stale_cache/"] = (micro.gap_N == 0) & (micro.older_N > 0)
    kinds[""] = micro.gap_N >= 0
    ratio_N = log_ratio_N.exp()
    each = {"n": ratio_N * 0 + 1, "clip_share": clipped_N, "ratio_mean": ratio_N, "kl_to_sampled": ratio_N - 1 - log_ratio_N}
    return {f"{kind}{name}": float(value_N[mask_N].sum()) for kind, mask_N in kinds.items() for name, value_N in each.items()}


def means(sums: Mapping[str, float]) -> dict[str, float]:
    """Each sum over the count of its kind; kinds of which there was nothing are left out. `gap1/share`: of all tokens."""
    found = {}
    for name, value in sums.items():
        kind, slash, last = name.rpartition("/")
        n = sums[f"{kind}{slash}n"]
        if last != "n" and n:
            found[name] = value / n
        elif slash and n:
            found[f"{kind}/share"] = n / sums["n"]
    return found
