"""What the server costs on top of its engine, what others serve on the same model, Flash, idle streams, replicas.

    .venv/bin/python benchmarks/serve.py [--rounds 5] [--only PART] [--peers PYTHON]

SmolLM2-135M on the CPU, one torch thread each. The load comes from this process, the servers have their own; the engine alone
and the server around it take turns, and the median of their ratios counts. Others, where they are installed: `transformers serve`
(with its extra `serving`), the server module of llama-cpp-python (its extra `server`; one completion at a time), and
`llama-server` (on PATH). `--peers`: the Python of an environment of their own. Some 10 minutes. Where others use the machine,
ratios of one round and processor time a token say more than wall times; `load_average` tells.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from common import load_average, versions, write_results

N_TOKENS = 48  # of a reply to whoever is compared with others: transformers serve takes a minute for 32 of them
N_LONGER = 128  # of a reply to the server beside its engine: as in engine.py
CLIENTS = (1, 8, 32)
QUESTION = "Write a long story about a lighthouse keeper and the sea."
REPEATING = (
    "Repeat this text word for word, and nothing else:\n" + "The keeper lit the lamp at dusk and wrote the hour in his book. " * 6
)
N_REPEATED = 96
SEED = 0
N_IDLE = 500
N_FIRST = 20
OURS = "import sys; sys.argv[0] = 'magistral'; from magistral.cli.main import main; main()"


class Server:
    """A server in a process of its own, until it is ready."""

    def __init__(self, command: list[str], *, model: str, ready: str, port: int) -> None:
        self.model, self.url = model, f"http://127.0.0.1:{port}"
        log = Path(tempfile.gettempdir()) / f"magistral-benchmark-{port}.log"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_CACHE": tempfile.gettempdir()}  # transformers wants one
        with log.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=env)
        while True:
            try:
                if httpx.get(f"{self.url}{ready}").status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.2)

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_mb(self) -> float:
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ours(folder: str, *options: str) -> Server:
    port = free_port()
    arguments = ["serve", "smollm2", "--port", str(port), "--threads", "1", "--data", folder, *options]
    return Server([sys.executable, "-c", OURS, *arguments], model="smollm2", ready="/ready", port=port)


def transformers(folder: str, python: str) -> Server:
    """Reads folders, so the GGUF file is converted: the same weights in float32."""
    if not (Path(folder) / "hf").exists():
        subprocess.run([sys.executable, "-c", OURS, "convert", "smollm2", f"{folder}/hf"], check=True, capture_output=True)
    port = free_port()
    program = [python, "-m", "transformers.cli.transformers"]
    command = [*program, "serve", f"{folder}/hf", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    return Server(command, model=f"{folder}/hf", ready="/health", port=port)


def llama_cpp_python(_folder: str, python: str) -> Server:
    from magistral.models.find import model_path

    port = free_port()
    flags = [
        "--port",
        str(port),
        "--n_threads",
        "1",
        "--n_threads_batch",
        "1",
        "--n_ctx",
        "2048",
        "--interrupt_requests",
        "false",
    ]
    command = [python, "-m", "llama_cpp.server", "--model", str(model_path("smollm2")), "--model_alias", "smollm2", *flags]
    return Server(command, model="smollm2", ready="/v1/models", port=port)


def llama_server(_folder: str, _python: str) -> Server:
    from magistral.models.find import model_path

    port, n = free_port(), max(CLIENTS)
    flags = ["--port", str(port), "-t", "1", "-np", str(n), "-c", str(n * 512)]
    return Server(["llama-server", "-m", str(model_path("smollm2")), *flags], model="smollm2", ready="/health", port=port)


def has(python: str, *modules: str) -> bool:
    return subprocess.run([python, "-c", f"import {', '.join(modules)}"], check=False, capture_output=True).returncode == 0


async def one_client(client: httpx.AsyncClient, model: str, i: int, **changes: Any) -> tuple[float, float, int]:
    """Seconds to the first text and from there to the end, and tokens."""
    body = {
        "model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": N_TOKENS, "seed": SEED + i,
        "temperature": 1, "stream": True, "stream_options": {"include_usage": True}, **changes,
    }  # fmt: skip
    start, first, n = time.perf_counter(), 0.0, 0
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if not line.startswith("data: {"):
                continue
            data = json.loads(line[6:])
            if not first and data["choices"] and data["choices"][0]["delta"].get("content"):
                first = time.perf_counter()
            if data.get("usage"):
                n = data["usage"]["completion_tokens"]
    return first - start, time.perf_counter() - first, n


def client_of(server: Server) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, timeout=600, limits=httpx.Limits(max_connections=None))


async def load(server: Server, n_clients: int, **changes: Any) -> dict[str, float]:
    async with client_of(server) as client:
        await client.get("/v1/models")  # the client's own preparations are none of the server's time
        cpu, start = server.cpu_s, time.perf_counter()
        replies = await asyncio.gather(*[one_client(client, server.model, i, **changes) for i in range(n_clients)])
        seconds, n_tokens = time.perf_counter() - start, sum(n for *_, n in replies)
    return {"cpu_ms_per_token": 1000 * (server.cpu_s - cpu) / n_tokens, "tokens_per_s": n_tokens / seconds}


async def first_token_s(server: Server) -> tuple[float, float]:
    """Of one client's request; and of a request that the server has nothing to do for, which is what client and socket take."""
    async with client_of(server) as client:
        await client.get("/health")  # connects
        first = (await one_client(client, server.model, 0, max_tokens=2))[0]
        start = time.perf_counter()
        await client.get("/health")
        return first, time.perf_counter() - start


