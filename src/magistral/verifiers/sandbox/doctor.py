"""Programs that try to break out, and what became of each: what a tier promises is what a probe has seen."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from magistral.verifiers.sandbox.box import Box
from magistral.verifiers.sandbox.host import python
from magistral.verifiers.sandbox.limits import End, Limits, Ran

LIMITS = Limits(wall_s=4.0, memory_mb=128, n_processes=24, output_mb=1.0, tmp_mb=32)


class Finding(NamedTuple):
    name: str
    holds: bool
    what: str
    """What the probe saw, for a person."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A program that is harmless where nothing holds it: it counts up to a bound, prints what it could do, and ends."""

    name: str
    source: str
    holds: Callable[[Ran], bool]


def _printed(ran: Ran) -> str:
    return ran.stdout.decode(errors="replace").strip()


def _at_most(n: int) -> Callable[[Ran], bool]:
    return lambda ran: ran.end is not End.EXITED or (_printed(ran).isdecimal() and int(_printed(ran)) <= n)


def _refused(ran: Ran) -> bool:
    return ran.end is End.EXITED and _printed(ran) == "refused"


def _ended(end: End) -> Callable[[Ran], bool]:
    return lambda ran: ran.end is end


_TRY = """
try:
    {}
except (OSError, PermissionError):
    print('refused')
else:
    print('could')
"""
_PTRACE = """
import ctypes, os, time
libc = ctypes.CDLL(None)
child = os.fork()
if child == 0:
    time.sleep(1)
    os._exit(0)
print('refused' if libc.ptrace(16, child, 0, 0) else 'could')
os.kill(child, 9)
"""
_FORKS = """
import os, time
n = 0
try:
    while n < 100:
        if os.fork() == 0:
            time.sleep(1)
            os._exit(0)
        n += 1
except OSError:
    pass
print(n)
"""
_CHILDREN = """
import os, time
for _ in range(6):
    if os.fork() == 0:
        x = b'1' * (50 << 20)
        time.sleep(0.5)
        os._exit(0)
print(50 * sum(os.wait()[1] == 0 for _ in range(6)))
"""
_FILES = """
n = 0
try:
    for i in range(20):
        open(f'{i}', 'wb').write(b'1' * (10 << 20))
        n += 10
except OSError:
    pass
print(n)
"""
_SURVIVOR = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(5)
    os._exit(0)
print('started')
"""
PROBES = (
    Probe("fork bomb", _FORKS, _at_most(24)),
    Probe("memory of one process", "x = b'1' * (256 << 20)\nprint(256)\n", _ended(End.MEMORY)),
    Probe("memory in many children", _CHILDREN, _at_most(128)),
    Probe("files in memory (tmpfs)", _FILES, _at_most(32)),
    Probe("network", "import socket\n" + _TRY.format("socket.create_connection(('127.0.0.1', 9), 1)"), _refused),
    Probe("reading other users' secrets", _TRY.format("open('/etc/shadow').read()"), _refused),
    Probe("reading the host's files", _TRY.format("import os; os.listdir('/home'); os.listdir('/var')"), _refused),
    Probe("writing to the system", _TRY.format("open('/usr/lib/os-release', 'a')"), _refused),
    Probe(
        "files outside /tmp",
        _TRY.format("import os; open('/magistral-probe', 'w').close(); os.remove('/magistral-probe')"),
        _refused,
    ),
    Probe(
        "files in /dev",
        _TRY.format("import os; open('/dev/magistral-probe', 'w').close(); os.remove('/dev/magistral-probe')"),
        _refused,
    ),
    Probe("changing the program's own folder", "import os\n" + _TRY.format("open(__file__, 'a')"), _refused),
    Probe(
        "seeing other processes (/proc)",
        "import os\nprint(sum(name.isdecimal() for name in os.listdir('/proc')) if os.path.isdir('/proc') else 0)\n",
        _at_most(3),
    ),
    Probe(
        "stopping its parent",
        "import os\n" + _TRY.format("os.kill(os.getppid(), 0) if os.getppid() > 1 else os.kill(2**21, 0)"),
        _refused,
    ),
    Probe("looking into a process (ptrace)", _PTRACE, _refused),
    Probe("becoming another user", "import os\n" + _TRY.format("os.setuid(0) if os.getuid() else os.setuid(1)"), _refused),
    Probe(
        "a new user namespace",
        "import ctypes\nprint('refused' if ctypes.CDLL(None).unshare(0x10000000) else 'could')\n",
        _refused,
    ),
    Probe("sleeping past the limit", "import time\ntime.sleep(60)\n", _ended(End.TIMED_OUT)),
    Probe("a flood of output", "while True:\n    print('x' * 1000)\n", _ended(End.OUTPUT)),
)


def examine(box: Box) -> Iterator[Finding]:
    """Runs each probe; yields what it saw as it comes."""
    for probe in PROBES:
        with box.folder({"main.py": probe.source.encode()}) as folder:
            ran = box.run([python(), "-I", "-S", "{box}/main.py"], folder, limits=LIMITS)
        yield Finding(probe.name, probe.holds(ran), _told(ran))
    yield _survivors(box)


def _survivors(box: Box) -> Finding:
    """A grandchild in a session of its own, whose parent has ended."""
    with box.folder({"main.py": _SURVIVOR.encode()}) as folder:
        start = time.monotonic()
        ran = box.run([python(), "-I", "-S", "{box}/main.py"], folder, limits=LIMITS)
        seconds = time.monotonic() - start
        alive = _alive(str(folder))
    return Finding("survivors after the end", not alive and ran.end is End.EXITED, f"{alive} left after {seconds:.2f} s")


def _alive(folder: str) -> int:
    """Processes whose command line names the program's folder, or whose root is a box of ours."""
    n = 0
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_bytes().split(b"\0")
        except OSError:
            continue
        n += any(w in (f"{folder}/main.py".encode(), b"/box/main.py") for w in words)
    return n


def _told(ran: Ran) -> str:
    said = _printed(ran).splitlines()
    text = f"{ran.end!s}" if ran.end is not End.EXITED else (said[-1][:40] if said else f"exit code {ran.exit_code}")
    return text if ran.peak_mb is None else f"{text} (peak {ran.peak_mb:.0f} MB)"
