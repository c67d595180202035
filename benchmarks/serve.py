"""What the server costs on top of its engine: processor time a token, tokens a second, first token, memory of streams that wait.

    .venv/bin/python benchmarks/serve.py [--rounds 3]

The engine alone and the server around the same engine take turns, round by round, in processes of their own with one torch
thread each; the best round of each counts. Where others use the machine, only the processor time a token says something: wall
times then measure them too, as `load_average` tells. The load comes from this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from common import load_average, versions, write_results

N_TOKENS = 48
CLIENTS = (1, 8, 32)
QUESTION = "Write a long story about a lighthouse keeper and the sea."
SEED = 0
N_IDLE = 500


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`magistral serve` in a process of its own."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.folder = tempfile.TemporaryDirectory()
        command = "import sys; sys.argv[0] = 'magistral'; from magistral.cli.main import main; main()"
        arguments = ["serve", "smollm2", "--port", str(self.port), "--threads", "1", "--data", self.folder.name, *options]
        log = (Path(self.folder.name) / "log").open("w")
        self.process = subprocess.Popen([sys.executable, "-c", command, *arguments], stdout=log, stderr=log)
        self.url = f"http://127.0.0.1:{self.port}"
        while True:
            try:
                if httpx.get(f"{self.url}/ready").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, (Path(self.folder.name) / "log").read_text()
                time.sleep(0.2)

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mb(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()


async def one_client(client: httpx.AsyncClient, i: int) -> tuple[float, int]:
    """Seconds to the first text, and tokens."""
    body = {
        "messages": [{"role": "user", "content": QUESTION}], "max_tokens": N_TOKENS, "seed": SEED + i, "temperature": 1,
        "detect_loops": False, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    start, first, n = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            data = json.loads(line[6:])
            if not first and data["choices"] and data["choices"][0]["delta"].get("content"):
                first = time.perf_counter() - start
            if data.get("usage"):
                n = data["usage"]["completion_tokens"]
    return first, n


async def load(server: Server, n_clients: int) -> dict[str, float]:
    cpu = server.cpu_s
    async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=httpx.Limits(max_connections=None)) as client:
        start = time.perf_counter()
        replies = await asyncio.gather(*[one_client(client, i) for i in range(n_clients)])
        seconds = time.perf_counter() - start
    firsts = sorted(first for first, _ in replies)
    n_tokens = sum(n for _, n in replies)
    return {
        "cpu_ms_per_token": 1000 * (server.cpu_s - cpu) / n_tokens,
        "tokens_per_s": n_tokens / seconds,
        "first_token_s": firsts[len(firsts) // 2],
    }


def engine_alone(n_rows: int) -> dict[str, float]:
    """Run in a process of its own: the same prompts and seeds without a server."""
    import torch

    from magistral.engines.native.engine import NativeEngine, Request
    from magistral.models.load import load_model
    from magistral.text.template import prompt_tokens

    torch.set_num_threads(1)
    model, tokenizer = load_model("smollm2")
    engine = NativeEngine(model, tokenizer.eos, n_slots=max(CLIENTS), window=4096, weights="int8")
    prompt = tuple(prompt_tokens(tokenizer, "", [("user", QUESTION)]))
    results: list[dict[str, float]] = []
    for _ in range(2):  # the first warms up
        start, cpu, first, n = time.perf_counter(), time.process_time(), 0.0, 0
        for i in range(n_rows):
            engine.submit(Request(prompt=prompt, seeds=(SEED + i,), max_tokens=N_TOKENS, top_p=0.95, key=i))
        while not engine.idle:
            n += sum(len(w.tokens) for w in engine.step())
            first = first or time.perf_counter() - start
        cpu_ms = 1000 * (time.process_time() - cpu) / n
        results.append({"cpu_ms_per_token": cpu_ms, "tokens_per_s": n / (time.perf_counter() - start), "first_token_s": first})
    return results[-1]


def alone_in_a_process(n_rows: int) -> dict[str, float]:
    out = subprocess.run([sys.executable, __file__, "--alone", str(n_rows)], check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(out)
    return result


async def waiting(client: httpx.AsyncClient) -> float:
    text = (await client.get("/metrics")).text
    return float(text.split('magistral_waiting{model="smollm2"} ')[1].split()[0])


async def idle_streams(server: Server) -> float:
    """Megabytes that N_IDLE streams cost which wait behind one that is written."""
    body = {"messages": [{"role": "user", "content": QUESTION}], "stream": True, "max_tokens": 3000, "detect_loops": False}
    async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=httpx.Limits(max_connections=None)) as client:

        async def wait() -> None:
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                async for _ in response.aiter_bytes():
                    pass

        first = asyncio.create_task(wait())
        await asyncio.sleep(5)
        before = server.rss_mb
        tasks = [asyncio.create_task(wait()) for _ in range(N_IDLE)]
        while await waiting(client) < N_IDLE:
            await asyncio.sleep(0.5)
        after = server.rss_mb
        for task in [first, *tasks]:
            task.cancel()
        await asyncio.gather(first, *tasks, return_exceptions=True)
    return after - before


def measure_idle() -> float:
    server = Server("--slots", "1", "--max-waiting", "600")
    try:
        return asyncio.run(idle_streams(server))
    finally:
        server.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--alone", type=int)
    parser.add_argument("--idle", action="store_true", help="only what waiting streams cost; printed")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if arguments.alone:
        print(json.dumps(engine_alone(arguments.alone)))
        return
    if arguments.idle:
        print("idle streams, MB:", round(measure_idle(), 1))
        return
    server = Server("--slots", str(max(CLIENTS)), "--max-waiting", "600")
    rows: dict[str, Any] = {}
    try:
        asyncio.run(load(server, 2))  # warms up
        for k in CLIENTS:
            rounds = [(alone_in_a_process(k), asyncio.run(load(server, k))) for _ in range(arguments.rounds)]
            alone = max(a["tokens_per_s"] for a, _ in rounds)
            served = max(s["tokens_per_s"] for _, s in rounds)
            firsts = [min(r[i]["first_token_s"] for r in rounds) for i in (0, 1)]
            cpus = [min(r[i]["cpu_ms_per_token"] for r in rounds) for i in (0, 1)]
            rows[str(k)] = {
                "engine_cpu_ms_per_token": round(cpus[0], 2),
                "server_cpu_ms_per_token": round(cpus[1], 2),
                "server_cpu_share": round(cpus[1] / cpus[0], 3),
                "engine_tokens_per_s": round(alone, 1),
                "server_tokens_per_s": round(served, 1),
                "server_share": round(served / alone, 3),
                "engine_first_token_ms": round(1000 * firsts[0], 1),
                "server_first_token_ms": round(1000 * firsts[1], 1),
                "rounds": rounds,
            }
            print(k, {name: value for name, value in rows[str(k)].items() if name != "rounds"})
    finally:
        server.close()
    n_mb = measure_idle()
    print("idle streams, MB:", round(n_mb, 1))
    result = {
        "versions": versions("torch", "starlette", "uvicorn"),
        "load_average": load_average(),
        "seed": SEED,
        "n_tokens": N_TOKENS,
        "clients": rows,
        "idle": {"n": N_IDLE, "mb": round(n_mb, 1)},
    }
    write_results("serve", result)


if __name__ == "__main__":
    main()
