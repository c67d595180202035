"""A cluster of our own is our own."""

from __future__ import annotations

import pytest

from magistral.engines.cluster import cluster


def test_another_cluster_of_the_machine_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # nobody is there: whoever joined it would fail
    with cluster(3):
        assert ray.cluster_resources()["CPU"] == 3
