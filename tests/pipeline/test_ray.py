"""The nano recipe on Ray: the same bits as in one process, and nothing lost when workers are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from magistral.log import read_run
from magistral.pipeline.audit import audit
from tests.pipeline.test_nano import COMMAND, ENVIRONMENT, RECIPE, magistral
from tests.pipeline.test_nano import sft as sft

pytest.importorskip("ray", reason="needs the extra `ray`")


class Driver:
    """`magistral rl` on Ray in a process of its own, whose workers can be killed by name."""

    def __init__(self, sft: Path, out: Path, *changes: str) -> None:
        self.out = out
        settings = [word for change in ("runtime.kind=ray", *changes) for word in ("--set", change)]
        self.arguments = ["rl", RECIPE, "--model", str(sft), "--out", str(out), "--threads", "1", *settings]
        self.start()

    def start(self, *more: str) -> None:
        self.child = subprocess.Popen(
            [*COMMAND, *self.arguments, *more], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def step(self) -> int:
        return max((m["step"] for m in read_run(self.out).metrics()), default=0) if (self.out / "run.json").exists() else 0

    def until_step(self, step: int) -> None:
        self.until(lambda: self.step() >= step, f"step {step}")

    def until(self, reached: Callable[[], bool], what: str) -> None:
        for _ in range(4000):
            if reached():
                return
            assert self.child.poll() is None, f"the run ended before {what}: {self.child.stderr.read()!r}"
            time.sleep(0.05)
        raise AssertionError(f"no {what} within 200 seconds")

    def kill(self, name: str) -> None:
        """SIGKILL to a worker by its name, once it is up."""
        self.until(lambda: name in self._workers(), f"{name} is up")
        with suppress(ProcessLookupError):  # it may have been lost of itself
            os.kill(self._workers()[name]["pid"], signal.SIGKILL)

    def _workers(self) -> dict[str, dict[str, int]]:
        file = self.out / "waits.json"
        found: dict[str, dict[str, int]] = json.loads(file.read_text())["workers"] if file.exists() else {}
        return found

    def kill_all(self) -> None:
        self.child.kill()
        self.child.wait()

    def end(self) -> None:
        _, said = self.child.communicate(timeout=300)
        assert self.child.returncode == 0, said.decode()


def weights(out: Path) -> bytes:
    return max((out / "checkpoints").glob("step-*/model.safetensors")).read_bytes()


SMALL = ("rl.group_size=2", "rl.n_batch=16", "rl.n_minibatch=16", "rl.checkpoint_every=3")  # many groups are all alike


def test_in_lockstep_ray_gives_the_same_bits_as_one_process_even_when_workers_die(sft: Path, tmp_path: Path) -> None:
    changes = (*SMALL, "rl.n_async=16", "rl.steps=8")
    driver = Driver(sft, tmp_path / "ray", *changes)
    driver.until_step(2)
    driver.kill("verifier-0")
    driver.until_step(4)
    driver.kill("trainer")  # back from the checkpoint of step 3 and the completions of the steps after it
    driver.end()
    settings = [word for change in changes for word in ("--set", change)]
    magistral("rl", RECIPE, "--model", str(sft), "--out", str(tmp_path / "inline"), "--threads", "1", *settings)
    assert weights(tmp_path / "ray") == weights(tmp_path / "inline")
    ours, theirs = (read_run(tmp_path / name).metrics() for name in ("ray", "inline"))
    assert ours[-1]["values"]["workers_lost"] == 2
    assert sum(m["values"]["groups_dropped"] for m in ours) > 0
    assert [m["values"]["loss"] for m in ours] == [m["values"]["loss"] for m in theirs]
    assert audit(read_run(tmp_path / "ray")).faults == ()


def test_a_killed_generator_and_a_killed_run_lose_nothing(sft: Path, tmp_path: Path) -> None:
    driver = Driver(
        sft, tmp_path / "rl", "rl.n_batch=32", "rl.n_minibatch=32", "rl.n_async=64", "rl.steps=9", "runtime.n_generators=2"
    )
    driver.until_step(2)
    driver.kill("generator-0")
    driver.until_step(4)
    driver.kill("generator-1")
    driver.until_step(6)
    driver.kill_all()
    before = audit(read_run(driver.out))
    assert before.faults == ()
    assert before.n_begun > 0
    driver.start("--resume")
    driver.end()
    after = audit(read_run(driver.out))
    assert after.faults == ()
    assert after.step == 9
    said = magistral("show", str(driver.out), "--why")
    assert "no process holds this run" in said
    assert "step 9: " in said
