"""What the server keeps beside accounts: conversations, earlier thinking, and what it reads of runs."""

from __future__ import annotations

import fcntl
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magistral.serve.accounts import Limits, add_key
from magistral.serve.app import create_app
from magistral.serve.conversations import Conversations
from magistral.serve.errors import Refused
from magistral.serve.events import Turn
from magistral.serve.remembering import Remembered
from magistral.serve.runs import Runs, runs_routes
from magistral.serve.service import Service
from magistral.serve.site import site_routes
from magistral.serve.store import open_store
from tests.serve.fakes import Scripted, running, served, serving
from tests.serve.test_accounts import accounts
from tests.serve.test_app import BODY


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def kept(store: sqlite3.Connection) -> Conversations:
    return Conversations(store)


def body(title: str, thinking: str = "", text: str = "hi") -> dict[str, Any]:
    nodes = [
        {"id": "a", "role": "user", "text": text},
        {"id": "b", "parent": "a", "role": "assistant", "text": "so", "thinking": thinking},
    ]
    return {"title": title, "nodes": nodes, "leaf": "b"}


def test_a_conversation_is_found_by_a_word_of_its_thinking_and_by_the_beginning_of_the_last(kept: Conversations) -> None:
    kept.put("ann", "conversation-1", body("One", thinking="le théorème de Pythagore"))
    kept.put("ann", "conversation-2", body("Two", text="cooking"))
    assert [c["title"] for c in kept.list("ann", "theoreme pytha")] == ["One"]
    assert [c["title"] for c in kept.list("ann")] == ["Two", "One"]
    kept.put("ann", "conversation-1", body("One", thinking="other"))
    assert kept.list("ann", "pythagore") == [], "what it was before is not found"


FOUND: dict[str, tuple[str, str, bool]] = {
    "Chinese, amid a sentence": ("由勾股定理可知斜边为5。", "勾股定理", True),
    "one letter": ("由勾股定理可知", "股", True),
    "the same letters apart": ("定理由勾股可知", "勾股定理", False),
    "Chinese beside figures and Latin": ("设x=12勾股ab", "12勾股ab", True),
    "a rare letter": ("𠮷野家", "野家", True),
    "Japanese": ("これは三平方の定理です", "平方の定", True),
    "Korean, without its particle": ("피타고라스의 정리는", "피타고라스 정리", True),
    "Arabic": ("حسب نظرية فيثاغورس في المثلث", "فيثاغورس نظر", True),
    "Arabic, not amid a word": ("حسب نظرية فيثاغورس", "ثاغورس", False),
    "accents": ("le théorème de Pythagore", "THEOREME", True),
    "accents in the query": ("le theoreme", "théor", True),
    "Cyrillic": ("Теорема Пифагора", "пифаг", True),
}


@pytest.mark.parametrize(("text", "query", "found"), FOUND.values(), ids=FOUND)
def test_a_word_is_found_in_every_script(kept: Conversations, text: str, query: str, found: bool) -> None:
    kept.put("ann", "conversation-1", body("One", thinking=text))
    assert [c["found"].strip() for c in kept.list("ann", query)] == ([text] if found else [])


def test_a_file_of_before_finds_words_of_unspaced_scripts_once_it_is_opened(tmp_path: Path) -> None:
    old = open_store(tmp_path)
    Conversations(old).put("ann", "conversation-1", body("One"))
    old.execute("UPDATE conversation_text SET thinking = '由勾股定理可知 théorème'")
    old.execute("PRAGMA user_version = 1")
    assert Conversations(old).list("ann", "勾股定理") == []
    old.close()
    for _ in range(2):
        opened = open_store(tmp_path)
        assert [[c["title"] for c in Conversations(opened).list("ann", q)] for q in ("勾股定理", "theoreme")] == [["One"]] * 2
        opened.close()


