"""One run of a program that nobody trusts.

The program sees /usr, its own folder (read-only) and a small /tmp. It gets what it may read on standard input, and nothing that
it must not know: what a right answer looks like stays on our side.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from magistral.errors import UserError, VerifierFailed
from magistral.verifiers.sandbox.cgroup import EMPTY_LIMIT_S, Cgroup
from magistral.verifiers.sandbox.host import Host, find_host, scratch, sweep
from magistral.verifiers.sandbox.limits import End, Limits, Ran, Tier
from magistral.verifiers.sandbox.start import Launcher, LauncherDied, Started, boxed, limited, memory_file, take_uid, work_folder
from magistral.verifiers.sandbox.watch import Seen, watch

_NO_MEMORY = (b"MemoryError", b"std::bad_alloc", b"out of memory")


class _Slot(NamedTuple):
    number: int
    """Its user id where there are no namespaces."""
    launcher: Launcher


class Box:
    """Runs programs, at most `n_slots` at once (None: as many as cores); threads that ask for more wait. A context manager.

    Raises UserError if `require_isolation` and this host offers less than the strongest tier, and where nothing but limits for
    each process would stand between a program and our own files, unless such a `host` is handed in."""

    def __init__(self, n_slots: int | None = None, *, require_isolation: bool = False, host: Host | None = None) -> None:
        self.host = find_host() if host is None else host
        if require_isolation and self.host.tier is not Tier.FULL:
            raise UserError(f"isolation {Tier.FULL!s} is required, and this host gives {self.host.tier!s}: {self.host.why}")
        if host is None and self.host.tier is Tier.RLIMITS:
            raise UserError(
                f"code cannot be kept from your files here: {self.host.why}. Install bubblewrap, or use a container as root"
            )
        sweep()
        self.n_slots = n_slots or len(os.sched_getaffinity(0))
        self._slots: queue.Queue[_Slot] = queue.Queue()
        self._turn = threading.Lock()
        self._open = ExitStack()
        for number in range(self.n_slots):
            if self.host.tier is Tier.UID:
                number, lock = take_uid()
                self._open.callback(os.close, lock)
            launcher = Launcher()
            self._open.callback(launcher.close)
            self._slots.put(_Slot(number, launcher))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._open.close()

    @contextmanager
    def folder(self, files: dict[str, bytes]) -> Iterator[Path]:
        """A folder of files for a program to see, for as long as it is open."""
        path = Path(tempfile.mkdtemp(prefix=f"box-{os.getpid()}-", dir=scratch()))
        try:
            path.chmod(0o755)
            for name, content in files.items():
                (path / name).write_bytes(content)
                (path / name).chmod(0o755)
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def run(
        self, command: Sequence[str], folder: Path, stdin: bytes = b"", *, limits: Limits | None = None, alone: bool = False
    ) -> Ran:
        """`{box}` in `command` is the folder as the program sees it. `alone`: while nothing else runs in this box.

        Raises VerifierFailed where the box, not the program, fails."""
        limits = limits or Limits()
        with self._taken(self.n_slots if alone else 1) as slot:
            try:
                return self._run(slot, command, folder, stdin, limits)
            except LauncherDied:
                return self._run(slot, command, folder, stdin, limits)

    @contextmanager
    def _taken(self, n: int) -> Iterator[_Slot]:
        with self._turn:  # whoever wants all slots gets them one by one, and nobody in between
            slots = [self._slots.get() for _ in range(n)]
        try:
            yield slots[0]
        finally:
            for slot in slots:
                self._slots.put(slot)

    def _run(self, slot: _Slot, command: Sequence[str], folder: Path, stdin: bytes, limits: Limits) -> Ran:
        host, uid = self.host, slot.number if self.host.tier is Tier.UID else None
        with ExitStack() as stack:
            group = host.cgroups.make(limits) if host.cgroups else None
            if group is not None:
                stack.callback(group.close)
            files = [stack.enter_context(memory_file(stdin))]
            if host.bwrap:
                seen_as, request = "/box", boxed(host, slot.number, folder, limits, group)
                files += [stack.enter_context(memory_file(host.seccomp))] if host.seccomp else []
            else:
                seen_as, request = str(folder), limited(host, uid, stack.enter_context(work_folder(uid)), limits)
            request["words"] += [word.replace("{box}", seen_as) for word in command]
            began = time.monotonic()
            started = stack.enter_context(slot.launcher.start(request, *files))
            seen = watch(started, limits, lambda: _end(started, group, uid))
            if host.bwrap and group is None:
                _wait_until_gone(seen)
            return self._record(seen, time.monotonic() - began, group)

    def _record(self, seen: Seen, wall_s: float, group: Cgroup | None) -> Ran:
        end, code = seen.end, _said(seen, "exit-code") if self.host.bwrap else seen.exit_code
        if code is None or (not self.host.bwrap and not seen.status):
            if end is End.EXITED and not (group and group.ran_out_of_memory()):
                said = seen.stderr.decode(errors="replace").strip()[-200:]
                raise VerifierFailed(f"the box ({self.host.tier!s}) failed: {said or f'exit code {seen.exit_code}'}")
            code = 137
        if group is not None:
            no_memory = group.ran_out_of_memory()
        else:  # nobody counts but the program itself
            no_memory = end is End.EXITED and bool(code) and any(word in seen.stderr for word in _NO_MEMORY)
        if no_memory:
            end = End.MEMORY
        return Ran(
            end=end, exit_code=128 - code if code < 0 else code, stdout=seen.stdout, stderr=seen.stderr, wall_s=wall_s,
            cpu_s=group.cpu_s() if group else None, peak_mb=group.peak_mb() if group else None, tier=self.host.tier,
        )  # fmt: skip


def _said(seen: Seen, name: str) -> int | None:
    """What bubblewrap says of the program: "exit-code", None where it never ran or was killed; "child-pid"."""
    lines = [json.loads(line) for line in seen.status.split(b"\n") if line.strip()]
    return next((int(line[name]) for line in lines if name in line), None)


def _wait_until_gone(seen: Seen) -> None:
    """A process namespace dies with its first process, but not at once. Raises VerifierFailed where it does not."""
    first, end = _said(seen, "child-pid"), time.monotonic() + EMPTY_LIMIT_S
    while first is not None and _lives(first):
        if time.monotonic() > end:
            raise VerifierFailed(f"a boxed program (process {first}) outlives being killed")
        time.sleep(0.001)


def _lives(pid: int) -> bool:
    """Dead and not yet fetched by its parent is not alive: all others of its namespace are gone by then."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (OSError, IndexError):
        return False


def _of_user(uid: int, but: int) -> bool:
    """Whether a process of this user is left, the dead that nobody has fetched among them: they count against the next run."""
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if status.parent.name != str(but) and f"\nUid:\t{uid}\t" in status.read_text():
                return True
    return False


def _end(started: Started, group: Cgroup | None, uid: int | None) -> None:
    """Nobody of the family is left after this."""
    if group is not None:
        group.kill()
    for kill in (os.killpg, os.kill):  # it may not have made its own session yet
        with contextlib.suppress(ProcessLookupError):
            kill(started.pid, signal.SIGKILL)
    if uid is not None:  # that user kills all that it may: its own processes, whatever session they are in
        end = time.monotonic() + EMPTY_LIMIT_S
        while _of_user(uid, but=started.pid):
            subprocess.run(
                ["/bin/sh", "-c", "kill -9 -1"], user=uid, group=uid, extra_groups=[], check=False, stderr=subprocess.DEVNULL
            )
            if time.monotonic() > end:
                raise VerifierFailed(f"processes of user {uid} outlive being killed")
