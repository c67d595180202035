"""The command as a person runs it: a real model, a real socket, SIGTERM."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from tests.serve.test_app import until

from magistral.cli import serve
from magistral.errors import UserError
from magistral.serve.store import hold

if TYPE_CHECKING:
    from magistral.models.transformer import Transformer

COMMAND = "import sys; sys.argv[0] = 'magistral'; from magistral.cli.main import main; main()"


@pytest.fixture
def model(tiny: Callable[..., Transformer], tmp_path: Path) -> Path:
    from magistral.models.load import save_model
    from magistral.text.tokens import byte_tokenizer

    tokenizer = byte_tokenizer()
    made = tiny(n_words=tokenizer.n_words)
    folder = tmp_path / "small"
    folder.mkdir()
    save_model(folder, made, tokenizer, made.named_parameters())
    return folder


@contextmanager
def server(model: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    said = model.parent / "said.txt"
    command = [
        sys.executable,
        "-c",
        COMMAND,
        "serve",
        str(model),
        "--port",
        "0",
        "--threads",
        "1",
        "--data",
        str(model.parent / "data"),
        *options,
    ]
    with said.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    try:
        until(lambda: process.poll() is not None or " at http" in said.read_text())
        assert process.poll() is None, said.read_text()
        yield process, said.read_text().split(" at ")[1].split("/ ")[0]
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_two_replicas_follow_a_schema_and_end_at_sigterm(model: Path) -> None:
    pytest.importorskip("ray", reason="needs the extra `ray`")
    pytest.importorskip("llguidance", reason="needs the extra `grammar`")
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = {
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 60,
        "response_format": form,
        "reasoning_effort": "none",
    }
    with server(model, "--replicas", "2") as (process, url):
        said = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).json()["choices"][0]["message"]["content"]
        assert set(json.loads(said)) == {"a"}
        process.send_signal(signal.SIGTERM)
        assert abs(process.wait(60)) == signal.SIGTERM, "as uvicorn ends: by the signal that it was sent"


def send_endless_header(url: str, n_mb: int) -> None:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ")
        for _ in range(n_mb):
            connection.sendall(b"a" * 1_000_000)


def test_a_model_s_folder_is_served_and_a_stream_ends_whole_after_sigterm(model: Path) -> None:
    with server(model) as (process, url):
        until(lambda: httpx.get(f"{url}/ready").json()["ready"])
        assert "--window" not in (model.parent / "said.txt").read_text(), "it has the model's own"
        with pytest.raises(OSError):  # noqa: PT011 - closed in the midst: by a reset or as a broken pipe
            send_endless_header(url, n_mb=50)
        assert httpx.get(f"{url}/", follow_redirects=True).text.startswith("<!doctype html>")
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "max_tokens": 100, "seed": 1}
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            datas = [line for line in lines if line.startswith("data: ")]
        assert datas[-1] == "data: [DONE]"
        assert json.loads(datas[-2][6:])["choices"][0]["finish_reason"] in ("stop", "length")
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)


def test_a_folder_in_use_and_a_port_in_use_are_said_before_a_model_is_read(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UserError, match="another --port"):
        serve.command(["nowhere"], port=taken.getsockname()[1], data=tmp_path)
    with hold(tmp_path), pytest.raises(UserError, match="another server uses"):
        serve.command(["nowhere"], port=0, data=tmp_path)


def test_a_connection_sends_what_is_small_at_once() -> None:
    with (
        serve._listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as taken,
    ):
        assert taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_open_to_others_needs_a_key(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no key"):
        serve.command([str(model)], host="0.0.0.0", port=0, data=tmp_path / "data")


@pytest.mark.parametrize(
    ("host", "loopback"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("example.com", False)]
)
def test_which_hosts_are_this_machine_alone(host: str, loopback: bool) -> None:
    assert serve.is_loopback(host) is loopback
