"""How a program is started in each tier: the words of the command, and what is handed over with it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from magistral.errors import VerifierFailed
from magistral.verifiers.sandbox import launch
from magistral.verifiers.sandbox.cgroup import Cgroup
from magistral.verifiers.sandbox.host import BOXED_UID, FIRST_UID, N_UIDS, NAMESPACES, Host, drop_rights, links, python, scratch
from magistral.verifiers.sandbox.limits import Limits, Tier

_MB = 1 << 20
STACK_MB = 256
"""chosen: deep recursion is honest, and stack that is touched counts as memory."""
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
"""All that a program is told. The hash seed is fixed, so that a whole group is judged alike."""
_ENTER = (
    'for f in $1; do echo $$ >"$f" || exit 1; done; '
    'ulimit -c 0; ulimit -s "$2"; ulimit -n 256; ulimit -f "$3"; shift 3; exec "$@"'
)
"""A shell joins the control groups and becomes bubblewrap: no moment outside of them."""
_BY_PROCESS = 'ulimit -v "$1"; ulimit -u "$2" 2>/dev/null || ulimit -p "$2"; shift 2; exec "$@"'
"""In the box, where there are no control groups: address space of each process, and how many in the user namespace."""


def boxed(host: Host, slot: int, folder: Path, limits: Limits, group: Cgroup | None, fds: tuple[int, int]) -> list[str]:
    """Under bubblewrap. `fds`: where it is to say what became of the program, and where to read the refused system calls."""
    status, refused = fds
    words = ["/bin/sh", "-c", _ENTER, "sh", " ".join(group.entrances) if group else ""]
    words += [str(min(limits.memory_mb, STACK_MB) * 1024), str(limits.tmp_mb * 2048)]  # kilobytes, blocks of 512 bytes
    words += drop_rights(host.setpriv, BOXED_UID + slot % 100)
    words += [host.bwrap, *NAMESPACES, "--json-status-fd", str(status)]
    words += ["--seccomp", str(refused)] if host.seccomp else []
    words += ["--ro-bind", "/usr", "/usr", *links(), "--ro-bind", str(folder), "/box"]
    words += ["--size", str(limits.tmp_mb * _MB), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    # the root and /dev are file systems in memory, too, and would take as much as the host has
    words += ["--size", str(limits.tmp_mb * _MB), "--tmpfs", "/dev/shm", "--remount-ro", "/dev", "--remount-ro", "/"]
    words += [word for pair in ENVIRONMENT.items() for word in ("--setenv", *pair)]
    if group is None:
        words += ["/bin/sh", "-c", _BY_PROCESS, "sh", str(_reserved(limits) // 1024), str(limits.n_processes)]
    return words


def limited(host: Host, limits: Limits, status: int) -> list[str]:
    """Without bubblewrap: limits for each process, by launch.py."""
    rlimits = {
        "AS": _reserved(limits), "CORE": 0, "FSIZE": limits.tmp_mb * _MB, "NOFILE": 256, "STACK": 64 * _MB,
        "CPU": int(limits.wall_s) + 2,
    }  # fmt: skip
    if host.tier is Tier.UID:  # as our own user it would count every process that we have
        rlimits["NPROC"] = limits.n_processes
    wanted = json.dumps({"rlimits": rlimits, "seccomp": host.seccomp.hex()})
    return [python(), "-I", "-S", _launcher(), str(status), wanted]


def _reserved(limits: Limits) -> int:
    """Bytes of address space: what may be used, and what an interpreter reserves without using it."""
    return (limits.memory_mb + 64) * _MB


def _launcher() -> str:
    """A copy that another user may read: the package may lie in somebody's home."""
    content = Path(launch.__file__).read_bytes()
    copy = scratch() / f"launch-{hashlib.sha256(content).hexdigest()[:16]}.py"
    if not copy.exists():
        partial = copy.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        partial.chmod(0o644)
        partial.replace(copy)
    return str(copy)


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
    path = tempfile.mkdtemp(prefix="work-", dir=scratch())
    if uid is not None:
        os.chown(path, uid, uid)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def start(words: Sequence[str], stdin: int, passed: tuple[int, ...], place: str, uid: int | None) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=passed, cwd=place,
            env=ENVIRONMENT, start_new_session=True, user=uid, group=uid, extra_groups=None if uid is None else [],
        )  # fmt: skip
    except OSError as e:
        raise VerifierFailed(f"a boxed program cannot be started: {e}") from e


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
