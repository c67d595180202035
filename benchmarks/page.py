"""The page in Chromium: seconds to the first paint, and how a trace of 40,000 tokens opens and scrolls.

    .venv/bin/python benchmarks/page.py [--loads 10]

The page comes from a server of its own on localhost, with an engine that says nothing; the trace is a conversation that it keeps.
The browser draws without a GPU. A frame is late from 50 ms on; "opened" is from the click until the trace is laid out. A minute.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from common import load_average, versions, write_results
from playwright.sync_api import Page, sync_playwright

from magistral.engines.scripted import ScriptedEngine
from magistral.serve.app import create_app
from magistral.serve.conversations import Conversations
from magistral.serve.guard import Gate
from magistral.serve.model import Served
from magistral.serve.service import Service
from magistral.serve.site import site_routes
from magistral.serve.store import open_store
from magistral.text.tokens import byte_tokenizer

CHROMIUM = next((path for path in ("/usr/lib/chromium/chromium", shutil.which("chromium") or "") if Path(path).is_file()), "")
N_CHARACTERS = 160_000
"""Of 40,000 tokens, at the four that English text has in one."""
LATE_MS = 50
STEP = (
    "Step {i}: \\(x_{{{i}}} = {i} \\times 20 = {n}\\), so we go on, since **nothing** is decided yet.\n\n"
    "- one case\n- another\n\n"
)
SCROLL = """async () => {
  const log = document.querySelector('#log'), frames = [];
  log.scrollTop = 0;
  let last = performance.now();
  while (log.scrollTop + log.clientHeight < log.scrollHeight - 2 && frames.length < 1000) {
    log.scrollTop += 300; // a fast wheel
    await new Promise(requestAnimationFrame);
    frames.push(performance.now() - last);
    last = performance.now();
  }
  return frames;
}"""
DRAWN = "() => document.querySelector('.thinking .md')?.textContent.includes('THE END')"
WATCH = """() => {
  window.frames_ms = [];
  let last = performance.now();
  const watch = (now) => {
    frames_ms.push(now - last);
    last = now;
    if (frames_ms.length < 10000) requestAnimationFrame(watch);
  };
  requestAnimationFrame(watch);
}"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    tokenizer = byte_tokenizer()
    engine = ScriptedEngine(lambda prompt, seed: "", tokenizer)
    with closing(open_store(folder)) as store, socket.create_server(("127.0.0.1", 0)) as listening:
        app = create_app(
            Service([Served(name="tiny", engine=engine, tokenizer=tokenizer, window=4096)]),
            extra_routes=site_routes(Gate(), Conversations(store)),
        )
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def keep_long_trace(url: str) -> None:
    steps = [STEP.format(i=i, n=20 * i) for i in range(N_CHARACTERS // 90)]
    thinking = "".join(steps)[:N_CHARACTERS] + "\n\nTHE END"
    question: dict[str, Any] = {"id": "q", "parent": None, "role": "user", "text": "long", "thinking": "", "about": {}}
    answer = {"id": "a", "parent": "q", "role": "assistant", "text": "done", "thinking": thinking, "about": {"thinking_s": 1}}
    body = {"title": "long", "nodes": [question, answer], "leaf": "a"}
    httpx.put(f"{url}/api/conversations/long0000", json=body).raise_for_status()


def first_paints(page: Page, url: str, n: int) -> list[float]:
    paints = []
    for _ in range(n):
        page.goto(url)
        page.wait_for_selector("#question:focus")
        paints.append(float(page.evaluate(PAINT)))
    return paints


def long_trace(page: Page) -> dict[str, Any]:
    start = time.perf_counter()
    page.evaluate(WATCH)
    page.click("#conversations .open")
    page.wait_for_selector(".thinking > summary")
    page.click(".thinking > summary")
    page.wait_for_selector(".thinking .katex", state="attached")
    readable = time.perf_counter() - start
    page.wait_for_function(DRAWN)
    whole = time.perf_counter() - start
    opening = [float(frame) for frame in page.evaluate("window.frames_ms")]
    frames = [float(frame) for frame in page.evaluate(SCROLL)]
    return {
        "readable_ms": round(1000 * readable),
        "whole_ms": round(1000 * whole),
        "longest_frame_ms_while_drawn": round(max(opening)),
        "frames": len(frames),
        "frame_ms_median": round(statistics.median(frames), 1),
        "frame_ms_99": round(sorted(frames)[int(0.99 * len(frames))], 1),
        "late": sum(frame > LATE_MS for frame in frames),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--loads", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as url, sync_playwright() as play:
        keep_long_trace(url)
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 850})
        paints = first_paints(page, url, arguments.loads)
        trace = long_trace(page)
        version = browser.version
        browser.close()
    write_results(
        "page",
        {
            "versions": {**versions("playwright", "uvicorn"), "chromium": version},
            "load_average": load_average(),
            "first_paint_ms": {"median": round(statistics.median(paints)), "worst": round(max(paints))},
            "trace_characters": N_CHARACTERS,
            "trace": trace,
        },
    )


if __name__ == "__main__":
    main()
