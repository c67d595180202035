"""Control groups of both versions, on folders that look like theirs: what is written where."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from magistral.errors import VerifierFailed
from magistral.verifiers.sandbox import cgroup
from magistral.verifiers.sandbox.cgroup import Cgroup, Cgroups
from magistral.verifiers.sandbox.limits import Limits


def like_version_2(root: Path) -> Path:
    own = root / "user.slice" / "me"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text("")
    (own / "cgroup.procs").write_text("")
    return own


def test_version_2_is_found_where_our_own_group_may_be_divided(tmp_path: Path) -> None:
    own = like_version_2(tmp_path)
    groups = cgroup.find(tmp_path, "0::/user.slice/me\n")
    assert groups is not None
    assert (groups.version, groups.memory) == (2, own / f"magistral-{os.getpid()}")
    assert (own / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (groups.memory / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_version_2_moves_whoever_is_in_the_way_into_a_leaf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = like_version_2(tmp_path)
    (own / "cgroup.procs").write_text("11\n12\n")
    moved: list[str] = []
    write = Path.write_text

    def like_the_kernel(path: Path, text: str) -> int:
        if path == own / "cgroup.subtree_control" and moved != ["11", "12"]:
            raise OSError(errno.EBUSY, "no limits beside processes")
        if path == own / "magistral-others" / "cgroup.procs":
            moved.append(text)
            return len(text)
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", like_the_kernel)
    groups = cgroup.find(tmp_path, "0::/user.slice/me\n")
    assert groups is not None
    assert moved == ["11", "12"]


def test_version_2_moves_nobody_where_it_may_not_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = like_version_2(tmp_path)

    def refuse(path: Path, text: str) -> int:
        raise OSError(errno.EACCES, f"{path} is not ours")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert cgroup.find(tmp_path, "0::/user.slice/me\n") is None
    assert not (own / "magistral-others").exists()


def test_version_2_writes_its_limits_and_reads_its_counts(tmp_path: Path) -> None:
    like_version_2(tmp_path)
    groups = cgroup.find(tmp_path, "0::/user.slice/me\n")
    assert groups is not None
    group = groups.make(Limits(memory_mb=5, n_processes=7))
    assert (group.memory / "memory.max").read_text() == str(5 << 20)
    assert (group.memory / "pids.max").read_text() == "7"
    assert group.entrances == [f"{group.memory}/cgroup.procs"]
    (group.memory / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    (group.memory / "memory.peak").write_text(f"{3 << 20}\n")
    (group.memory / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    assert (group.ran_out_of_memory(), group.peak_mb(), group.cpu_s()) == (True, 3.0, 2.5)


def test_version_1_has_a_folder_for_each_controller(tmp_path: Path) -> None:
    for controller, file in (("memory", "memory.limit_in_bytes"), ("pids", "cgroup.procs"), ("cpuacct", "cpuacct.usage")):
        (tmp_path / controller).mkdir()
        (tmp_path / controller / file).write_text("0")
    groups = cgroup.find(tmp_path, "4:memory:/elsewhere\n8:pids:/\n2:cpuacct:/\n0::/\n")
    assert groups is not None
    assert groups.version == 1
    group = groups.make(Limits(memory_mb=5, n_processes=7))
    assert group.entrances == [f"{folder}/cgroup.procs" for folder in group.folders]
    for folder in group.folders:  # which a kernel makes with the folder
        (folder / "tasks").touch()
    assert group.entrances == [f"{folder}/tasks" for folder in group.folders]
    assert (group.memory / "memory.limit_in_bytes").read_text() == str(5 << 20)
    (group.memory / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert group.ran_out_of_memory()


@pytest.mark.parametrize(
    "own", ["", "0::/\n", "3:memory:/x\n"], ids=["nothing", "version 2 without memory", "version 1 without pids"]
)
def test_a_host_without_the_controllers_has_none(tmp_path: Path, own: str) -> None:
    assert cgroup.find(tmp_path, own) is None


def test_what_a_dead_process_of_ours_left_is_taken_away(tmp_path: Path) -> None:
    own = like_version_2(tmp_path)
    (own / "magistral-999999999" / "0").mkdir(parents=True)
    assert cgroup.find(tmp_path, "0::/user.slice/me\n") is not None
    assert not (own / "magistral-999999999").exists()


def test_a_family_that_outlives_its_end_is_a_failure_of_the_verifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "EMPTY_LIMIT_S", 0.0)
    (tmp_path / "0" / "child").mkdir(parents=True)  # a folder that is not empty, as a group with processes
    (tmp_path / "0" / "cgroup.procs").write_text("")
    with pytest.raises(VerifierFailed, match="outlive"):
        Cgroup(tmp_path / "0", tmp_path / "0", None).close()


def test_a_kernel_that_refuses_a_group_is_a_failure_of_the_verifier(tmp_path: Path) -> None:
    with pytest.raises(VerifierFailed, match="no control group"):
        Cgroups(1, tmp_path / "no" / "memory", tmp_path / "no" / "pids", None).make(Limits())
