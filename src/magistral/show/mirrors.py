"""A run's numbers, sent on to TensorBoard, Weights & Biases, MLflow or trackio. The run's own files come first: each is
imported only when asked for, in a thread that the run does not wait for, and one that fails is said once and left out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Protocol

from magistral.flow import StepReport
from magistral.log import RunFolder
from magistral.registry import Registry

PROJECT = "magistral"
CLOSE_S = 30.0
"""For what is still on its way at the end (chosen: a person's patience)."""


class Mirror(Protocol):
    def add(self, report: StepReport) -> None: ...

    def close(self) -> None: ...


MIRRORS = Registry[Callable[[RunFolder], Mirror]]("mirror")


@contextmanager
def mirrored(names: Sequence[str], run: RunFolder, say: Callable[[str], None]) -> Iterator[Callable[[StepReport], None]]:
    """What is to be told of each step. `say` is told, once, of each mirror that fails."""
    if not names:
        yield lambda _: None
        return
    reports: SimpleQueue[StepReport | None] = SimpleQueue()
    thread = threading.Thread(target=_send_on, args=(names, run, say, reports), name="mirrors", daemon=True)
    thread.start()
    try:
        yield reports.put
    finally:
        reports.put(None)
        thread.join(CLOSE_S)


def _send_on(names: Sequence[str], run: RunFolder, say: Callable[[str], None], reports: SimpleQueue[StepReport | None]) -> None:
    opened: dict[str, Mirror] = {}

    def attempt(name: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as e:  # noqa: BLE001 - whatever a service does, the run goes on
            opened.pop(name, None)
            hint = f"; scripts/install {name}" if isinstance(e, ImportError) else ""
            say(f"mirror {name}: {type(e).__name__}: {e}{hint}; the run goes on without it")

    for name in names:
        attempt(name, lambda name=name: opened.update({name: MIRRORS[name](run)}))  # type: ignore[misc]
    while (report := reports.get()) is not None:
        for name, mirror in list(opened.items()):
            attempt(name, lambda mirror=mirror: mirror.add(report))  # type: ignore[misc]
    for name, mirror in list(opened.items()):
        attempt(name, mirror.close)


@MIRRORS.register("tensorboard")
class TensorBoard:
    """Event files in the run's folder: `tensorboard --logdir RUN`."""

    def __init__(self, run: RunFolder) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.writer = EventFileWriter(str(run.path / "tensorboard"))

    def add(self, report: StepReport) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in report.values.items()]
        self.writer.add_event(Event(wall_time=time.time(), step=report.step, summary=Summary(value=values)))

    def close(self) -> None:
        self.writer.close()


@MIRRORS.register("wandb")
class Wandb:
    def __init__(self, run: RunFolder) -> None:
        import wandb

        self.run = wandb.init(project=PROJECT, name=_name(run), dir=str(run.path), config=run.info())

    def add(self, report: StepReport) -> None:
        self.run.log(report.values, step=report.step)

    def close(self) -> None:
        self.run.finish()


@MIRRORS.register("mlflow")
class Mlflow:
    def __init__(self, run: RunFolder) -> None:
        import mlflow

        self.mlflow = mlflow
        mlflow.set_experiment(PROJECT)
        mlflow.start_run(run_name=_name(run))
        mlflow.log_artifact(str(run.path / "recipe.toml"))

    def add(self, report: StepReport) -> None:
        self.mlflow.log_metrics(report.values, step=report.step)

    def close(self) -> None:
        self.mlflow.end_run()


@MIRRORS.register("trackio")
class Trackio:
    def __init__(self, run: RunFolder) -> None:
        import trackio

        self.trackio = trackio
        trackio.init(project=PROJECT, name=_name(run), config=run.info())

    def add(self, report: StepReport) -> None:
        self.trackio.log(report.values, step=report.step)

    def close(self) -> None:
        self.trackio.finish()


def _name(run: RunFolder) -> str:
    return run.path.resolve().name
