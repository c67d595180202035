"""The API's own description says what is there."""

from __future__ import annotations

import json
import re

from starlette.routing import Route

from magistral.serve.app import create_app
from magistral.serve.openapi import openapi
from magistral.serve.service import Service
from tests.serve.fakes import Scripted, served


def test_it_describes_every_address_and_no_other() -> None:
    app = create_app(Service([served(Scripted())]))
    routes = {r.path for r in app.routes if isinstance(r, Route)} - {"/openapi.json", "/v1/models/{name:path}"}
    assert set(openapi()["paths"]) == routes


def test_every_reference_leads_somewhere() -> None:
    said = openapi()
    named = {f"#/components/schemas/{name}" for name in said["components"]["schemas"]}
    assert set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(said))) <= named
    assert "$defs" not in json.dumps(said)


def test_our_own_fields_are_explained() -> None:
    fields = openapi()["components"]["schemas"]["openai.ChatFields"]["properties"]
    ours = ("thinking_budget", "answer_reserve", "detect_loops", "flash", "vote", "trace_checks", "reattach")
    assert all(fields[name].get("description") for name in ours)
