"""A run whose trainer is two ranks, on Ray: a rank that dies is replaced, and one rank goes on from what two have saved."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from magistral.log import read_run
from magistral.pipeline.audit import audit

pytest.importorskip("ray", reason="needs the extra `ray`")
psutil = pytest.importorskip("psutil", reason="comes with Ray")

from tests.pipeline.test_ray import Driver  # noqa: E402 - needs Ray


def test_a_rank_that_dies_is_replaced_and_one_rank_goes_on_from_what_two_have_saved(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "run", "runtime.kind=ray", "runtime.n_trainers=2")
    driver.until_step(1)
    children = psutil.Process(driver.child.pid).children(recursive=True)
    second = [child for child in children if any("RankWorker" in part for part in _command(child))]
    second[0].send_signal(signal.SIGKILL)
    driver.until_step(4)
    driver.kill_all()
    saved = tmp_path / "run" / "checkpoints" / "step-000003"
    assert sorted(path.name for path in saved.glob("trainer-*")) == ["trainer-0-of-2.safetensors", "trainer-1-of-2.safetensors"]
    driver.changes = ()
    driver.start()
    driver.end()
    run = read_run(driver.out)
    assert [m["step"] for m in run.metrics()] == list(range(1, 10))
    assert audit(run).faults == ()


def _command(process: Any) -> list[str]:
    with suppress(psutil.NoSuchProcess):
        return list(process.cmdline())
    return []
