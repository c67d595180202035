"""Runs on Ray: the same bits as in one process, and nothing lost whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from magistral.log import read_run
from magistral.pipeline.audit import audit
from magistral.pipeline.waits import explain

pytest.importorskip("ray", reason="needs the extra `ray`")

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}


class Driver:
    """A tiny run in a process of its own, whose workers can be killed by name."""

    def __init__(self, out: Path, *changes: str) -> None:
        self.out, self.changes = out, changes
        self.log = out.with_suffix(".log")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.pipeline.tiny_run", str(self.out), *self.changes]
        with self.log.open("w") as log:
            self.child = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)

    @property
    def step(self) -> int:
        return max((m["step"] for m in read_run(self.out).metrics()), default=0) if (self.out / "run.json").exists() else 0

    def until_step(self, step: int) -> None:
        self.until(lambda: self.step >= step, f"step {step}")

    def until(self, reached: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE_S
        while not reached():
            assert self.child.poll() is None, f"the run ended before {what}: {self.log.read_text()}"
            assert time.monotonic() < end, f"no {what}; {explain(self.out / 'waits.json', alive=True)}"
            time.sleep(0.05)

    def kill(self, name: str) -> None:
        """SIGKILL to a worker by its name, once it is up."""
        self.until(lambda: name in self.workers(), f"{name} is up")
        with suppress(ProcessLookupError):  # it may have been lost of itself
            os.kill(self.workers()[name], signal.SIGKILL)

    def workers(self) -> dict[str, int]:
        """Name to process."""
        file = self.out / "waits.json"
        known = json.loads(file.read_text())["workers"] if file.exists() else {}
        return {name: worker["pid"] for name, worker in known.items()}

    def kill_all(self) -> None:
        self.child.kill()
        self.child.wait()

    def end(self) -> None:
        self.child.wait(PATIENCE_S)
        assert self.child.returncode == 0, self.log.read_text()


def weights(out: Path, step: int) -> bytes:
    return (out / "checkpoints" / f"step-{step:06d}" / "model.safetensors").read_bytes()


def test_in_lockstep_ray_gives_the_same_bits_as_one_process_and_lost_workers_are_replaced(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "ray", "runtime.kind=ray", "rl.n_async=16", "runtime.verify_limit_s=3")
    driver.until_step(1)
    (driver.out / "hang").touch()
    driver.until_step(4)
    driver.kill("trainer")  # back from the checkpoint of step 3 and the completions of the steps after it
    driver.until_step(6)
    driver.kill("generator-0")  # from here on the prompts are computed anew, beside others: no longer the same bits
    driver.end()
    inline = Driver(tmp_path / "inline", "rl.n_async=16", "rl.steps=6")
    inline.end()
    assert weights(driver.out, 6) == weights(inline.out, 6)
    ours, theirs = (read_run(d.out).metrics() for d in (driver, inline))
    assert [m["values"]["loss"] for m in ours[:6]] == [m["values"]["loss"] for m in theirs]
    assert sum(m["values"]["groups_dropped"] for m in ours) > 0
    found = audit(read_run(driver.out))
    assert found.faults == ()
    assert (found.step, found.n_trained) == (9, 9 * 8)
    said = "\n".join(explain(driver.out / "waits.json", alive=False))
    assert "verifier-0: no answer for 3 s: the verdicts on group" in said
    assert "trainer: ActorDiedError" in said
    assert "generator-0: ActorDiedError" in said


def test_ctrl_c_amid_a_step_leaves_a_checkpoint_of_the_step_that_the_ledger_ends_at(tmp_path: Path) -> None:
    """Steps of about a second, so that one is under way nearly always."""
    slow = ("model.scratch={dim=64,n_layers=8,n_heads=2,n_kv_heads=1,hidden_dim=256}", "rl.micro_batch_tokens=256")
    driver = Driver(tmp_path / "rl", "runtime.kind=ray", "rl.steps=1000", "rl.checkpoint_every=1000", *slow)
    driver.until_step(2)
    driver.until(lambda: "waits for trainer" in "\n".join(explain(driver.out / "waits.json", alive=True)), "a step under way")
    driver.child.send_signal(signal.SIGINT)
    driver.child.wait(PATIENCE_S)
    run = read_run(driver.out)
    assert run.state == "stopped"
    found = audit(run)  # which compares the trainer's steps with the checkpoint's name
    assert found.faults == ()
    assert [folder.name for folder in run.checkpoints.iterdir()] == [f"step-{found.step:06d}"]


def test_what_a_person_must_mend_ends_the_run_at_the_first_worker_that_meets_it(tmp_path: Path) -> None:
    """It is no death: another try would meet it again."""
    driver = Driver(tmp_path / "rl", "runtime.kind=ray", 'engine.kind="vllm"', 'engine.program="/nowhere/vllm"')
    driver.child.wait(PATIENCE_S)
    last = driver.log.read_text().splitlines()[-1]
    assert last == (
        "magistral.errors.UserError: no program '/nowhere/vllm': name the vllm command of its environment in engine.program, or "
        "servers in engine.urls"
    )
    assert json.loads((driver.out / "waits.json").read_text())["faults"] == []


@pytest.mark.slow
def test_a_run_that_is_killed_whole_loses_nothing(tmp_path: Path) -> None:
    driver = Driver(tmp_path / "rl", "runtime.kind=ray", "runtime.n_generators=2")
    driver.until_step(5)
    driver.kill_all()
    assert audit(read_run(driver.out)).faults == ()
    driver.start()
    driver.end()
    after = audit(read_run(driver.out))
    assert after.faults == ()
    assert (after.step, after.n_trained) == (9, 9 * 8)


@pytest.mark.slow
def test_after_each_of_fifty_kills_at_random_moments_the_ledger_adds_up(tmp_path: Path) -> None:
    """Each kind of worker, and the whole tree, in a run whose stages change while it is killed."""
    draw = random.Random(0)
    stages = '[{name="one", steps=9}, {name="two", steps=60, n_batch=8, n_async=16}, {name="three", n_batch=16, n_async=32}]'
    changes = ("runtime.n_generators=2", "rl.steps=100000", f"rl.stages={stages}")
    driver = Driver(tmp_path / "rl", "runtime.kind=ray", *changes)
    for n in range(50):
        driver.until_step(driver.step + 1)
        time.sleep(draw.random() * 2)
        who = ("generator-0", "generator-1", "verifier-0", "trainer", "all")[n % 5]
        if who == "all":
            driver.kill_all()
        else:
            driver.kill(who)
        assert audit(read_run(driver.out)).faults == (), f"after kill {n}, of {who}"  # a run that goes on writes later steps only
        if who == "all":
            driver.start()
    last = driver.step
    driver.until_step(last + 2)
    driver.kill_all()
    found = audit(read_run(driver.out))
    assert found.faults == ()
    assert found.step >= last + 2
    assert [m["step"] for m in read_run(driver.out).metrics() if "note" in m] == [9, 69][: 1 + (found.step >= 69)]


@pytest.mark.slow
def test_a_node_that_is_lost_in_mid_run_takes_nothing_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setitem(ENVIRONMENT, "RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    try:
        other = cluster.add_node(num_cpus=2)
        changes = ("runtime.kind=ray", f'runtime.address="{cluster.address}"', "runtime.n_generators=2", "rl.steps=12")
        driver = Driver(tmp_path / "rl", *changes)
        driver.until(lambda: {"generator-0", "generator-1"} <= driver.workers().keys(), "two generators")
        driver.until_step(2)
        cluster.remove_node(other, allow_graceful=False)
        driver.end()
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
    assert audit(read_run(driver.out)).faults == ()
    assert read_run(driver.out).metrics()[-1]["values"]["workers_lost"] > 0


@pytest.mark.slow
def test_the_loss_of_the_head_node_ends_the_run_with_a_clear_error_and_it_goes_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setitem(ENVIRONMENT, "RAY_AUTH_MODE", "disabled")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4})
    said = f"the head of the Ray cluster at {cluster.address} has not answered for 5 s: start the cluster anew, then run the same"
    try:
        changes = ("runtime.kind=ray", f'runtime.address="{cluster.address}"', "runtime.head_limit_s=5")
        driver = Driver(tmp_path / "rl", "rl.steps=200", *changes)
        driver.until_step(2)
        cluster.head_node.kill_gcs_server(check_alive=False)  # type: ignore[attr-defined]
        lost = time.monotonic()
        driver.child.wait(PATIENCE_S)
        assert time.monotonic() - lost < 50  # so it was not Ray that ended it, after 60 s
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]
    assert driver.child.returncode == 1
    assert said in driver.log.read_text()
    run = read_run(driver.out)
    assert run.state == "failed"
    assert said in run.info()["error"]
    reached = audit(run)
    assert reached.faults == ()
    assert 2 <= reached.step < 200
    driver.changes = ("rl.steps=200",)  # in one process, which needs no cluster
    driver.start()
    driver.end()
    assert audit(read_run(driver.out)).faults == ()
    assert driver.step == 200
