"""An OpenAI-style endpoint on this machine that misbehaves as told: it fails, stalls, rate-limits, and lies about usage."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Say = Callable[[str, int], tuple[str, str]]
"""A question and a seed to thinking and summary."""

STALL_S = 0.6
"""For which an endpoint says nothing."""


class Endpoint(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, say: Say, *, faults: tuple[str, ...] = (), usage: tuple[int, int] | None = (20, 30), pace_s: float = 0.0
    ) -> None:
        """`faults` come one after another, a request each, over and over: "", "500", "429", "cut", "stall"."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.say, self.faults, self.usage, self.pace_s = say, faults, usage, pace_s
        self.lock = threading.Lock()
        self.n_requests = 0
        self.answered: Counter[tuple[str, int]] = Counter()
        """By question and seed: whole answers given."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["content-length"]))
        if not sent:  # whoever asked has been killed
            return
        body = json.loads(sent)
        with self.server.lock:
            fault = self.server.faults[self.server.n_requests % len(self.server.faults)] if self.server.faults else ""
            self.server.n_requests += 1
        if fault in ("500", "429"):
            self.send_response(int(fault))
            self.send_header("retry-after", "0")
            self.send_header("content-length", "0")
            self.end_headers()
            return
        if fault == "stall":
            time.sleep(STALL_S)
            return
        time.sleep(self.server.pace_s)
        self._stream(body, cut=fault == "cut")

    def _stream(self, body: dict[str, Any], *, cut: bool) -> None:
        question, seed = body["messages"][-1]["content"], body["seed"]
        thinking, summary = self.server.say(question, seed)
        end: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        if self.server.usage:
            end["usage"] = {"prompt_tokens": self.server.usage[0], "completion_tokens": self.server.usage[1]}
        events = [{"choices": [{"index": 0, "delta": {"reasoning_content": thinking}, "finish_reason": None}]}]
        if not cut:
            events += [{"choices": [{"index": 0, "delta": {"content": summary}, "finish_reason": None}]}, end]
        data = b"".join(f"data: {json.dumps(e)}\n\n".encode() for e in events)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        try:
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            return
        if not cut:
            with self.server.lock:
                self.server.answered[question, seed] += 1


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[Endpoint]:
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield endpoint
    finally:
        endpoint.shutdown()
        thread.join()
        endpoint.server_close()
