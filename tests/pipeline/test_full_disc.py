"""A full disc is said, with the file that did not fit; no step that was finished is lost, and the run goes on later."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from magistral.errors import DiscFull
from magistral.log import append, whole, write_atomically
from magistral.pipeline.waits import Waits
from tests.pipeline.full_disc import N_STEPS

ROOT = Path(__file__).parents[2]
ALONE = ("unshare", "--user", "--map-root-user", "--mount")


def may_mount() -> bool:
    """Whether this host lets us mount a file system in a namespace of our own."""
    mount = ("mount", "-t", "tmpfs", "tmpfs", "/mnt")
    return bool(shutil.which("unshare")) and subprocess.run((*ALONE, *mount), capture_output=True, check=False).returncode == 0


def test_wherever_the_disc_fills_the_file_is_named_and_the_run_goes_on_when_there_is_space(tmp_path: Path) -> None:
    if not may_mount():
        pytest.skip("this host lets nobody mount a small file system in a user namespace")
    command = (*ALONE, sys.executable, "-m", "tests.pipeline.full_disc", str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    tried = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(t["faults"] == [] and t["left"] == [] and t["steps_lost"] == 0 and t["step"] == N_STEPS + 2 for t in tried), tried
    named = " ".join(t["said"] for t in tried)
    for file in ("traces/step-000002.parquet", "ledger/open.parquet", "checkpoints/step-000003"):
        assert f"{tmp_path}/run/{file}: free some, then run the same command with --resume" in named, named
    assert tried[0]["said"]  # no room at all
    assert not tried[-1]["said"]  # room enough


def test_what_other_writers_say_of_a_full_disc_becomes_the_name_of_the_file(tmp_path: Path) -> None:
    """/dev/full has never any space."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"a": list(range(1000))})
    writers: dict[str, Callable[[Path], object]] = {
        "text": lambda path: path.write_text("a"),
        "parquet": lambda path: pq.write_table(table, path),
    }
    for name, write in writers.items():
        (tmp_path / f".{name}.partial").symlink_to("/dev/full")
        with pytest.raises(DiscFull, match=f"no space left on the disc at {tmp_path / name}"), whole(tmp_path / name) as partial:
            write(partial)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(DiscFull, match="no space left on the disc at /dev/full"):
        append(Path("/dev/full"), [{"a": 1}])


def test_another_fault_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "file", "a")


def test_a_full_disc_does_not_take_down_who_writes_the_waits(tmp_path: Path) -> None:
    (tmp_path / ".waits.json.partial").symlink_to("/dev/full")
    with Waits(tmp_path / "waits.json") as waits, waits("train", "verify", "3 of 8 groups are scored"):
        waits.write()
    assert "waits" in json.loads((tmp_path / "waits.json").read_text())  # the link is gone: there was space at the end
