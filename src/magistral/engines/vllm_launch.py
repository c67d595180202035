"""A vLLM server that a run starts for itself, and that ends with it.

It begins with a model of the right sizes and no weights in it: those come as any new weights do. So nothing is stored twice.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import httpx

from magistral.engines.vllm_weights import transfer_config
from magistral.errors import GeneratorLost, UserError

START_S = 900.0
"""Until it answers (chosen: a large model compiles its kernels for minutes)."""
END_S = 30.0
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG, prctl(2)


@contextmanager
def vllm_process(
    program: str, config: Mapping[str, Any], *, window: int, n_slots: int, flags: Sequence[str] = ()
) -> Iterator[str]:
    """The address of a new server. `program`: the vllm command of its environment; `config`: a Hugging Face config.json;
    `flags`: further ones of `vllm serve`.

    Raises UserError where it cannot be started, GeneratorLost with its last words where it ends before it answers."""
    found = shutil.which(program)
    if found is None:
        raise UserError(
            f"no program {program!r}: name the vllm command of its environment in engine.program, or servers in engine.urls"
        )
    with tempfile.TemporaryDirectory(prefix="magistral-vllm-") as folder, (Path(folder) / "log").open("w+b") as log:
        (Path(folder) / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
        port = _free_port()
        command = [
            found, "serve", folder, "--host", "127.0.0.1", "--port", str(port), "--load-format", "dummy",
            "--skip-tokenizer-init", "--max-model-len", str(window), "--max-num-seqs", str(n_slots), *required_flags(), *flags,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(), preexec_fn=_ends_with_us()
        )
        try:
            _wait(process, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], url: str, log: BinaryIO) -> None:
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        time.sleep(0.5)
    log.seek(0)
    said = " | ".join(log.read().decode(errors="replace").strip().splitlines()[-5:])
    why = f"did not answer for {START_S:g} s" if process.poll() is None else f"ended with {process.poll()}"
    raise GeneratorLost(f"vllm serve {why}; its last words: {said[-1000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def required_flags() -> list[str]:
    """Without these a server does not answer in tokens, tells log-probabilities at another temperature than it drew at, or takes
    no weights of ours."""
    return ["--enable-scale-out", "--logprobs-mode", "processed_logprobs", "--weight-transfer-config", transfer_config()]


def environment() -> dict[str, str]:
    """Of a server: with the routes that pause and take weights, and without reports to anybody."""
    return {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _ends_with_us() -> Callable[[], object] | None:
    """Called in the child before it becomes vLLM: a generator that is killed must not leave a server on its GPU."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return None
    return partial(ctypes.CDLL(None).prctl, _PARENT_DEATH, signal.SIGTERM, 0, 0, 0)
