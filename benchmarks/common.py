"""What every benchmark says of itself beside its numbers, and where it is kept."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
WIDE = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")


def machine() -> dict[str, Any]:
    """Processor, what it computes widely, cores and memory, as the kernel names them."""
    cpu = _field("/proc/cpuinfo", "model name") or platform.machine()
    memory_kb = int((_field("/proc/meminfo", "MemTotal") or "0").split()[0])
    flags = (_field("/proc/cpuinfo", "flags") or "").split()
    wide = [name for name in WIDE if name in flags]
    memory_gib = round(memory_kb / 2**20, 1)
    return {
        "cpu": cpu, "instructions": wide, "cores": os.cpu_count(), "memory_gib": memory_gib, "system": platform.platform()
    }  # fmt: skip


def load_average() -> float:
    """Of the last minute: over the number of threads in use, others shared the cores."""
    return round(os.getloadavg()[0], 2)


def versions(*packages: str) -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def child_result(script: str, *arguments: str) -> dict[str, Any]:
    """What the script tells in its line "RESULT {...}", run in a process of its own; where that fails, so do we."""
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not lines:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(lines[-1].removeprefix("RESULT "))
    return result


def write_results(name: str, result: dict[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_text(json.dumps({"machine": machine(), **result}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"written: {file}")
    return file


def _field(file: str, name: str) -> str:
    """The first line's value of that name; empty where the system has no such file."""
    if not Path(file).exists():
        return ""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")
