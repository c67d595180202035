"""Control groups: limits that hold for a whole family of processes, of version 1 or 2, whichever this host lets us make."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from magistral.errors import VerifierFailed
from magistral.verifiers.sandbox.limits import Limits

EMPTY_LIMIT_S = 5.0
"""chosen: killed processes are gone in milliseconds, if the machine is not stuck."""
_MB = 1 << 20
_VERSION_1 = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One run's group: a folder in each hierarchy (version 1) or one folder (version 2)."""

    memory: Path
    pids: Path
    cpu: Path | None

    @property
    def folders(self) -> list[Path]:
        return list(dict.fromkeys(f for f in (self.memory, self.pids, self.cpu) if f is not None))

    @property
    def entrances(self) -> list[str]:
        """Files that take the id of a process that is to join. In version 1 of its one thread: a thread that moves itself
        need not stop the forks of the whole machine, and so does not wait for its processors."""
        return [str(folder / ("tasks" if (folder / "tasks").exists() else "cgroup.procs")) for folder in self.folders]

    def ran_out_of_memory(self) -> bool:
        events = self.memory / "memory.events"
        counts = _counts(events if events.exists() else self.memory / "memory.oom_control")
        return counts.get("oom_kill", 0) > 0

    def peak_mb(self) -> float | None:
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            if (self.memory / name).exists():
                return int((self.memory / name).read_text()) / _MB
        return None

    def cpu_s(self) -> float | None:
        if self.cpu is None:
            return None
        if (self.cpu / "cpuacct.usage").exists():
            return int((self.cpu / "cpuacct.usage").read_text()) / 1e9
        return _counts(self.cpu / "cpu.stat").get("usage_usec", 0) / 1e6

    def close(self) -> None:
        """Kill who is left, and take the group away. Raises VerifierFailed if somebody outlives that."""
        end, pause = time.monotonic() + EMPTY_LIMIT_S, 0.0001
        while not self._remove():
            self.kill()
            if time.monotonic() > end:
                raise VerifierFailed(f"processes in {self.memory} outlive being killed")
            time.sleep(pause := min(2 * pause, 0.01))

    def kill(self) -> None:
        if (self.pids / "cgroup.kill").exists():
            (self.pids / "cgroup.kill").write_text("1")
            return
        for pid in (self.pids / "cgroup.procs").read_text().split() if self.pids.exists() else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def _remove(self) -> bool:
        gone = True
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


def _counts(file: Path) -> dict[str, int]:
    """Lines as `oom_kill 1`."""
    with contextlib.suppress(FileNotFoundError):
        return {name: int(n) for name, n in (line.split() for line in file.read_text().splitlines() if len(line.split()) == 2)}
    return {}


@dataclass(slots=True)
class Cgroups:
    """Where groups can be made. The folders are ours alone: their name holds our process's id."""

    version: int
    memory: Path
    pids: Path
    cpu: Path | None
    _n: itertools.count[int] = field(default_factory=itertools.count)

    def make(self, limits: Limits) -> Cgroup:
        """Raises VerifierFailed if the kernel refuses."""
        name = str(next(self._n))
        group = Cgroup(self.memory / name, self.pids / name, self.cpu / name if self.cpu else None)
        limit, swap = ("memory.max", "memory.swap.max") if self.version == 2 else _VERSION_1
        try:
            for folder in group.folders:
                folder.mkdir()
            (group.memory / limit).write_text(str(limits.memory_mb * _MB))
            if (group.memory / swap).exists():  # version 1 limits memory and swap together, where it counts swap at all
                (group.memory / swap).write_text("0" if self.version == 2 else str(limits.memory_mb * _MB))
            (group.pids / "pids.max").write_text(str(limits.n_processes))
        except OSError as e:
            group.close()
            raise VerifierFailed(f"no control group can be made: {e}") from e
        return group

    def remove(self) -> None:
        """At the end: the folder that held the groups."""
        for folder in dict.fromkeys(f for f in (self.memory, self.pids, self.cpu) if f is not None):
            with contextlib.suppress(OSError):
                folder.rmdir()


def find(root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> Cgroups | None:
    """A place where this process may make groups with limits of memory and processes, or None. `own` as /proc/self/cgroup."""
    if own is None:
        try:
            own = Path("/proc/self/cgroup").read_text()
        except OSError:
            return None
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path.lstrip("/"))
    return _version_2(root, paths.get("", "")) or _version_1(root, paths)


def _version_2(root: Path, own: str) -> Cgroups | None:
    for parent in dict.fromkeys((root / own, root)):
        if not {"memory", "pids"} <= set(_words(parent / "cgroup.controllers")):
            continue
        try:
            _delegate(parent)
            home = _home(parent)
            (home / "cgroup.subtree_control").write_text("+memory +pids")
            return Cgroups(2, home, home, home)
        except OSError:
            continue
    return None


def _delegate(parent: Path) -> None:
    """Version 2 lets a group, but for the root of all, have either processes or limited groups below it: if that is in the way,
    whoever is in `parent` moves into a leaf. Raises OSError where we may not."""
    control = parent / "cgroup.subtree_control"
    if {"memory", "pids"} <= set(_words(control)):
        return
    leaf = parent / "magistral-others"
    for _ in range(5):  # a process may start another one while we move it
        try:
            control.write_text("+memory +pids")
            return
        except OSError as e:
            if e.errno != errno.EBUSY:
                raise
        leaf.mkdir(exist_ok=True)
        for pid in _words(parent / "cgroup.procs"):
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)
    raise OSError(errno.EBUSY, f"processes keep starting in {parent}")


def _version_1(root: Path, paths: dict[str, str]) -> Cgroups | None:
    homes: dict[str, Path] = {}
    for controller, limit in (("memory", "memory.limit_in_bytes"), ("pids", ""), ("cpuacct", "cpuacct.usage")):
        for parent in dict.fromkeys((root / controller / paths.get(controller, ""), root / controller)):
            if not (parent / (limit or "cgroup.procs")).exists():
                continue
            with contextlib.suppress(OSError):
                homes[controller] = _home(parent)
                break
    if "memory" not in homes or "pids" not in homes:
        return None
    return Cgroups(1, homes["memory"], homes["pids"], homes.get("cpuacct"))


def _home(parent: Path) -> Path:
    """Our folder; those of processes that ended without tidying up are taken away first."""
    for old in parent.glob("magistral-*"):
        pid = old.name.removeprefix("magistral-")
        if pid.isdecimal() and not Path("/proc", pid).exists():
            for folder in [*old.glob("*/"), old]:
                with contextlib.suppress(OSError):
                    folder.rmdir()
    home = parent / f"magistral-{os.getpid()}"
    home.mkdir(exist_ok=True)
    return home


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
