"""The server's one file: keys, requests, the audit log, conversations. SQLite with a WAL, so that a kill loses no entry."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from magistral.errors import UserError

VERSION = 2
"""2: the words of `conversation_text` stand as `apart` puts them."""
SCHEMA = """
CREATE TABLE keys (
  name TEXT PRIMARY KEY, digest BLOB UNIQUE NOT NULL, created REAL NOT NULL, revoked REAL,
  requests_per_minute INTEGER, tokens_per_day INTEGER, dollars_per_day REAL
);
CREATE TABLE requests (
  id TEXT PRIMARY KEY, at REAL NOT NULL, day TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL, dialect TEXT NOT NULL,
  state TEXT NOT NULL, prompt INTEGER NOT NULL DEFAULT 0, cached INTEGER NOT NULL DEFAULT 0, thinking INTEGER NOT NULL DEFAULT 0,
  answer INTEGER NOT NULL DEFAULT 0, aborted INTEGER NOT NULL DEFAULT 0, seconds REAL, first_token_s REAL
);
CREATE INDEX requests_by_day ON requests (day, key);
CREATE TABLE audit (seq INTEGER PRIMARY KEY, entry TEXT NOT NULL, hash BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE audit_text (seq INTEGER PRIMARY KEY, salt BLOB NOT NULL, tokens TEXT);
CREATE TABLE conversations (
  id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, created REAL NOT NULL, changed REAL NOT NULL, body TEXT NOT NULL
);
CREATE INDEX conversations_by_owner ON conversations (owner, changed);
CREATE VIRTUAL TABLE conversation_text USING fts5 (
  id UNINDEXED, title, said, thinking, tokenize = 'unicode61 remove_diacritics 2'
);
"""

_UNSPACED = (
    "[\\u0e00-\\u0eff\\u1000-\\u109f\\u1780-\\u17ff\\u3005-\\u30ff\\u3400-\\u9fff"
    "\\uac00-\\ud7a3\\uf900-\\ufaff\\uff66-\\uff9f\\U00020000-\\U0003ffff]"
)
"""Letters of Thai, Lao, Burmese, Khmer, Japanese, Chinese and Korean, where a word begins and ends without a space."""
_BESIDE_UNSPACED = re.compile(f"(?<={_UNSPACED})|(?={_UNSPACED})")
_SEPARATOR = "\u200b"


def open_store(folder: Path) -> sqlite3.Connection:
    """Makes the folder, for its owner alone, and the file where they are absent.

    Raises UserError where this cannot be, or the file is of a newer server."""
    file = folder / "server.db"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        store = sqlite3.connect(file, isolation_level=None, timeout=10, check_same_thread=False)
        store.execute("PRAGMA journal_mode = WAL")
        store.execute("PRAGMA synchronous = NORMAL")
        store.execute("PRAGMA secure_delete = ON")
        _update(store, file)
    except (OSError, sqlite3.Error) as e:
        raise UserError(f"the server's data cannot be kept in {folder}: {e}; name another folder with --data") from None
    return store


def hold(folder: Path) -> IO[str]:
    """A lock that the kernel drops with the process: one server a folder. Raises UserError where another holds it."""
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(f"another server uses {folder}: stop it, or name another folder with --data") from None
    return lock


@contextmanager
def transaction(store: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing, on the disc."""
    store.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        store.execute("ROLLBACK")
        raise
    store.execute("COMMIT")


def apart(text: str) -> str:
    """Each letter of an unspaced script a word of its own, so that FTS5 finds any run of them; `together` undoes it.

    Not FTS5's trigrams: they find no word of two letters, and before SQLite 3.45 none by its letters without accents."""
    return _BESIDE_UNSPACED.sub(_SEPARATOR, text)


def together(text: str) -> str:
    return text.replace(_SEPARATOR, "")


def _update(store: sqlite3.Connection, file: Path) -> None:
    (version,) = store.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise UserError(f"{file} was written by a newer version of this program: use that one, or another --data")
    if version == 0:
        store.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
    elif version == 1:
        store.create_function("apart", 1, apart, deterministic=True)
        with transaction(store):
            store.execute("UPDATE conversation_text SET title = apart(title), said = apart(said), thinking = apart(thinking)")
            store.execute("INSERT INTO conversation_text (conversation_text) VALUES ('optimize')")
            store.execute(f"PRAGMA user_version = {VERSION}")
