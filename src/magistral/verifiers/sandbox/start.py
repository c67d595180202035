"""How a program is started in each tier: the words of the command, and what is handed over with it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magistral.errors import VerifierFailed
from magistral.verifiers.sandbox import launch
from magistral.verifiers.sandbox.cgroup import Cgroup
from magistral.verifiers.sandbox.host import BOXED_UID, FIRST_UID, N_UIDS, NAMESPACES, Host, links, scratch
from magistral.verifiers.sandbox.launch import STATUS
from magistral.verifiers.sandbox.limits import Limits, Tier

_MB = 1 << 20
STACK_MB = 256
"""chosen: deep recursion is honest, and stack that is touched counts as memory."""
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
"""All that a program is told. The hash seed is fixed, so that a whole group is judged alike."""
START_LIMIT_S = 30.0
"""chosen: a fork takes a millisecond, if the machine is not stuck."""
_BY_PROCESS = 'ulimit -v "$1"; ulimit -u "$2" 2>/dev/null || ulimit -p "$2"; shift 2; exec "$@"'
"""In the box, where there are no control groups: address space of each process, and how many in the user namespace."""


def boxed(host: Host, slot: int, folder: Path, limits: Limits, group: Cgroup | None) -> dict[str, Any]:
    """A request to launch.py, under bubblewrap, which gets the refused system calls as the file after STATUS."""
    words = [host.bwrap, *NAMESPACES, "--json-status-fd", str(STATUS)]
    words += ["--seccomp", str(STATUS + 1)] if host.seccomp else []
    words += ["--ro-bind", "/usr", "/usr", *links(), "--ro-bind", str(folder), "/box"]
    words += ["--size", str(limits.tmp_mb * _MB), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    # the root and /dev are file systems in memory, too, and would take as much as the host has
    words += ["--size", str(limits.tmp_mb * _MB), "--tmpfs", "/dev/shm", "--remount-ro", "/dev", "--remount-ro", "/"]
    words += [word for pair in ENVIRONMENT.items() for word in ("--setenv", *pair)]
    if group is None:
        words += ["/bin/sh", "-c", _BY_PROCESS, "sh", str(_reserved(limits) // 1024), str(limits.n_processes)]
    rlimits = {
        "CORE": 0, "STACK": min(limits.memory_mb, STACK_MB) * _MB, "NOFILE": 256, "FSIZE": limits.tmp_mb * _MB,
    }  # fmt: skip
    return {
        "words": words, "place": "/", "rlimits": rlimits, "uid": BOXED_UID + slot % 100 if host.root else None,
        "entrances": group.entrances if group else [], "seccomp": None,
    }  # fmt: skip


def limited(host: Host, uid: int | None, place: str, limits: Limits) -> dict[str, Any]:
    """A request to launch.py without bubblewrap: limits for each process."""
    rlimits = {
        "AS": _reserved(limits), "CORE": 0, "FSIZE": limits.tmp_mb * _MB, "NOFILE": 256, "STACK": 64 * _MB,
        "CPU": int(limits.wall_s) + 2,
    }  # fmt: skip
    if host.tier is Tier.UID:  # as our own user it would count every process that we have
        rlimits["NPROC"] = limits.n_processes
    return {"words": [], "place": place, "rlimits": rlimits, "uid": uid, "entrances": [], "seccomp": host.seccomp.hex()}


def _reserved(limits: Limits) -> int:
    """Bytes of address space: what may be used, and what an interpreter reserves without using it."""
    return (limits.memory_mb + 64) * _MB


@contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """A file descriptor to read `content` from and never to write to: nobody waits for a program that reads nothing."""
    fd = os.memfd_create("given", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(content)
        os.lseek(fd, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def work_folder(uid: int | None) -> Iterator[str]:
    """Where a program that has no file system of its own may write; its user's alone."""
    path = tempfile.mkdtemp(prefix=f"work-{os.getpid()}-", dir=scratch())
    if uid is not None:
        os.chown(path, uid, uid)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Started:
    """A program that runs. Its process id stays its own until `wait`, which gives the exit code, negative for a signal."""

    pid: int
    wait: Callable[[], int]
    stdout: int
    stderr: int
    status: int
    """File descriptors to read from; `status` is bubblewrap's, or launch.py's."""


class LauncherDied(VerifierFailed):
    """Says nothing of the program: it may be run again."""


class Launcher:
    """The small process (launch.py) that starts the programs of one slot; started when first needed, and again if it dies."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def close(self) -> None:
        """Ends a program that still runs, too."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._channel = None

    @contextmanager
    def start(self, request: dict[str, Any], stdin: int, *refused: int) -> Iterator[Started]:
        """Raises LauncherDied; a program that cannot be started says so on its standard error, and ends with 126."""
        pipes = [os.pipe() for _ in range(3)]
        ours, theirs = ([pair[side] for pair in pipes] for side in (0, 1))
        try:
            try:
                pid = self._asked(json.dumps(request | {"environment": ENVIRONMENT}).encode(), [stdin, *theirs, *refused])
            finally:
                for fd in theirs:
                    os.close(fd)
            yield Started(pid, lambda: self._asked(b"."), *ours)
        finally:
            for fd in ours:
                os.close(fd)

    def _asked(self, message: bytes, files: Sequence[int] = ()) -> int:
        try:
            if self._channel is None or (self._process is not None and self._process.poll() is not None):
                self.close()
                self._channel = self._begin()
            socket.send_fds(self._channel, [message], list(files))
            reply = self._channel.recv(64)
        except OSError as e:
            self.close()
            raise LauncherDied(f"a boxed program cannot be started: {e}") from e
        if not reply:
            self.close()
            raise LauncherDied("the process that starts boxed programs died")
        return int(reply)

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", launch.__file__, str(theirs.fileno())], pass_fds=[theirs.fileno()], cwd="/",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
                env=ENVIRONMENT,
            )  # fmt: skip
        ours.settimeout(START_LIMIT_S)
        return ours


def take_uid() -> tuple[int, int]:
    """A user id that no other slot of this machine has (its processes are counted and killed by it), and the lock to close."""
    for uid in range(FIRST_UID, FIRST_UID + N_UIDS):
        lock = os.open(scratch() / f"uid-{uid}", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return uid, lock
    raise VerifierFailed(f"{N_UIDS} user ids are all in use by other boxes")
