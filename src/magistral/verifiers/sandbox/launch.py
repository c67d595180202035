"""The process that starts boxed programs, one at a time, for one slot: `python -I -S launch.py CHANNEL_FD`.

It is small, so that a fork of it is quick however large our own process is; between the fork and the program nothing else is
started. A request is JSON, with the files that the program gets as 0, 1, 2, …:
    {"words": […], "place": folder, "environment": {…}, "rlimits": {"STACK": bytes, …}, "uid": number or null,
     "entrances": [paths of control groups], "seccomp": hex, or null for a program that refuses system calls itself}
The answer is the program's process id. That stays its own until we are told to go on; then the answer is its exit code, negative
for a signal. When the channel closes, all ends. Stands alone: it imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import sys
from typing import Any

MAX_REQUEST, MAX_FILES = 1 << 16, 8
STATUS = 3
"""The file on which bubblewrap says what became of the program; without it we say that it is about to start."""
_ABOVE = 64
_DEFAULTS = (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python takes for itself: a program gets them back."""
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("n_steps", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def become(request: dict[str, Any], files: list[int]) -> None:
    """In the fork: join the control groups, take the limits, give up rights, and be the program."""
    for entrance in request["entrances"]:  # before anything of the program: no moment outside of them
        with open(entrance, "w") as file:
            file.write("0")
    for place, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, _ABOVE) for fd in files]):
        os.dup2(fd, place)
    os.closerange(len(files), _ABOVE + len(files))
    os.setsid()
    os.chdir(request["place"])
    for name, value in request["rlimits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
    if request["uid"] is not None:
        os.setgroups([])
        os.setresgid(*[request["uid"]] * 3)
        os.setresuid(*[request["uid"]] * 3)
    for number in _DEFAULTS:
        signal.signal(number, signal.SIG_DFL)
    if request["seccomp"] is not None:
        refuse(bytes.fromhex(request["seccomp"]))
        os.write(STATUS, b"!")
        os.closerange(STATUS, _ABOVE)
    os.execve(request["words"][0], request["words"], request["environment"])


def refuse(steps: bytes) -> None:
    """Give up the right to gain rights, and the system calls that `steps` refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise OSError("no_new_privs is refused")
    if steps and libc.prctl(_SECCOMP, _FILTER, ctypes.byref(_Program(len(steps) // 8, steps)), 0, 0):
        raise OSError("seccomp is refused")


def start(request: dict[str, Any], files: list[int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        become(request, files)
    except BaseException as e:  # noqa: BLE001 - whatever it is, the fork must not go on as we do
        os.write(2, f"{type(e).__name__}: {e}\n".encode())
    os._exit(126)


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    channel.set_inheritable(False)
    while True:
        message, files, _, _ = socket.recv_fds(channel, MAX_REQUEST, MAX_FILES)
        if not message:
            return
        pid = start(json.loads(message), files)
        for fd in files:
            os.close(fd)
        channel.send(str(pid).encode())
        if not channel.recv(1):
            os.kill(pid, signal.SIGKILL)
            return
        channel.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())


if __name__ == "__main__":
    main()
