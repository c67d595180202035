"""A log in which nothing can be changed unnoticed: each entry holds the hash of the one before, and is signed (Ed25519).

An entry says who asked which weights with which seed, and the hashes of the tokens; the tokens themselves are kept only where
wished, in a table of their own, so that they can be deleted and the chain still verifies. What it cannot show: that entries
were cut off its end; for that, note the head that `magistral audit verify` prints.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from magistral import __version__
from magistral.errors import UserError
from magistral.serve.service import Ticket
from magistral.serve.store import transaction

log = logging.getLogger("magistral.serve")
FIRST = bytes(32)
"""What stands for the hash before the first entry."""


def load_key(folder: Path) -> Ed25519PrivateKey:
    """The server's own, made where there is none; its public half lies beside it."""
    file = folder / "audit.key"
    try:
        if not file.exists():
            key = Ed25519PrivateKey.generate()
            pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
            with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as out:
                out.write(pem)
        loaded = serialization.load_pem_private_key(file.read_bytes(), password=None)
    except (OSError, ValueError) as e:
        raise UserError(f"the audit log's key {file} cannot be read: {e}") from None
    if not isinstance(loaded, Ed25519PrivateKey):
        raise UserError(f"{file} is no Ed25519 key")
    public = loaded.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "audit.pub").write_bytes(public)
    return loaded


def token_hash(salt: bytes, tokens: Sequence[int]) -> str:
    return hashlib.sha256(salt + ",".join(map(str, tokens)).encode()).hexdigest()


class Audit:
    def __init__(self, store: sqlite3.Connection, key: Ed25519PrivateKey, *, keep_text: bool) -> None:
        self.store, self.key, self.keep_text = store, key, keep_text

    def add(self, ticket: Ticket) -> str:
        """One entry of a request that has ended. Says why if it could not be kept, else nothing."""
        salt = secrets.token_bytes(16)
        kept = {"prompt": ticket.jobs[0].prompt, "completions": [job.written for job in ticket.jobs]}
        try:
            with transaction(self.store):
                seq = self._append(_entry(ticket, salt))
                tokens = json.dumps(kept, separators=(",", ":")) if self.keep_text else None
                self.store.execute("INSERT INTO audit_text VALUES (?, ?, ?)", (seq, salt, tokens))
        except sqlite3.Error as e:
            log.error("the audit log cannot be kept: %s", e)
            return str(e)
        return ""

    def close_killed(self) -> None:
        """Requests that a server which is no more left running: each gets its entry, with the tokens that were last counted."""
        cut = "SELECT id, at, key, model, prompt, thinking, answer FROM requests WHERE state = 'running' ORDER BY at"
        with transaction(self.store):
            for name, at, owner, model, prompt, thinking, answer in self.store.execute(cut).fetchall():
                said = {"n": thinking + answer, "thinking": thinking}
                about = {"at": at, "request": name, "key": owner, "model": model, "killed": True}
                self._append({"version": __version__, **about, "prompt": {"n": prompt}, "completions": [said]})
            self.store.execute("UPDATE requests SET state = 'killed' WHERE state = 'running'")

    def _append(self, entry: dict[str, Any]) -> int:
        """Its number. Within a transaction."""
        last, previous = self.store.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone() or (0, FIRST)
        text = json.dumps({"seq": last + 1, "previous": previous.hex(), **entry}, separators=(",", ":"), ensure_ascii=False)
        hashed = hashlib.sha256(text.encode()).digest()
        self.store.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", (last + 1, text, hashed, self.key.sign(hashed)))
        return int(last) + 1

    def sign(self, thinking: str) -> str:
        """For blocks of thinking that clients send back."""
        return base64.b64encode(self.key.sign(b"thinking\0" + thinking.encode("utf-8", "replace"))).decode()

    def knows(self, thinking: str, signature: str) -> bool:
        """Whether this server wrote that thinking."""
        try:
            self.key.public_key().verify(
                base64.b64decode(signature, validate=True), b"thinking\0" + thinking.encode("utf-8", "replace")
            )
        except (InvalidSignature, ValueError):
            return False
        return True


