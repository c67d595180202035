"""The filter of system calls, run by a small interpreter of the program that the kernel would run."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from magistral.verifiers.sandbox import seccomp

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
X86, ARM = 0xC000003E, 0xC00000B7


def decide(program: bytes, *, nr: int, arch: int, argument: int = 0) -> int:
    data = {0: nr, 4: arch, 16: argument}
    steps = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        code, yes, no, k = steps[at]
        at += 1
        if code == 0x06:
            return int(k)
        if code == 0x20:
            accumulator = data[k]
        else:
            holds = {0x15: accumulator == k, 0x45: bool(accumulator & k), 0x35: accumulator >= k}[code]
            at += yes if holds else no


@pytest.mark.parametrize(
    ("machine", "arch", "nr", "argument", "expected"),
    [
        ("x86_64", X86, 0, 0, ALLOW),
        ("x86_64", X86, 101, 0, EPERM),
        ("x86_64", X86, 41, 2, EPERM),
        ("x86_64", X86, 53, 1, ALLOW),
        ("x86_64", X86, 435, 0, ENOSYS),
        ("x86_64", X86, 56, 0x10000000, EPERM),
        ("x86_64", X86, 56, 0x01200011, ALLOW),
        ("x86_64", X86, 0x40000000, 0, EPERM),
        ("x86_64", 0x40000003, 1, 0, KILL),
        ("aarch64", ARM, 117, 0, EPERM),
        ("aarch64", ARM, 63, 0, ALLOW),
        ("aarch64", ARM, 220, 0x20000, EPERM),
        ("aarch64", X86, 63, 0, KILL),
    ],
    ids=[
        *("read", "ptrace", "socket", "socketpair", "clone3 falls back", "a user namespace", "fork", "x32 calls", "32-bit calls"),
        *("ptrace on ARM", "read on ARM", "a mount namespace on ARM", "another machine"),
    ],
)
def test_what_the_filter_decides(machine: str, arch: int, nr: int, argument: int, expected: int) -> None:
    program = seccomp.program(machine)
    assert program is not None
    assert decide(program, nr=nr, arch=arch, argument=argument) == expected


def test_a_machine_without_table_has_no_filter() -> None:
    assert seccomp.program("riscv64") is None


def test_every_refused_call_is_refused_on_both_machines() -> None:
    for machine, arch, column in (("x86_64", X86, 1), ("aarch64", ARM, 2)):
        program = seccomp.program(machine)
        assert program is not None
        assert {decide(program, nr=int(row[column]), arch=arch) for row in seccomp._TABLE} == {EPERM}
    assert len(seccomp.REFUSED) == len(set(seccomp.REFUSED)) > 40


@pytest.mark.parametrize(
    ("header", "column"),
    [("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 1), ("/usr/include/asm-generic/unistd.h", 2)],
    ids=["x86_64", "aarch64, which has the generic table"],
)
def test_the_numbers_are_those_of_the_kernel_s_own_headers(header: str, column: int) -> None:
    if not Path(header).exists():
        pytest.skip(f"the kernel's headers are not here: {header}")
    told = dict(re.findall(r"#define\s+__NR(?:3264)?_(\w+)\s+(\d+)\s", Path(header).read_text()))
    known = [row for row in seccomp._TABLE if row[0] in told]
    assert [row[column] for row in known] == [told[row[0]] for row in known]
    assert len(known) >= len(seccomp._TABLE) - 3  # headers may be older than the newest calls
