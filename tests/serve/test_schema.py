"""Requests made of our own OpenAPI file, right ones and wrong ones: none may break the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from magistral.serve.openapi import openapi
from tests.serve.fakes import Scripted, serving

schemathesis = pytest.importorskip("schemathesis", reason="needs the package schemathesis: scripts/install dev")
pytestmark = pytest.mark.slow
OPERATIONS = {f"{o.method} {o.path}": o for o in (f.ok() for f in schemathesis.openapi.from_dict(openapi()).get_all_operations())}
RIGHT, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(Scripted(lambda prompt: "ok")) as address:
        yield address


@pytest.mark.parametrize("name", OPERATIONS)
def test_no_request_made_of_the_schema_breaks_the_server(name: str, url: str) -> None:
    operation = OPERATIONS[name]

    def check(case: Any) -> None:
        response = case.call(base_url=url)
        assert response.status_code < 500, (case.as_curl_command(), response.text)

    few = settings(
        max_examples=20, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for mode in (RIGHT, WRONG) if operation.body else (RIGHT,):
        few(given(operation.as_strategy(generation_mode=mode))(check))()  # type: ignore[no-untyped-call]
