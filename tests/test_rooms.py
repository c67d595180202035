"""What the rooms may know of each other, where import-linter cannot see it: at run time."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIGHT = [
    "flow", "recipe", "registry", "log", "errors", "text", "verifiers", "rewards", "curation", "show", "engines", "weights",
    "serve.app",
]  # fmt: skip


@pytest.mark.parametrize("room", LIGHT)
def test_a_light_room_does_not_import_torch(room: str) -> None:
    code = f"import sys, magistral.{room}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_converting_a_model_does_not_import_torch() -> None:
    code = "import sys, magistral.models.convert, magistral.models.find; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
