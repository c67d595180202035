"""The system calls that a boxed program is refused, as a classic BPF program: bytes, the same each time, no library.

Refused: looking into other processes, mounts and namespaces, sockets of any kind, the kernel's larger doors (bpf, io_uring,
userfaultfd, keys, modules, performance events). The numbers are Linux's syscall tables for x86_64 and for aarch64.
"""

from __future__ import annotations

import errno
import platform
import struct

_CALLS = """
ptrace 101 117 | process_vm_readv 310 270 | process_vm_writev 311 271 | kcmp 312 272 | pidfd_getfd 438 438
mount 165 40 | umount2 166 39 | pivot_root 155 41 | chroot 161 51 | unshare 272 97 | setns 308 268 | open_tree 428 428
move_mount 429 429 | fsopen 430 430 | fsconfig 431 431 | fsmount 432 432 | fspick 433 433 | mount_setattr 442 442
open_by_handle_at 304 265 | name_to_handle_at 303 264 | quotactl 179 60 | quotactl_fd 443 443 | swapon 167 224 | swapoff 168 225
keyctl 250 219 | add_key 248 217 | request_key 249 218 | bpf 321 280 | perf_event_open 298 241 | userfaultfd 323 282
io_uring_setup 425 425 | io_uring_enter 426 426 | io_uring_register 427 427 | kexec_load 246 104 | kexec_file_load 320 294
init_module 175 105 | finit_module 313 273 | delete_module 176 106 | reboot 169 142 | acct 163 89 | syslog 103 116
settimeofday 164 170 | clock_settime 227 112 | adjtimex 159 171 | clock_adjtime 305 266 | sethostname 170 161
setdomainname 171 162 | personality 135 92 | move_pages 279 239 | mbind 237 235 | fanotify_init 300 262 | memfd_secret 447 447
process_madvise 440 440 | socket 41 198
"""
_TABLE = [row.split() for line in _CALLS.strip().splitlines() for row in line.split("|")]
REFUSED = tuple(row[0] for row in _TABLE)

_ARCHITECTURES = {"x86_64": (0xC000003E, 1, 56), "aarch64": (0xC00000B7, 2, 220)}
"""Machine: its audit number, its column in the table, its number of `clone`."""
_CLONE3 = 435
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET."""

_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_ANY, _JUMP_IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
_X32 = 0x40000000


def _step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, k)


def program(machine: str | None = None) -> bytes | None:
    """The filter for this machine (or the one named, as `platform.machine()` says it); None where we have no table for it."""
    machine = platform.machine() if machine is None else machine
    if machine not in _ARCHITECTURES:
        return None
    audit, column, clone = _ARCHITECTURES[machine]
    steps = [_step(_LOAD, _ARCH), _step(_JUMP_IF_EQUAL, audit, 1), _step(_RETURN, _KILL), _step(_LOAD, _NR)]
    if machine == "x86_64":  # the same calls under other numbers
        steps += [_step(_JUMP_IF_AT_LEAST, _X32, 0, 1), _step(_RETURN, _ERRNO | errno.EPERM)]
    for row in _TABLE:
        steps += [_step(_JUMP_IF_EQUAL, int(row[column]), 0, 1), _step(_RETURN, _ERRNO | errno.EPERM)]
    # the C library falls back to clone, whose flags a filter can read
    steps += [_step(_JUMP_IF_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _ERRNO | errno.ENOSYS)]
    steps += [_step(_JUMP_IF_EQUAL, clone, 0, 3), _step(_LOAD, _FIRST_ARGUMENT)]
    steps += [_step(_JUMP_IF_ANY, _NEW_NAMESPACES, 0, 1), _step(_RETURN, _ERRNO | errno.EPERM), _step(_RETURN, _ALLOW)]
    return b"".join(steps)
