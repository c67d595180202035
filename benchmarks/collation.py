"""How much of the trainer's room is padding: Magistral's greedy collation against arrival order, and with packing.

    python benchmarks/collation.py    a few seconds on one core; results/collation.json

Lengths are log-normal with a long tail, cut at the longest completion, as pipeline/forecast.py takes them for the plans: the
longest of a group of 16 is about five times its shortest (Magistral, arXiv 2506.10910, section 3). Batches are section 5.2's.

A micro-batch has room for a fixed number of tokens. Two ways to lay it out:
rows       a row a completion, each as long as the longest in it: rows times the longest is at most the room. The paper's -19 %
           has no published baseline; this is the usual one.
packing    one row, completions one after another: what is empty of the room at the end. This is what trainer/collate.py does.
In arrival order the next completion begins a new micro-batch where it has no room; greedily they are taken longest first, and
each goes into a micro-batch with room.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from statistics import fmean

import torch
from common import versions, write_results

from magistral.pipeline.forecast import MEDIAN_SHARE, SIGMA
from magistral.pipeline.simulate import log_normal
from magistral.trainer.collate import Item, collate

SEED, N_BATCHES = 0, 20
SETTINGS = {"8 k of up to 24,576": (8192, 24_576), "4 k of up to 32,768": (4096, 32_768), "2 k of up to 40,960": (2048, 40_960)}
"""n_batch, and the longest completion."""
OURS = 128
"""Completions of up to 512 tokens that go through trainer/collate.py itself, against what is counted here."""

Bins = list[list[int]]


def in_rows(bin_: Sequence[int]) -> int:
    return len(bin_) * max(bin_)


def arrival(lengths: Sequence[int], room: int, *, rows: bool) -> Bins:
    bins: Bins = [[]]
    for n in lengths:
        if (in_rows([*bins[-1], n]) if rows else sum(bins[-1]) + n) > room and bins[-1]:
            bins.append([])
        bins[-1].append(n)
    return bins


def greedy(lengths: Sequence[int], room: int, *, rows: bool) -> Bins:
    """Into the first micro-batch with room; a row is as long as the first, which is the longest."""
    full, bins, used, shortest = Bins(), Bins(), list[int](), min(lengths)
    for n in sorted(lengths, reverse=True):
        i = next((i for i, bin_ in enumerate(bins) if used[i] + (bin_[0] if rows else n) <= room), len(bins))
        if i == len(bins):
            bins.append([])
            used.append(0)
        bins[i].append(n)
        used[i] += bins[i][0] if rows else n
        if used[i] + (bins[i][0] if rows else shortest) > room:
            full.append(bins.pop(i))
            del used[i]
    return full + bins


def padding(bins: Bins, room: int | None = None) -> float:
    """Share that holds no token: of the rows laid out, or of `room` for each micro-batch."""
    laid_out = len(bins) * room if room else sum(map(in_rows, bins))
    return 1 - sum(map(sum, bins)) / laid_out


def measured(n_batch: int, longest: int) -> dict[str, float]:
    random, draw = Random(SEED), log_normal(MEDIAN_SHARE * longest, SIGMA, longest)
    batches = [[draw(random) for _ in range(n_batch)] for _ in range(N_BATCHES)]
    rows = [(padding(arrival(b, longest, rows=True)), padding(greedy(b, longest, rows=True))) for b in batches]
    packed = [
        (padding(arrival(b, longest, rows=False), longest), padding(greedy(b, longest, rows=False), longest)) for b in batches
    ]
    found = {
        "rows_arrival": fmean(a for a, _ in rows), "rows_greedy": fmean(g for _, g in rows),
        "packing_arrival": fmean(a for a, _ in packed), "packing_greedy": fmean(g for _, g in packed),
    }  # fmt: skip
    saved = {f"{way}_less_padding": 1 - found[f"{way}_greedy"] / found[f"{way}_arrival"] for way in ("rows", "packing")}
    return {name: round(value, 4) for name, value in (found | saved).items()}


def of_our_own() -> dict[str, float]:
    """The trainer's collation of completions that share nothing, in tokens laid out, against the count above."""
    random, draw, room = Random(SEED), log_normal(MEDIAN_SHARE * 512, SIGMA, 512), 2048
    lengths = [draw(random) for _ in range(OURS)]
    items = [Item(prompt=(i,), tokens=tuple(random.randrange(1000) for _ in range(n)), weight=1.0) for i, n in enumerate(lengths)]
    sizes = [len(micro.tokens_T) for micro in collate(items, room)]
    counted = [sum(b) for b in greedy(lengths, room, rows=False)]
    assert sum(sizes) == sum(counted)  # nothing is laid out but tokens
    return {"micro_batches": len(sizes), "counted_micro_batches": len(counted), "tokens": sum(sizes), "room": len(sizes) * room}


def main() -> None:
    found = {name: measured(*setting) for name, setting in SETTINGS.items()}
    for name, row in found.items():
        print(name, row)
    ours = of_our_own()
    print(ours)
    told = {
        "seed": SEED,
        "batches": N_BATCHES,
        "versions": versions("torch", "numpy"),
        "median_share": MEDIAN_SHARE,
        "sigma": SIGMA,
    }
    write_results("collation", {**told, "settings": found, "trainer_collate": ours})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
