"""Conversations of the page, kept in the server's file and found again by any word of them, thinking included.

A conversation is a tree: a question asked otherwise, or an answer written anew, is a branch beside the first.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from magistral.serve.errors import Refused
from magistral.serve.store import apart, together, transaction

MAX_BYTES = 4 * 2**20
ID = re.compile(r"[A-Za-z0-9_-]{8,64}")


class Node(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    id: str = Field(max_length=64)
    parent: str | None = Field(default=None, max_length=64)
    role: str = Field(pattern="^(user|assistant)$")
    text: str
    thinking: str = ""
    about: dict[str, Any] = Field(default_factory=dict)
    """Tokens, seconds, votes, checks: what the page shows beside it."""


class Conversation(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    title: str = Field(max_length=200)
    nodes: list[Node] = Field(max_length=5000)
    leaf: str | None = Field(default=None, max_length=64)
    """The end of the branch that is looked at."""


class Conversations:
    def __init__(self, store: sqlite3.Connection) -> None:
        self.store = store

    def list(self, owner: str, query: str = "") -> list[dict[str, Any]]:
        """Newest first, with where the words stand."""
        if not query.strip():
            rows = self.store.execute(
                "SELECT id, title, changed, '' FROM conversations WHERE owner = ? ORDER BY changed DESC LIMIT 500", (owner,)
            )
        else:
            rows = self.store.execute(
                "SELECT c.id, c.title, c.changed, snippet(conversation_text, -1, '', '', '…', 12)"
                " FROM conversation_text t JOIN conversations c ON c.id = t.id"
                " WHERE conversation_text MATCH ? AND c.owner = ? ORDER BY rank LIMIT 100",
                (_words(query), owner),
            )
        return [{"id": i, "title": title, "changed": changed, "found": together(found)} for i, title, changed, found in rows]

    def get(self, owner: str, id: str) -> dict[str, Any]:
        row = self.store.execute("SELECT body FROM conversations WHERE id = ? AND owner = ?", (id, owner)).fetchone()
        if row is None:
            raise Refused("not_found", "no such conversation", field="id")
        body: dict[str, Any] = json.loads(row[0])
        return {"id": id, **body}

    def put(self, owner: str, id: str, body: dict[str, Any]) -> dict[str, Any]:
        """The whole conversation, new or in place of what was there."""
        if not ID.fullmatch(id):
            raise Refused("bad_request", "an id has 8 to 64 letters, digits, - or _", field="id")
        try:
            conversation = Conversation.model_validate(body)
            text = conversation.model_dump_json()
        except ValidationError as e:
            error = e.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(map(str, error["loc"]))
            raise Refused("bad_request", f"{place}: {error['msg']}", field=place) from None
        except ValueError:  # half of a surrogate pair
            raise Refused("bad_request", "the conversation holds text that is no Unicode", field="nodes") from None
        if len(text) > MAX_BYTES:
            raise Refused("too_large", f"a conversation has at most {MAX_BYTES} bytes")
        other = self.store.execute("SELECT owner FROM conversations WHERE id = ?", (id,)).fetchone()
        if other is not None and other[0] != owner:
            raise Refused("not_found", "no such conversation", field="id")
        self._write(owner, id, conversation, text)
        return {"id": id}

    def delete(self, owner: str, id: str) -> dict[str, Any]:
        """What it said then stands nowhere in the files."""
        self.get(owner, id)
        with transaction(self.store):
            self.store.execute("DELETE FROM conversations WHERE id = ?", (id,))
            self.store.execute("DELETE FROM conversation_text WHERE id = ?", (id,))
            # FTS5 only notes that words are gone until it merges; its own secure-delete makes files that older SQLite cannot read
            self.store.execute("INSERT INTO conversation_text (conversation_text) VALUES ('optimize')")
        self.store.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return {"id": id, "deleted": True}

    def _write(self, owner: str, id: str, conversation: Conversation, text: str) -> None:
        now = time.time()
        said = "\n".join(node.text for node in conversation.nodes)
        thinking = "\n".join(node.thinking for node in conversation.nodes)
        with transaction(self.store):
            self.store.execute(
                "INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id)"
                " DO UPDATE SET title = excluded.title, changed = excluded.changed, body = excluded.body",
                (id, owner, conversation.title, now, now, text),
            )
            self.store.execute("DELETE FROM conversation_text WHERE id = ?", (id,))
            self.store.execute(
                "INSERT INTO conversation_text VALUES (?, ?, ?, ?)", (id, *map(apart, (conversation.title, said, thinking)))
            )


def _words(query: str) -> str:
    """Every word must stand somewhere, the last one perhaps only begun; nothing of FTS5's own syntax counts."""
    words = [apart(word) for word in re.findall(r"\w+", query)[:20]]  # what it sets apart, FTS5 reads as a phrase
    return " ".join(f'"{word}"' for word in words[:-1]) + f' "{words[-1]}"*' if words else '""'
