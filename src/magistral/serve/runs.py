"""Training runs for the page: read from their folders, whether they go on or not."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from magistral.log import RunFolder
from magistral.serve.dialects.openai_errors import openai_error
from magistral.serve.errors import Refused
from magistral.serve.guard import Gate

MAX_CHARACTERS = 20_000
"""Of one completion's text that the page is sent."""


class Runs:
    """Those in one folder, and in its folders; a name is never more than the path of one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def all(self) -> list[dict[str, Any]]:
        """Newest first."""
        found = [(name, run, run.info()) for name, run in self._runs().items()]
        found.sort(key=lambda row: -float(row[2].get("started", 0)))
        return [{"name": name, "stage": info.get("stage", ""), "state": run.state} for name, run, info in found]

    def get(self, name: str) -> dict[str, Any]:
        run = self._run(name)
        steps = sorted(int(f.stem[5:]) for f in (run.path / "traces").glob("step-*.parquet") if f.stem[5:].isdigit())
        metrics = [{"step": m["step"], "values": _finite(m["values"])} for m in run.metrics()]
        return {"name": name, "state": run.state, "metrics": metrics, "steps": steps}

    def groups(self, name: str, step: int) -> list[dict[str, Any]]:
        """The completions of one step, by group."""
        import pyarrow.parquet as pq

        file = self._run(name).path / "traces" / f"step-{step:06d}.parquet"
        if not file.exists():
            raise Refused("not_found", f"run {name} kept no completions of step {step}", field="step")
        rows = pq.read_table(file).to_pylist()
        return [_group(list(group)) for _, group in groupby(rows, key=lambda row: row["group"])]

    def _run(self, name: str) -> RunFolder:
        runs = self._runs()
        if name not in runs:
            raise Refused("not_found", "no such run", field="name")
        return runs[name]

    def _runs(self) -> dict[str, RunFolder]:
        files = [*self.folder.glob("*/run.json"), *self.folder.glob("*/*/run.json")]
        return {str(file.parent.relative_to(self.folder)): RunFolder(file.parent) for file in files}


def _finite(values: dict[str, Any]) -> dict[str, float]:
    return {k: v for k, v in values.items() if isinstance(v, int | float) and math.isfinite(v)}


def _group(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    rows = list(rows)
    completions = [
        {
            "reward": row["reward_total"],
            "reasons": list(row["reward_reasons"] or ()),
            "outcome": row["outcome"],
            "tokens": len(row["tokens"] or ()),
            "text": row["text"][:MAX_CHARACTERS],
        }
        for row in rows
    ]
    return {"question": rows[0]["question"], "reference": rows[0]["reference"], "completions": completions}


def runs_routes(gate: Gate, folder: Path) -> list[BaseRoute]:
    runs = Runs(folder)

    async def reply(request: Request, read: Any) -> Response:
        try:
            await gate.admit(request)
            return JSONResponse(await asyncio.to_thread(read))
        except Refused as e:
            status, body = openai_error(e)
        except (OSError, json.JSONDecodeError, KeyError) as e:
            status, body = openai_error(Refused("broken", f"a file of the run cannot be read: {type(e).__name__}"))
        return JSONResponse(body, status)

    async def listed(request: Request) -> Response:
        return await reply(request, lambda: {"data": runs.all(), "folder": str(folder.absolute())})

    async def one(request: Request) -> Response:
        return await reply(request, lambda: runs.get(request.path_params["name"]))

    async def groups(request: Request) -> Response:
        step = request.query_params.get("step", "")
        number = int(step) if step.isdigit() and len(step) < 9 else -1
        return await reply(request, lambda: {"data": runs.groups(request.path_params["name"], number)})

    return [
        Route("/api/runs", listed),
        Route("/api/runs/{name:path}/groups", groups),
        Route("/api/runs/{name:path}", one),
    ]
