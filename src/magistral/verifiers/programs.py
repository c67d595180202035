"""Languages that an answer may be written in: how a program is made ready, and the command that runs it in the box."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from magistral.errors import VerifierFailed
from magistral.verifiers.sandbox.box import Box
from magistral.verifiers.sandbox.host import python, scratch
from magistral.verifiers.sandbox.limits import End, Limits, Ran
from magistral.verifiers.tests import Call, CodeTests

INSIDE = Path(__file__).parent / "inside"
ALIASES = {
    "python": "python",
    "py": "python",
    "python3": "python",
    "cpp": "cpp",
    "c++": "cpp",
    "cc": "cpp",
    "cxx": "cpp",
    "c++20": "cpp",
}
COMPILE = Limits(wall_s=10.0, memory_mb=1536, n_processes=32, output_mb=64.0, tmp_mb=512)
"""10 s: Magistral, arXiv 2506.10910, section 2.2.2. Memory chosen: a precompiled header and an honest program need 0.4 GB."""
FLAGS = ("-std=c++20", "-O2", "-pipe", "-w")
_PCH_LIMIT_S = 300.0
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Program:
    folder: Path
    command: tuple[str, ...]
    language: str

    def asks(self, nonce: str, index: int, call: str | Call, setup: str) -> bytes:
        """What goes in on standard input for a call."""
        if self.language == "cpp":
            return f"{nonce} {index}\n".encode()
        asked = call if isinstance(call, str) else call.model_dump()
        return json.dumps({"nonce": nonce, "call": asked, "setup": setup}).encode() + b"\n"


class CompileError(Exception):
    """The answer does not compile; `ran` is the compiler's run."""

    def __init__(self, reason: str, ran: Ran) -> None:
        super().__init__(reason)
        self.ran = ran


@contextmanager
def ready(box: Box, language: str, source: str, tests: CodeTests, factor: float) -> Iterator[Program]:
    """A program as it is to be run, compiled if it must be; gone when the block ends. `factor` scales the compiler's time.

    Raises CompileError for what the answer is to blame for, VerifierFailed for the rest."""
    text = source.encode(errors="replace")
    if language == "python":
        driver = "call.py" if tests.tests[0].call is not None else "run.py"
        with box.folder({"main.py": text, driver: (INSIDE / driver).read_bytes()}) as folder:
            yield Program(folder, (python(), "-s", "-S", f"{{box}}/{driver}"), language)
        return
    binary = _compiled(box, text, tests, factor)
    with box.folder({"main": binary}) as folder:
        yield Program(folder, ("{box}/main",), language)


def _compiled(box: Box, source: bytes, tests: CodeTests, factor: float) -> bytes:
    compiler, header = _compiler(), _precompiled()
    files = {"answer.cpp": source, "main.cpp": _main(tests), "call.hpp": (INSIDE / "call.hpp").read_bytes()}
    limits = Limits(
        wall_s=COMPILE.wall_s * factor, memory_mb=COMPILE.memory_mb, n_processes=COMPILE.n_processes,
        output_mb=COMPILE.output_mb, tmp_mb=COMPILE.tmp_mb,
    )  # fmt: skip
    with box.folder(files) as folder:
        os.link(header, folder / "stdc++.h.gch")
        (folder / "stdc++.h").write_text("#include <bits/stdc++.h>\n")
        words = [compiler, *FLAGS, "-include", "{box}/stdc++.h", "-o", "a.out", "{box}/main.cpp"]
        command = ["/bin/sh", "-c", 'TMPDIR=. "$@" >&2 && exec cat a.out', "sh", *words]
        ran = box.run(command, folder, limits=limits)
        if ran.end is End.TIMED_OUT and (ran.cpu_s is None or ran.cpu_s < 0.9 * limits.wall_s):  # the machine was busy
            ran = box.run(command, folder, limits=limits, alone=True)
    if ran.end is End.EXITED and ran.exit_code == 0 and ran.stdout:
        return ran.stdout
    if ran.end is End.EXITED:
        said = ran.stderr.decode(errors="replace").splitlines()
        faults = [line for line in said if "error" in line] or said
        raise CompileError((faults[0] if faults else f"exit code {ran.exit_code}").replace(str(folder), "/box")[:200], ran)
    why = {End.TIMED_OUT: f"compiling took over {limits.wall_s:.3g} s", End.MEMORY: f"compiling took over {limits.memory_mb} MB"}
    raise CompileError(why.get(ran.end, "the compiler wrote too much"), ran)


