"""The audit log: any change shows; what it kept can be written again; what is forgotten leaves the chain whole."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from magistral.serve.app import create_app
from magistral.serve.audit import entries, forget_text, load_key, verify
from magistral.serve.audit_page import page
from magistral.serve.model import Served
from magistral.serve.replay import replay
from magistral.serve.service import Service
from magistral.serve.store import open_store
from magistral.text.tokens import byte_tokenizer
from tests.serve.fakes import Scripted, running, serving
from tests.serve.test_accounts import accounts
from tests.serve.test_app import BODY

if TYPE_CHECKING:
    from magistral.engines.native.engine import NativeEngine
    from magistral.models.transformer import Transformer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def written(store: sqlite3.Connection, tmp_path: Path) -> sqlite3.Connection:
    """Three entries."""
    with serving(Scripted(), gate=accounts(store, tmp_path, keys_needed=False)) as url:
        for seed in range(3):
            httpx.post(f"{url}/v1/chat/completions", json={**BODY, "seed": seed, "thinking_budget": 9})
    return store


def test_a_log_as_it_was_written_verifies(written: sqlite3.Connection, tmp_path: Path) -> None:
    checked = verify(written, load_key(tmp_path).public_key())
    assert (checked.n, checked.fault, len(checked.head)) == (3, "", 64)


CHANGES = {
    "a word of an entry": ("UPDATE audit SET entry = replace(entry, 'tiny', 'huge') WHERE seq = 2", 1, "entry 2 was changed"),
    "an entry taken out": ("DELETE FROM audit WHERE seq = 2", 1, "entry 2 is missing"),
    "one in another's place": (
        "UPDATE audit SET (entry, hash, signature) = (SELECT entry, hash, signature FROM audit WHERE seq = 1) WHERE seq = 2",
        1,
        "entry 2 does not follow",
    ),
    "a signature": ("UPDATE audit SET signature = zeroblob(64) WHERE seq = 3", 2, "entry 3 is not signed"),
    "a token": ("UPDATE audit_text SET tokens = replace(tokens, '[', '[5,') WHERE seq = 1", 0, "tokens kept of entry 1"),
}


@pytest.mark.parametrize(("change", "n", "fault"), CHANGES.values(), ids=CHANGES)
def test_every_change_shows(written: sqlite3.Connection, tmp_path: Path, change: str, n: int, fault: str) -> None:
    written.execute(change)
    checked = verify(written, load_key(tmp_path).public_key())
    assert checked.n == n
    assert fault in checked.fault


def test_another_key_does_not_verify(written: sqlite3.Connection) -> None:
    assert "not signed by this key" in verify(written, Ed25519PrivateKey.generate().public_key()).fault


def test_what_is_forgotten_is_gone_and_the_chain_stays_whole(written: sqlite3.Connection, tmp_path: Path) -> None:
    assert forget_text(written, before=time.time() + 1) == 3
    assert [e["tokens"] for e in entries(written)] == [None] * 3
    assert verify(written, load_key(tmp_path).public_key()).fault == ""


def test_a_thinking_is_signed_and_known_again(store: sqlite3.Connection, tmp_path: Path) -> None:
    with serving(Scripted(), gate=accounts(store, tmp_path, keys_needed=False)) as url:
        body = {**BODY, "max_tokens": 400}
        thinking, answer = httpx.post(f"{url}/v1/messages", json=body).json()["content"]
        for block, notes in ((thinking, []), ({**thinking, "thinking": "2 + 2 = 5"}, ["unknown_thinking"])):
            turns = [*BODY["messages"], {"role": "assistant", "content": [block, answer]}, *BODY["messages"]]
            reply = httpx.post(f"{url}/v1/messages", json={**body, "messages": turns}).json()
            assert [n["kind"] for n in reply.get("magistral", {}).get("notes", [])] == notes


def test_a_replay_finds_the_first_token_that_differs(
    tiny: Callable[..., Transformer], store: sqlite3.Connection, tmp_path: Path
) -> None:
    from magistral.engines.native.engine import NativeEngine

    tokenizer = byte_tokenizer()
    model = tiny(n_words=tokenizer.n_words, window=512)

    def new_engine() -> NativeEngine:
        return NativeEngine(model, tokenizer.eos, n_slots=2, window=512)

    served = Served(name="tiny", engine=new_engine(), tokenizer=tokenizer, window=512, n_slots=2)
    with running(create_app(Service([served]), gate=accounts(store, tmp_path, keys_needed=False))) as url:
        body = {
            "messages": [{"role": "user", "content": "?"}], "max_tokens": 60, "n": 2, "seed": 3, "reasoning_effort": "none",
            "tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required",
        }  # fmt: skip
        assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 200
    (said,) = entries(store)
    entry, tokens = json.loads(said["entry"]), said["tokens"]
    assert [len(c["forced"]) for c in entry["completions"]] == [1, 1], "how a demanded call begins"
    assert [(r.n, r.differs_at) for r in replay(new_engine(), entry, tokens)] == [(len(c), None) for c in tokens["completions"]]
    tokens["completions"][1][0] ^= 1
    assert [r.differs_at for r in replay(new_engine(), entry, tokens)] == [None, 0]


def test_the_parts_around_a_closing_phrase_are_replayed_and_the_phrase_is_not(written: sqlite3.Connection) -> None:
    first = next(iter(entries(written)))
    entry, tokens = json.loads(first["entry"]), first["tokens"]
    (one,) = replay(Scripted(), entry, tokens)
    (said,) = entry["completions"]
    assert len(said["parts"]) == 2
    assert (one.differs_at, one.n) == (None, sum(part["n"] for part in said["parts"]))
    assert one.n < said["n"]


def test_the_html_export_loads_nothing_and_escapes_what_was_said(written: sqlite3.Connection) -> None:
    rows = [{**e, "fields": json.loads(e["entry"])} for e in entries(written)]
    text = page(rows, head="ab", fault="", decode=byte_tokenizer().decode)
    assert "&lt;think&gt;" in text
    assert "<think>" not in text
    assert "default-src 'none'" in text
    assert "src=" not in text.replace("default-src", "").replace("style-src", "")
