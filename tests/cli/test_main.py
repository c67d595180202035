"""Whatever goes wrong ends as one line a fault and an exit code."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest

from magistral import __version__
from magistral.cli import main as cli
from magistral.errors import MagistralError, RecipeError, TrainingFailed, UserError

NO_MEMORY = (
    "magistral: error: not enough memory: ask for less at once or a smaller model; `magistral plan MODEL` says what fits\n"
)


def leave_after(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    def app() -> None:
        raise error

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (RecipeError("a.toml: 'eval' is missing"), 2, "magistral: error: a.toml: 'eval' is missing\n"),
        (RecipeError("one\ntwo"), 2, "magistral: error: one\nmagistral: error: two\n"),
        (TrainingFailed("step 3: the loss is nan"), 1, "magistral: error: step 3: the loss is nan\n"),
        (MagistralError(), 1, "magistral: error: MagistralError\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "runs/a/x.safetensors"),
            2,
            "magistral: error: no space left on the disc at runs/a/x.safetensors: free some, "
            "then run the same command with --resume\n",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "runs/a"),
            2,
            "magistral: error: Permission denied at runs/a: name another place, or make this one fit to be read and written\n",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 1, NO_MEMORY),
        (MemoryError(), 1, NO_MEMORY),
        (UserError("no tensor \x1b[2J"), 2, "magistral: error: no tensor ␛[2J\n"),
    ],
    ids=[
        "user's fault",
        "two faults",
        "failed run",
        "no words",
        "full disc",
        "closed place",
        "no memory for torch",
        "no memory",
        "hostile words",
    ],
)
def test_an_error_is_told_in_its_own_words(
    error: Exception, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert leave_after(error, monkeypatch) == code
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("bug", [OSError(errno.EBADF, "Bad file descriptor"), RuntimeError("shapes differ")], ids=["os", "torch"])
def test_a_bug_of_ours_keeps_its_traceback(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise bug

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(type(bug)):
        cli.main()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, f"magistral {__version__}"),
        (["--help"], 0, "sft"),
        (["evall"], 2, "Did you mean 'eval'?"),
        (["rl", "--no-such-option"], 2, "No such option"),
        (["chat", "--threads", "100000"], 2, "less than or equal to 1024"),
        (["rl", "no-such-recipe.toml", "--out", "nowhere"], 2, "magistral: error: no recipe at no-such-recipe.toml"),
    ],
    ids=[
        "version",
        "help",
        "verb that is not there",
        "option that is not there",
        "more threads than torch bears",
        "recipe that is not there",
    ],
)
def test_the_command_answers_at_once(
    arguments: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["magistral", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == code
    assert said in "".join(capsys.readouterr())


def test_ctrl_c_twice_leaves_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert leave_after(KeyboardInterrupt(), monkeypatch) == 130
    assert capsys.readouterr() == ("", "")


def test_a_closed_standard_input_is_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(cli, "app", lambda: None)
    cli.main()
    assert sys.stdin.read() == ""
    sys.stdin.close()


def test_the_command_starts_without_torch() -> None:
    code = "import sys, magistral.cli.main; print([m for m in ('torch', 'numpy', 'pyarrow') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
