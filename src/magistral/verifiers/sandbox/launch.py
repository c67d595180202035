"""What stands between us and a program where there is no bubblewrap: `python -I -S launch.py STATUS_FD LIMITS PROGRAM…`.

LIMITS is JSON: {"rlimits": {"AS": bytes, …}, "seccomp": hex or ""}. Sets the limits, gives up the right to gain rights, refuses
system calls, says so in one byte on STATUS_FD, and becomes the program. Stands alone: it imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys

_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("n_steps", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def main() -> None:
    status, wanted, command = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
    for name, value in wanted["rlimits"].items():
        kind = getattr(resource, f"RLIMIT_{name}")
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        sys.exit("no_new_privs is refused")
    steps = bytes.fromhex(wanted["seccomp"])
    if steps and libc.prctl(_SECCOMP, _FILTER, ctypes.byref(_Program(len(steps) // 8, steps)), 0, 0):
        sys.exit("seccomp is refused")
    os.write(status, b"!")
    os.close(status)
    os.execve(command[0], command, dict(os.environ))


if __name__ == "__main__":
    main()
