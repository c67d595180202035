"""Keys, limits, what was used: over HTTP, and after a kill."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from magistral.errors import UserError
from magistral.serve.accounts import Accounts, Limits, add_key, digest, revoke_key, today
from magistral.serve.audit import Audit, entries, load_key, verify
from magistral.serve.events import Usage
from magistral.serve.prices import cost, price_of
from magistral.serve.store import open_store
from tests.serve.fakes import ANSWER, Scripted, serving
from tests.serve.test_app import BODY, until
from tests.serve.test_scheduler import going_on

N_TOKENS = len("17 * 23?\n") + len(ANSWER.encode()) + 1
DOLLARS = cost(Usage(prompt=9, answer=N_TOKENS - 9), price_of("magistral-small", today()))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def accounts(store: sqlite3.Connection, folder: Path, *, keys_needed: bool = True) -> Accounts:
    return Accounts(store, Audit(store, load_key(folder), keep_text=True), keys_needed=keys_needed)


@contextmanager
def kept(store: sqlite3.Connection, folder: Path, engine: Scripted | None = None, **more: Any) -> Iterator[httpx.Client]:
    with serving(engine or Scripted(), gate=accounts(store, folder, **more)) as url, httpx.Client(base_url=url) as client:
        yield client


def ask(client: httpx.Client, key: str = "", **more: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json={**BODY, **more}, headers={"authorization": f"Bearer {key}"} if key else {})


def test_a_key_lets_in_by_either_header_until_it_is_revoked(store: sqlite3.Connection, tmp_path: Path) -> None:
    key = add_key(store, "ann", Limits())
    with kept(store, tmp_path) as client:
        assert ask(client, key).status_code == 200
        assert client.get("/v1/models", headers={"x-api-key": key}).status_code == 200
        assert [ask(client, k).status_code for k in ("", "mk-wrong", "ann")] == [401] * 3
        assert client.get("/v1/models").status_code == 401
        assert [client.get(p).status_code for p in ("/health", "/ready")] == [200] * 2
        revoke_key(store, "ann")
        assert ask(client, key).status_code == 401


def test_a_key_itself_is_nowhere_in_the_file(store: sqlite3.Connection, tmp_path: Path) -> None:
    key = add_key(store, "ann", Limits())
    store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = (tmp_path / "server.db").read_bytes()
    assert key.encode() not in data
    assert digest(key) in data
    assert (tmp_path / "server.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("limits", "n_good"),
    [
        (Limits(requests_per_minute=2), 2),
        (Limits(tokens_per_day=2 * N_TOKENS), 2),
        (Limits(tokens_per_day=N_TOKENS + 9), 1),
        (Limits(dollars_per_day=2 * DOLLARS + 1e-9), 2),
        (Limits(dollars_per_day=1e-9), 0),
        (Limits(), 3),
    ],
    ids=["a minute's requests", "a day's tokens", "only another prompt", "a day's dollars", "no prompt", "none"],
)
def test_a_limit_is_429_with_the_time_to_wait(store: sqlite3.Connection, tmp_path: Path, limits: Limits, n_good: int) -> None:
    key = add_key(store, "ann", limits)
    with kept(store, tmp_path) as client:
        replies = [ask(client, key, answer_reserve=0) for _ in range(3)]
        assert [r.status_code for r in replies] == [200] * n_good + [429] * (3 - n_good)
        assert all(int(r.headers["retry-after"]) >= 1 for r in replies[n_good:])


def test_a_reply_ends_where_the_day_s_tokens_do(store: sqlite3.Connection, tmp_path: Path) -> None:
    key = add_key(store, "ann", Limits(tokens_per_day=9 + 20))
    with kept(store, tmp_path) as client:
        refused = ask(client, key, max_tokens=21)
        assert refused.status_code == 429
        assert "no more than 20 tokens are left" in refused.text
        usage = ask(client, key).json()["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (9, 20)
        assert ask(client, key, max_tokens=1).status_code == 429


def test_requests_side_by_side_do_not_pass_the_limit_together(store: sqlite3.Connection, tmp_path: Path) -> None:
    key = add_key(store, "ann", Limits(tokens_per_day=600))
    engine = Scripted(going_on)
    engine.held_at = 5
    with kept(store, tmp_path, engine) as client:
        body, headers = {**BODY, "stream": True, "max_tokens": 500}, {"x-api-key": key}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
            until(lambda: engine.n_steps == 5)
            refused = ask(client, key, max_tokens=83)
            assert refused.status_code == 429, "9 + 500 and 9 more are promised: 82 are left"
            assert "no more than 82 tokens are left" in refused.text
            name = response.headers["x-magistral-request"]
            assert client.delete(f"/v1/requests/{name}", headers=headers).status_code == 200
            engine.go.set()
        until(lambda: store.execute("SELECT state FROM requests").fetchone() == ("cancelled",))
        assert ask(client, key, max_tokens=83).status_code == 200, "what was not written is free again"


def test_what_was_used_is_reported_to_its_owner_alone_with_what_it_would_have_cost(
    store: sqlite3.Connection, tmp_path: Path
) -> None:
    ann, bob = add_key(store, "ann", Limits()), add_key(store, "bob", Limits())
    with kept(store, tmp_path) as client:
        ask(client, ann)
        ask(client, ann)
        (line,) = client.get("/v1/usage", headers={"x-api-key": ann}).json()["data"]
        assert client.get("/v1/usage", headers={"x-api-key": bob}).json()["data"] == []
    assert (line["requests"], line["tokens"]["prompt"], line["tokens"]["aborted"]) == (2, 2 * 9, 0)
    assert sum(line["tokens"].values()) == 2 * N_TOKENS
    usage = Usage(prompt=18, answer=2 * N_TOKENS - 18)
    assert line["would_have_cost_usd"]["magistral-medium"] == pytest.approx((18 * 2 + usage.completion * 5) / 1e6, abs=1e-6)


def test_a_price_is_the_one_of_its_day() -> None:
    assert cost(Usage(prompt=10**6, thinking=10**6, answer=10**6), price_of("magistral-small", "2025-07-01")) == 0.5 + 3.0
    assert price_of("magistral-small", "2001-01-01").since == "2025-06-10"


def test_another_s_request_cannot_be_steered(store: sqlite3.Connection, tmp_path: Path) -> None:
    ann, bob = add_key(store, "ann", Limits()), add_key(store, "bob", Limits())
    engine = Scripted(going_on)
    engine.held_at = 20
    with kept(store, tmp_path, engine) as client:
        with client.stream("POST", "/v1/chat/completions", json={**BODY, "stream": True}, headers={"x-api-key": ann}) as response:
            path = f"/v1/requests/{response.headers['x-magistral-request']}"
            assert client.delete(path, headers={"x-api-key": bob}).status_code == 404
            assert client.delete(path, headers={"x-api-key": ann}).status_code == 200
            engine.go.set()
        until(lambda: store.execute("SELECT state FROM requests").fetchone() == ("cancelled",))
    (aborted, thinking, answer) = store.execute("SELECT aborted, thinking, answer FROM requests").fetchone()
    assert aborted == thinking + answer


def test_without_keys_a_machine_s_own_clients_may_send_any(store: sqlite3.Connection, tmp_path: Path) -> None:
    with kept(store, tmp_path, keys_needed=False) as client:
        assert [ask(client, k).status_code for k in ("", "EMPTY")] == [200] * 2


def test_a_name_is_used_once_and_a_name_of_nobody_cannot_be_revoked(store: sqlite3.Connection) -> None:
    add_key(store, "ann", Limits())
    with pytest.raises(UserError, match="used once"):
        add_key(store, "ann", Limits())
    with pytest.raises(UserError, match="no key named"):
        revoke_key(store, "bob")


def test_a_file_of_a_newer_server_is_left_alone(store: sqlite3.Connection, tmp_path: Path) -> None:
    store.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="newer version"):
        open_store(tmp_path)


def test_when_accounts_cannot_be_kept_nothing_is_served(store: sqlite3.Connection, tmp_path: Path) -> None:
    with kept(store, tmp_path, keys_needed=False) as client:
        store.execute("DROP TABLE audit")
        assert ask(client).status_code == 200
        until(lambda: ask(client).status_code == 503)


SERVER = """
import sys
from pathlib import Path
import uvicorn
from magistral.serve import accounts as accounting
from magistral.serve.app import create_app
from magistral.serve.service import Service
from magistral.serve.store import open_store
from tests.serve.fakes import Scripted, served
from tests.serve.test_accounts import accounts
from tests.serve.test_scheduler import going_on
folder, engine = Path(sys.argv[1]), Scripted(going_on)
engine.step_s = 0.005
accounting.NOTE_EVERY_S = 0.05
app = create_app(Service([served(engine)]), gate=accounts(open_store(folder), folder, keys_needed=False))
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


