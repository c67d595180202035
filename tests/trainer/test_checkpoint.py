"""A checkpoint is whole under its name or absent, whenever the process is killed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from magistral.errors import RunFolderError
from magistral.log import RunFolder
from magistral.models.transformer import Transformer
from magistral.recipe_train import Sft
from magistral.trainer.checkpoint import checkpoints, keep_only, restore_newest
from magistral.trainer.trainer import Trainer


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """With two checkpoints of two files."""
    for step in (1, 2):
        folder = tmp_path / "checkpoints" / f"step-{step:06d}"
        folder.mkdir(parents=True)
        for name in ("trainer-0-of-1.safetensors", "state.json"):
            (folder / name).write_text("{}")
    return RunFolder(tmp_path)


def test_a_kill_while_an_old_checkpoint_is_removed_leaves_no_half_of_it(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(folder: Path, **_options: object) -> None:
        if folder.exists():
            next(folder.iterdir()).unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("magistral.trainer.checkpoint.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            keep_only(run, ["step-000001"])
    assert [(c.name, len(list(c.iterdir()))) for c in checkpoints(run)] == [("step-000001", 2)]
    keep_only(run, [])
    assert list(run.checkpoints.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"step": "2"}', None],
    ids=["empty", "list", "no step", "step in words", "absent"],
)
def test_a_broken_state_says_how_to_go_on(content: str | None, run: RunFolder, tiny: Callable[..., Transformer]) -> None:
    file = run.checkpoints / "step-000002" / "state.json"
    file.unlink()
    if content is not None:
        file.write_text(content)
    trainer = Trainer(tiny(), Sft(lr=1e-3, n_traces=1, n_batch=1), seed=0)
    with pytest.raises(RunFolderError, match=r"state\.json cannot be read .*: remove its folder"):
        restore_newest(run, trainer)
    shutil.rmtree(run.checkpoints)
    assert restore_newest(run, trainer) is None
