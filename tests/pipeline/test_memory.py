from __future__ import annotations

import subprocess
import sys

import pytest

from magistral.pipeline.memory import peak_mb

HOLD = "x = bytearray(b'1') * (300 * 2**20); print(flush=True); input()"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a process's children")
def test_what_a_started_process_holds_counts_where_it_is_asked_for() -> None:
    alone = peak_mb(children=False)
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert peak_mb(children=True) >= alone + 300
        assert peak_mb(children=False) < alone + 300
        child.communicate("\n")