def test_a_kill_while_it_streams_leaves_accounts_and_log_consistent(tmp_path: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    server = subprocess.Popen([sys.executable, "-c", SERVER, str(tmp_path), str(port)], env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(url))
        httpx.post(f"{url}/v1/chat/completions", json={**BODY, "thinking_budget": 8}, timeout=30)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json={**BODY, "stream": True}, timeout=30) as response:
            lines = response.iter_lines()
            for _ in range(100):  # an event and an empty line for each of some 50 tokens: a quarter of a second
                next(lines)
            server.send_signal(signal.SIGKILL)
            server.wait()
    except httpx.RemoteProtocolError:
        pass
    finally:
        server.kill()
        server.wait()
    store = open_store(tmp_path)
    accounts(store, tmp_path)
    assert sorted(s for (s,) in store.execute("SELECT state FROM requests")) == ["killed", "stop"]
    assert store.execute("SELECT prompt, day FROM requests WHERE state = 'killed'").fetchone() == (9, today())
    (n_tokens,) = store.execute("SELECT thinking + answer FROM requests WHERE state = 'killed'").fetchone()
    assert 10 < n_tokens <= 60, "what was written before the last twentieth of a second"
    checked = verify(store, load_key(tmp_path).public_key())
    assert (checked.n, checked.fault) == (2, "")
    cut = json.loads([e["entry"] for e in entries(store)][-1])
    assert (cut["killed"], cut["prompt"]["n"], cut["completions"][0]["n"]) == (True, 9, n_tokens)
    accounts(store, tmp_path)
    assert verify(store, load_key(tmp_path).public_key()).n == 2, "a second start adds nothing"
    store.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        time.sleep(0.1)
        return False