def _entry(ticket: Ticket, salt: bytes) -> dict[str, Any]:
    served, ask = ticket.served, ticket.ask
    job = ticket.jobs[0]
    return {
        "version": __version__,
        "at": time.time(),
        "request": ticket.id,
        "key": ticket.owner,
        "model": served.name,
        "weights": served.weights,
        "template": hashlib.sha256(served.tokenizer.chat_template.encode()).hexdigest(),
        "temperature": job.temperature,
        "top_p": job.top_p,
        "top_k": ask.top_k,
        "min_p": ask.min_p,
        "masked": "mask" in job.options,
        "max_tokens": job.phases.terms.max_tokens,
        "vote": ask.vote.k if ask.vote else None,
        "failed": ticket.failed,
        "prompt": {"n": len(job.prompt), "sha256": token_hash(salt, job.prompt)},
        "completions": [
            {
                "n": len(job.written),
                "sha256": token_hash(salt, job.written),
                "thinking": job.phases.n_thinking,
                "end": job.phases.end,
                "parts": [{"at": at, "seed": seed, "n": n} for at, seed, n in job.parts],
                "forced": job.forced,
            }
            for job in ticket.jobs
        ],
    }


@dataclass(frozen=True, kw_only=True)
class Checked:
    n: int
    """Entries that are whole."""
    head: str
    """Hash of the last of them."""
    fault: str = ""
    """What is wrong with the next one; empty: nothing."""


def verify(store: sqlite3.Connection, public: Ed25519PublicKey) -> Checked:
    """Every entry against the one before it, its hash, its signature, and the tokens that are kept with it."""
    previous, n = FIRST, 0
    rows = store.execute(
        "SELECT a.seq, entry, hash, signature, salt, tokens FROM audit a LEFT JOIN audit_text t ON a.seq = t.seq ORDER BY a.seq"
    )
    for seq, entry, hashed, signature, salt, tokens in rows:
        fault = ""
        if seq != n + 1:
            fault = f"entry {n + 1} is missing"
        elif hashlib.sha256(entry.encode()).digest() != hashed:
            fault = f"entry {seq} was changed"
        elif json.loads(entry)["previous"] != previous.hex() or json.loads(entry)["seq"] != seq:
            fault = f"entry {seq} does not follow the one before it"
        elif not _signed(public, signature, hashed):
            fault = f"entry {seq} is not signed by this key"
        elif tokens and not _same_tokens(json.loads(entry), json.loads(tokens), salt):
            fault = f"the tokens kept of entry {seq} are not those it was written of"
        if fault:
            return Checked(n=n, head=previous.hex(), fault=fault)
        previous, n = hashed, seq
    return Checked(n=n, head=previous.hex())


def _signed(public: Ed25519PublicKey, signature: bytes, hashed: bytes) -> bool:
    try:
        public.verify(signature, hashed)
    except InvalidSignature:
        return False
    return True


def _same_tokens(entry: dict[str, Any], tokens: dict[str, Any], salt: bytes) -> bool:
    if token_hash(salt, tokens["prompt"]) != entry["prompt"]["sha256"]:
        return False
    return [token_hash(salt, c) for c in tokens["completions"]] == [c["sha256"] for c in entry["completions"]]


def entries(store: sqlite3.Connection, *, since: float = 0.0) -> Iterator[dict[str, Any]]:
    """Oldest first; `tokens` where they are kept."""
    rows = store.execute(
        "SELECT entry, hash, signature, tokens FROM audit a LEFT JOIN audit_text t ON a.seq = t.seq ORDER BY a.seq"
    )
    for entry, hashed, signature, tokens in rows:
        fields = json.loads(entry)
        if fields["at"] >= since:
            signed = {"entry": entry, "hash": hashed.hex(), "signature": base64.b64encode(signature).decode()}
            yield {**signed, "tokens": json.loads(tokens) if tokens else None}


def forget_text(store: sqlite3.Connection, *, before: float) -> int:
    """Delete the tokens of entries older than that (Unix time) and what could prove a guess of them; the chain stays whole."""
    seqs = [seq for seq, entry in store.execute("SELECT seq, entry FROM audit") if json.loads(entry)["at"] < before]
    n = 0
    for seq in seqs:
        n += store.execute("DELETE FROM audit_text WHERE seq = ?", (seq,)).rowcount
    return n
