"""No program escapes, none is right that is not, and none makes the next one suffer."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.verifiers.sandbox.hostile import CALLS, CPP, PYTHON, Hostile

from magistral.verifiers.code import CodeVerifier
from magistral.verifiers.pool import Pool
from magistral.verifiers.sandbox.limits import Tier
from magistral.verifiers.tests import read_tests

pytestmark = pytest.mark.slow
LIMITS = {"wall_s": 1.0, "memory_mb": 128, "output_mb": 1.0, "n_processes": 24}
SQUARES = read_tests(
    json.dumps({"tests": [{"stdin": "7\n", "expected": "49"}, {"stdin": "31\n", "expected": "961"}], "limits": LIMITS})
)
CALLED = read_tests(json.dumps({"tests": [{"call": "square(31)", "expected": 961}], "limits": LIMITS}))


@pytest.fixture(scope="module")
def verifier() -> Iterator[CodeVerifier]:
    with Pool() as pool:
        if pool.box.host.tier is not Tier.FULL:
            pytest.skip(f"this host has no full isolation: {pool.box.host.why}")
        verifier = CodeVerifier(pool)
        verifier.factor()
        yield verifier


def outcome(verifier: CodeVerifier, hostile: Hostile, tests: object, language: str) -> None:
    start = time.monotonic()
    verdict = verifier.judge(language, hostile.source, tests, problem=hostile.name)  # type: ignore[arg-type]
    assert verdict.judge in hostile.allowed, verdict.reason
    assert "ESCAPED" not in verdict.reason
    assert time.monotonic() - start < 60
    control = verifier.judge("python", "print(int(input()) ** 2)", SQUARES)
    assert control.judge == "accepted", f"after {hostile.name}: {control.reason}"


@pytest.mark.parametrize("hostile", PYTHON, ids=lambda h: h.name)
def test_a_hostile_program_is_held(verifier: CodeVerifier, hostile: Hostile) -> None:
    outcome(verifier, hostile, SQUARES, "python")


@pytest.mark.parametrize("hostile", CALLS, ids=lambda h: h.name)
def test_a_hostile_function_is_held(verifier: CodeVerifier, hostile: Hostile) -> None:
    outcome(verifier, hostile, CALLED, "python")


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
@pytest.mark.parametrize("hostile", CPP, ids=lambda h: h.name)
def test_a_hostile_program_in_cpp_is_held(verifier: CodeVerifier, hostile: Hostile) -> None:
    outcome(verifier, hostile, SQUARES, "cpp")


def test_nothing_of_them_is_left(verifier: CodeVerifier) -> None:
    groups = verifier.pool.box.host.cgroups
    assert groups is not None
    assert [p.name for p in Path(groups.memory).iterdir() if p.is_dir()] == []


def test_they_are_many() -> None:
    assert len(PYTHON) + len(CPP) + len(CALLS) >= 80
