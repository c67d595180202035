"""Advantages as Magistral has them (arXiv 2506.10910, section 2.1), and which groups can teach at all."""

from __future__ import annotations

import math
from collections.abc import Sequence


def is_diverse(rewards: Sequence[float]) -> bool:
    """Some two rewards of the group differ. (The paper's formula; its prose, "all right or all wrong", is narrower:
    a group that differs by length or language alone passes here.) Differences below 1e-9 are rounding."""
    return max(rewards) - min(rewards) > 1e-9


def advantages(groups: Sequence[Sequence[float]]) -> list[list[float]]:
    """Rewards of a minibatch's whole groups: minus the group's mean, then divided by the standard deviation
    (over all sequences of the minibatch, population form; the mean is 0 by construction, so it is not subtracted)."""
    centred = [[r - math.fsum(group) / len(group) for r in group] for group in groups]
    flat = [a for group in centred for a in group]
    std = math.sqrt(math.fsum(a * a for a in flat) / len(flat))
    return [[a / std if std > 0 else 0.0 for a in group] for group in centred]