def engine_alone() -> None:
    """In a process of its own: the same prompts and seeds without a server. Reads how many rows and tokens, a line each time."""
    from magistral.cli.served import Means, load_served
    from magistral.engines.base import Request
    from magistral.serve.events import Ask, Turn

    served = load_served("smollm2", Means(n_slots=max(CLIENTS), threads=1))
    engine, prompt = served.engine, tuple(served.prompt(Ask(turns=(Turn(role="user", text=QUESTION),)))[0])
    for line in sys.stdin:
        n_rows, max_tokens = map(int, line.split())
        start, cpu, first, n = time.perf_counter(), time.process_time(), 0.0, 0
        for i in range(n_rows):
            engine.submit(Request(prompt=prompt, seeds=(SEED + i,), max_tokens=max_tokens, top_p=served.top_p, key=i))
        while not engine.idle:
            n += sum(len(w.tokens) for w in engine.step())
            first = first or time.perf_counter() - start
        cpu_ms, seconds = 1000 * (time.process_time() - cpu) / n, time.perf_counter() - start
        print(json.dumps({"cpu_ms_per_token": cpu_ms, "tokens_per_s": n / seconds, "first_token_s": first}), flush=True)


class Alone:
    """`engine_alone`, which holds its weights and waits between its turns."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--alone"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def write(self, n_rows: int, max_tokens: int = N_LONGER) -> dict[str, float]:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{n_rows} {max_tokens}\n")
        result: dict[str, float] = json.loads(self.process.stdout.readline())
        return result

    def __enter__(self) -> Alone:
        self.write(2)  # warms up
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def measure_server(folder: str, n_rounds: int) -> dict[str, Any]:
    """Medians over rounds. In each, engine and server follow one another within seconds, so that both meet the same machine."""
    rows: dict[str, Any] = {}
    with Alone() as alone, ours(folder, "--slots", str(max(CLIENTS))) as server:
        asyncio.run(load(server, 2))  # warms up
        for k in CLIENTS:
            rounds = [(alone.write(k), asyncio.run(load(server, k, max_tokens=N_LONGER))) for _ in range(n_rounds)]
            shares = [served["tokens_per_s"] / engine["tokens_per_s"] for engine, served in rounds]
            rows[str(k)] = {"server_share": round(statistics.median(shares), 3), "shares": [round(s, 3) for s in sorted(shares)]}
            for who, results in zip(("engine", "server"), zip(*rounds, strict=True), strict=True):
                for name in ("tokens_per_s", "cpu_ms_per_token"):
                    rows[str(k)][f"{who}_{name}"] = round(statistics.median(r[name] for r in results), 2)
        firsts = [(alone.write(1, 2)["first_token_s"], *asyncio.run(first_token_s(server))) for _ in range(N_FIRST)]
    names = ("engine", "server", "nothing")
    milliseconds = {name: round(1000 * statistics.median(t), 2) for name, t in zip(names, zip(*firsts, strict=True), strict=True)}
    return {"clients": rows, "first_token_ms": milliseconds}


def measure_others(folder: str, python: str) -> dict[str, Any]:
    """Beside ours in the same minutes, at 32 slots."""
    found: dict[str, Any] = {"ours": lambda folder, _: ours(folder, "--slots", str(max(CLIENTS)))}
    if has(python, "fastapi", "transformers"):
        found["transformers serve"] = transformers
    if has(python, "llama_cpp.server.app"):
        found["llama-cpp-python server"] = llama_cpp_python
    if shutil.which("llama-server"):
        found["llama-server"] = llama_server
    rows: dict[str, Any] = {}
    for name, start in found.items():
        with start(folder, python) as server:
            asyncio.run(load(server, 1))  # warms up
            rows[name] = {str(k): round(asyncio.run(load(server, k))["tokens_per_s"], 1) for k in CLIENTS}
        print(name, rows[name], flush=True)
    return rows


def measure_flash(folder: str) -> dict[str, float]:
    """Tokens a second of one user's answer on a text that repeats its prompt, the first token left out."""
    changes = {
        "messages": [{"role": "user", "content": REPEATING}],
        "max_tokens": N_REPEATED,
        "temperature": 0,
        "detect_loops": False,
    }
    said = {}
    for name, options, more in (("plain", "float32", {}), ("flash", "int8", {"flash": True})):
        with ours(folder, "--weights", options) as server:

            async def ask(server: Server = server, more: dict[str, Any] = more) -> float:
                async with client_of(server) as client:
                    rounds = [await one_client(client, server.model, 0, **changes, **more) for _ in range(3)]
                return max((n - 1) / seconds for _, seconds, n in rounds)

            said[f"{name}_tokens_per_s"] = round(asyncio.run(ask()), 1)
    return {**said, "ratio": round(said["flash_tokens_per_s"] / said["plain_tokens_per_s"], 2)}


