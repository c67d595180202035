"""Numbers are sent on; whatever a mirror does, the run goes on and its person is told once."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from magistral.flow import StepReport
from magistral.log import RunFolder
from magistral.show.mirrors import MIRRORS, mirrored

STEPS = [StepReport(step=1, values={"loss": 0.5, "reward/mean": 0.25}), StepReport(step=2, values={"loss": 0.25})]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "first")
    folder.path.mkdir()
    folder.set_info(name="tiny", seed=3)
    (folder.path / "recipe.toml").write_text('name = "tiny"\n')
    return folder


def send(run: RunFolder, *names: str) -> list[str]:
    """What was said."""
    said: list[str] = []
    with mirrored(names, run, said.append) as tell:
        for report in STEPS:
            tell(report)
    return said


class Fake:
    """Any of the services' modules: notes what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Fake:
            self.calls.append((name, args or kwargs.get("name") or kwargs.get("run_name")))
            return self

        return call


@pytest.mark.parametrize(
    ("name", "logs"), [("wandb", "log"), ("mlflow", "log_metrics"), ("trackio", "log")], ids=["wandb", "mlflow", "trackio"]
)
def test_each_service_is_given_every_step_and_closed(
    name: str, logs: str, run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Fake()
    monkeypatch.setitem(sys.modules, name, service)
    assert send(run, name) == []
    assert [args for called, args in service.calls if called == logs] == [(s.values,) for s in STEPS]
    assert service.calls[-1][0] in ("finish", "end_run")
    assert "first" in [args for _, args in service.calls]  # the run's folder gives the name


def test_tensorboard_s_files_hold_the_numbers(run: RunFolder) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra `tensorboard`")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    assert send(run, "tensorboard") == []
    (file,) = (run.path / "tensorboard").iterdir()
    events = [e for e in EventFileLoader(str(file)).Load() if e.step]
    found = [
        (e.step, v.tag, round(v.tensor.float_val[0] if v.HasField("tensor") else v.simple_value, 3))
        for e in events
        for v in e.summary.value
    ]
    assert found == [(1, "loss", 0.5), (1, "reward/mean", 0.25), (2, "loss", 0.25)]


def test_a_mirror_that_is_not_installed_is_said_with_what_to_install(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    (said,) = send(run, "wandb")
    assert "mirror wandb" in said
    assert "scripts/install wandb" in said


def test_a_mirror_that_fails_is_said_once_and_the_others_go_on(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ConnectionError("no route to host")

    good = Fake()
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=lambda **_: SimpleNamespace(log=broken, finish=broken)))
    monkeypatch.setitem(sys.modules, "trackio", good)
    assert send(run, "wandb", "trackio") == ["mirror wandb: ConnectionError: no route to host; the run goes on without it"]
    assert [args for called, args in good.calls if called == "log"] == [(s.values,) for s in STEPS]


def test_nothing_is_imported_unless_asked_for(run: RunFolder) -> None:
    assert send(run) == []
    assert sorted(MIRRORS) == ["mlflow", "tensorboard", "trackio", "wandb"]
    assert "wandb" not in sys.modules