@pytest.mark.parametrize("query", ['"', "a AND", "NEAR(", "* OR x", "-", "title:"], ids=repr)
def test_a_query_is_words_and_no_syntax(kept: Conversations, query: str) -> None:
    kept.put("ann", "conversation-1", body("One"))
    assert kept.list("ann", query) == []


def test_a_conversation_is_its_owner_s_alone(kept: Conversations) -> None:
    kept.put("ann", "conversation-1", body("secret"))
    assert kept.list("bob", "secret") == []
    attempts: list[Callable[[], object]] = [
        lambda: kept.get("bob", "conversation-1"),
        lambda: kept.put("bob", "conversation-1", body("mine")),
        lambda: kept.delete("bob", "conversation-1"),
    ]
    for attempt in attempts:
        with pytest.raises(Refused, match="no such conversation"):
            attempt()
    kept.delete("ann", "conversation-1")
    assert kept.list("ann", "secret") == kept.list("ann") == []


def test_of_what_is_deleted_no_word_stands_in_the_files(kept: Conversations, tmp_path: Path) -> None:
    def n_files(word: str) -> int:  # FTS5 keeps of a word only the end in which it differs from the one before
        return sum(word[1:].encode() in file.read_bytes().lower() for file in tmp_path.glob("server.db*"))

    for i in range(20):
        kept.put("ann", f"conversation-{i}", body(f"Title {i}", thinking=f"zqxwvk{i}y and what others say too " * 50))
    kept.put("ann", "conversation-7", body("other", text="zqxwvk7y stands in its first version alone"))
    kept.put("ann", "conversation-8", body("zqhidden", thinking="xzqhidden " * 1000))
    assert n_files("zqhidden") > 0
    kept.delete("ann", "conversation-8")
    assert n_files("zqhidden") == 0
    kept.delete("ann", "conversation-7")
    assert n_files("zqxwvk7y") == 0
    assert [c["title"] for c in kept.list("ann", "zqxwvk6y")] == ["Title 6"]


BAD: dict[str, tuple[str, Any]] = {
    "a short id": ("x", body("t")),
    "a path": ("../../etc/passwd", body("t")),
    "a key more": ("conversation-1", {**body("t"), "x": 1}),
    "a system turn": ("conversation-1", {"title": "t", "nodes": [{"id": "a", "role": "system", "text": ""}]}),
    "half a surrogate pair": ("conversation-1", body("\ud800")),
    "too large": ("conversation-1", body("t", thinking="x" * (5 * 2**20))),
}


@pytest.mark.parametrize(("name", "what"), BAD.values(), ids=BAD)
def test_what_is_no_conversation_is_refused_and_leaves_nothing(kept: Conversations, name: str, what: Any) -> None:
    with pytest.raises(Refused):
        kept.put("ann", name, what)
    assert kept.list("ann") == []


def test_thinking_is_put_back_by_its_answer_for_its_owner_and_the_oldest_is_forgotten() -> None:
    memory = Remembered(max_bytes=25)
    memory.keep("ann", "It is 391.", "17 * 23")
    turns = [Turn(role="user", text="?"), Turn(role="assistant", text=" It is 391.\n")]
    assert [t.thinking for t in memory.put_back("ann", turns)[0]] == ["", "17 * 23"]
    assert memory.put_back("bob", turns)[1] == 0
    memory.keep("ann", "other", "x" * 20)
    assert (memory.put_back("ann", turns)[1], memory.n_bytes) == (0, 20)