def measure_replica(folder: str) -> dict[str, float]:
    """Milliseconds a token of one client, with the engine in the server's process and as one of two actors of Ray."""
    took = {}
    for name, options in (("inside", ()), ("replica", ("--replicas", "2", "--threads", "2"))):
        with ours(folder, *options) as server:
            asyncio.run(load(server, 1))
            took[f"{name}_ms"] = min(1000 / asyncio.run(load(server, 1))["tokens_per_s"] for _ in range(5))
    return {name: round(ms, 2) for name, ms in {**took, "added_ms": took["replica_ms"] - took["inside_ms"]}.items()}


async def waiting(client: httpx.AsyncClient) -> float:
    text = (await client.get("/metrics")).text
    return float(text.split('magistral_waiting{model="smollm2"} ')[1].split()[0])


async def idle_streams(server: Server) -> float:
    """Megabytes that N_IDLE streams cost which wait behind one that is written."""
    async with client_of(server) as client:

        async def wait() -> None:
            await one_client(client, server.model, 0, max_tokens=3000, detect_loops=False)

        first = asyncio.create_task(wait())
        while 'magistral_writing{model="smollm2"} 1.0' not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.2)
        before = server.rss_mb
        tasks = [asyncio.create_task(wait()) for _ in range(N_IDLE)]
        while await waiting(client) < N_IDLE:
            await asyncio.sleep(0.5)
        after = server.rss_mb
        for task in [first, *tasks]:
            task.cancel()
        await asyncio.gather(first, *tasks, return_exceptions=True)
    return after - before


def measure_idle(folder: str) -> dict[str, float]:
    with ours(folder, "--slots", "1", "--max-waiting", "600") as server:
        return {"n": N_IDLE, "mb": round(asyncio.run(idle_streams(server)), 1)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["server", "others", "flash", "idle", "replica"], help="only this; printed, not kept")
    parser.add_argument("--peers", metavar="PYTHON", default=sys.executable, help="of an environment that has the others")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    if arguments.alone:
        return engine_alone()
    with tempfile.TemporaryDirectory() as folder:
        measures: dict[str, Callable[[], dict[str, Any]]] = {
            "server": lambda: measure_server(folder, arguments.rounds),
            "others": lambda: measure_others(folder, arguments.peers),
            "flash": lambda: measure_flash(folder),
            "idle": lambda: measure_idle(folder),
            "replica": lambda: measure_replica(folder),
        }
        result: dict[str, Any] = {}
        for name, measure in measures.items():
            if arguments.only in (None, name):
                result[name] = measure()
                print(name, json.dumps(result[name], indent=1))
    if arguments.only:
        return
    about = {"versions": versions("torch", "starlette", "uvicorn", "uvloop", "transformers"), "load_average": load_average()}
    write_results("serve", {**about, "seed": SEED, "n_tokens": N_TOKENS, "n_longer": N_LONGER, **result})


if __name__ == "__main__":
    main()
