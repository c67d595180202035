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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from magistral.engines.vllm_weights import transfer_config
from magistral.errors import GeneratorLost, UserError

START_S = 900.0
"""Until it answers (chosen: a large model compiles its kernels for minutes)."""
END_S = 30.0
_PARENT_DEATH = 1  # PR_SET_PDEATHSIG, prctl(2)


class VllmProcess:
    """`program`: the vllm command of its environment; `config`: a Hugging Face config.json; `flags`: further ones of `vllm serve`.

    Raises UserError where it cannot be started, GeneratorLost with its last words where it ends before it answers."""

    def __init__(
        self, program: str, config: Mapping[str, Any], *, window: int, n_slots: int, flags: Sequence[str] = ()
    ) -> None:
        found = shutil.which(program)
        if found is None:
            raise UserError(
                f"no program {program!r}: name the vllm command of its environment in engine.program, or servers in engine.urls"
            )
        self._folder = Path(tempfile.mkdtemp(prefix="magistral-vllm-"))
        (self._folder / "config.json").write_text(json.dumps(dict(config)), encoding="utf-8")
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            found, "serve", str(self._folder), "--host", "127.0.0.1", "--port", str(port), "--load-format", "dummy",
            "--skip-tokenizer-init", "--enable-scale-out", "--max-model-len", str(window), "--max-num-seqs", str(n_slots),
            *required_flags(), *flags,
        ]  # fmt: skip
        environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, preexec_fn=_ends_with_us()
            )
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def log(self) -> Path:
        return self._folder / "log"

    def close(self) -> None:
        """End it, and forget what it wrote."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < end:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health", timeout=5).is_success:
                    return
            time.sleep(0.5)
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:]
        why = f"ended with {self._process.poll()}" if self._process.poll() is not None else f"did not answer for {START_S:g} s"
        raise GeneratorLost(f"vllm serve {why}; its last words: {' | '.join(said)[-1000:]}")


def required_flags() -> list[str]:
    """Without these a server's log-probabilities are not those at the temperature drawn at, or it takes no weights of ours."""
    return ["--logprobs-mode", "processed_logprobs", "--weight-transfer-config", transfer_config()]


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _ends_with_us() -> Callable[[], object] | None:
    """Called in the child before it becomes vLLM: a generator that is killed must not leave a server on its GPU."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return None
    return partial(ctypes.CDLL(None).prctl, _PARENT_DEATH, signal.SIGTERM, 0, 0, 0)