def test_a_client_that_drops_the_thinking_gets_it_put_back_where_it_asks() -> None:
    engine = Scripted()
    with serving(engine) as url:
        said = httpx.post(f"{url}/v1/chat/completions", json=BODY).json()["choices"][0]["message"]["content"]
        turns = [*BODY["messages"], {"role": "assistant", "content": said}, {"role": "user", "content": "sure?"}]
        httpx.post(f"{url}/v1/chat/completions", json={**BODY, "messages": turns})
        reply = httpx.post(f"{url}/v1/chat/completions", json={**BODY, "messages": turns, "reattach": True}).json()
    prompts = [engine.tokenizer.decode(r.prompt) for r in engine.requests]
    assert ["17 * 23 = 391" in p for p in prompts] == [False, False, True]
    assert reply["magistral"]["notes"][0]["kind"] == "reattached"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    run = tmp_path / "runs" / "nano"
    (run / "traces").mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"stage": "rl", "state": "done", "started": 1.0}))
    (run / "metrics.jsonl").write_text('{"step": 1, "time": 1, "values": {"reward/mean": 0.5, "loss": NaN}}\n')
    row = {
        "group": 0, "question": "1 + 1 = ?", "reference": "2", "reward_total": 1.0, "reward_reasons": ["box is 2"],
        "outcome": "right", "tokens": [1, 2], "text": "<script>",
    }  # fmt: skip
    pq.write_table(
        pa.Table.from_pylist([row, {**row, "reward_total": 0.1}, {**row, "group": 1}]), run / "traces" / "step-000001.parquet"
    )
    return run.parent


def test_runs_are_read_and_a_name_is_no_path(store: sqlite3.Connection, tmp_path: Path, runs: Path) -> None:
    key = add_key(store, "ann", Limits())
    gate = accounts(store, tmp_path)
    app = create_app(Service([served(Scripted())]), gate=gate, extra_routes=runs_routes(gate, runs))
    with running(app) as url, httpx.Client(base_url=url, headers={"x-api-key": key}) as client:
        assert client.get("/api/runs").json() == {"data": [{"name": "nano", "stage": "rl", "state": "done"}], "folder": str(runs)}
        run = client.get("/api/runs/nano").json()
        assert (run["metrics"], run["steps"]) == ([{"step": 1, "values": {"reward/mean": 0.5}}], [1])
        groups = client.get("/api/runs/nano/groups?step=1").json()["data"]
        assert [len(g["completions"]) for g in groups] == [2, 1]
        assert groups[0]["completions"][1]["reward"] == 0.1
        bad = ["/api/runs/..", "/api/runs/%2e%2e", "/api/runs/nano/groups?step=9", "/api/runs/nano/groups?step=x"]
        assert [client.get(path).status_code for path in bad] == [404] * 4
        assert httpx.get(f"{url}/api/runs").status_code == 401


def test_runs_of_one_recipe_in_a_folder_of_their_own_are_found(runs: Path) -> None:
    (runs / "quickstart").mkdir()
    (runs / "nano").rename(runs / "quickstart" / "rl")
    assert [run["name"] for run in Runs(runs).all()] == ["quickstart/rl"]
    assert Runs(runs).get("quickstart/rl")["steps"] == [1]


def test_a_run_that_nobody_writes_any_more_was_killed(runs: Path) -> None:
    file = runs / "nano" / "run.json"
    file.write_text(file.read_text().replace("done", "running"))
    with (runs / "nano" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert Runs(runs).all()[0]["state"] == "running"
    assert (Runs(runs).all()[0]["state"], Runs(runs).get("nano")["state"]) == ("killed", "killed")


def test_the_page_s_files_come_with_a_csp_and_nothing_outside_their_folder(store: sqlite3.Connection, tmp_path: Path) -> None:
    gate = accounts(store, tmp_path, keys_needed=False)
    app = create_app(Service([served(Scripted())]), gate=gate, extra_routes=site_routes(gate, Conversations(store)))
    with running(app) as url, httpx.Client(base_url=url) as client:
        page = client.get("/web/")
        csp = page.headers["content-security-policy"]
        assert "unsafe" not in csp
        assert "script-src 'self'" in csp
        assert "<script>" not in page.text
        assert [client.get(p).status_code for p in ("/web/js/main.js", "/web/vendor/katex/LICENSE")] == [200, 200]
        assert [client.get(p).status_code for p in ("/web/../app.py", "/web/%2e%2e/app.py")] == [404, 404]