def _main(tests: CodeTests) -> bytes:
    """The answer, and after it our own main with a case for each call; the answer's own main is out of the way."""
    if tests.tests[0].call is None:
        return b'#include "answer.cpp"\n'
    cases = "".join(
        f"    case {i}: magistral_box::tell(nonce, [&] {{ return {_cpp_call(test.call)}; }}); break;\n"
        for i, test in enumerate(tests.tests)
        if test.call is not None
    )
    return (
        f'#include "call.hpp"\n#define main magistral_unused_main\n#include "answer.cpp"\n#undef main\n{tests.setup}\n'
        f"int main() {{\n  auto [nonce, index] = magistral_box::asked();\n  switch (index) {{\n{cases}  }}\n}}\n"
    ).encode()


def _cpp_call(call: str | Call) -> str:
    if isinstance(call, str):
        return call
    return f"{call.function}({', '.join(_cpp(value) for value in (*call.args, *call.kwargs.values()))})"


def _cpp(value: Any) -> str:
    """A value of JSON as C++ spells it, for a parameter whose type the answer's function says."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and abs(value) >= 1 << 31:
        return f"{value}LL"
    if isinstance(value, str):
        text = value.encode(errors="replace")
        return f'std::string("{"".join(map(_cpp_character, text))}", {len(text)})'
    if isinstance(value, list):
        return "{" + ", ".join(map(_cpp, value)) + "}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{{{_cpp(k)}, {_cpp(v)}}}" for k, v in value.items()) + "}"
    return "{}" if value is None else repr(value)


def _cpp_character(byte: int) -> str:
    return chr(byte) if (chr(byte).isascii() and chr(byte).isalnum()) or byte == 32 else f"\\{byte:03o}"


def _compiler() -> str:
    path = shutil.which("g++", path="/usr/bin:/bin")
    if path is None:
        raise VerifierFailed("g++ is not installed, so C++ cannot be judged (apt install g++, or your system's like)")
    return path


def _precompiled() -> str:
    """Path of the precompiled <bits/stdc++.h>, made once a machine and set of flags: some 6 s and 120 MB."""
    name = hashlib.sha256(f"{version('cpp')} {FLAGS}".encode()).hexdigest()[:16]
    header, source = scratch() / f"stdc++-{name}.gch", scratch() / "stdc++.h"
    with _lock:
        if not header.exists():
            partial = header.with_suffix(f".{os.getpid()}")
            source.write_text("#include <bits/stdc++.h>\n")
            made = subprocess.run(
                [_compiler(), *FLAGS, "-x", "c++-header", str(source), "-o", str(partial)],
                capture_output=True, text=True, timeout=_PCH_LIMIT_S, check=False,
            )  # fmt: skip
            if made.returncode:
                raise VerifierFailed(f"g++ cannot precompile <bits/stdc++.h>: {made.stderr.strip()[-200:]}")
            partial.chmod(0o644)
            partial.replace(header)
    return str(header)


@cache
def version(language: str) -> str:
    """As "python 3.11.2" or "g++ 12.2.0"."""
    words: Sequence[str] = [python(), "--version"] if language == "python" else [_compiler(), "-dumpfullversion"]
    said = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False).stdout.split()
    return f"{'python' if language == 'python' else 'g++'} {said[-1] if said else 'unknown'}"
