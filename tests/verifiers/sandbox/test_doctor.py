"""What the doctor says of each tier is what its probes saw."""

from __future__ import annotations

import pytest

from magistral.verifiers.sandbox.box import Box
from magistral.verifiers.sandbox.doctor import PROBES, examine
from magistral.verifiers.sandbox.host import weaker
from magistral.verifiers.sandbox.limits import Tier

OPEN = {
    Tier.FULL: set(),
    Tier.BUBBLEWRAP: {"memory in many children"},
    Tier.UID: {
        "memory in many children",
        "files in memory (tmpfs)",
        "reading the host's files",
        "seeing other processes (/proc)",
    },
}


@pytest.mark.parametrize("tier", OPEN, ids=str)
def test_a_tier_holds_what_it_promises(tier: Tier) -> None:
    host = weaker(tier)
    if host.tier is not tier:
        pytest.skip(f"this host has no tier {tier!s}: {host.why or 'only root may change its user'}")
    with Box(1, host=host) as box:
        findings = list(examine(box))
    assert len(findings) == len(PROBES) + 1
    assert {f.name: f.what for f in findings if not f.holds and f.name not in OPEN[tier]} == {}
