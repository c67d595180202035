"""Duplicates: the same words, or nearly the same with the same numbers. The first is kept.

Near ones are found by MinHash (Broder, 1997) in bands of an index on disc, so memory stays flat; then the runs of words
themselves are compared. A template filled with other numbers is another problem.
"""

from __future__ import annotations

import hashlib
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np

from magistral.curation.candidate import Candidate
from magistral.curation.stage import Dropped
from magistral.curation.words import numbers_of, runs_of, words_of

RUN = 3
"""Words of a run. chosen: a changed word breaks three."""
N_BANDS, N_ROWS = 16, 4
"""chosen: of pairs that share 80 % of their runs one in 5000 is missed, of those that share 30 % one in 8 is compared in vain."""
_PRIME = (1 << 61) - 1
_random = np.random.default_rng(20250610)
_FACTORS = _random.integers(1, 1 << 31, N_BANDS * N_ROWS, dtype=np.uint64)
_SHIFTS = _random.integers(0, 1 << 31, N_BANDS * N_ROWS, dtype=np.uint64)


class Duplicates:
    def __init__(self, near: float) -> None:
        self.near = near
        """Share of runs in common from which two are one."""

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate | Dropped]:
        with tempfile.TemporaryDirectory() as folder, closing(_index(Path(folder))) as index:
            for ordinal, candidate in enumerate(candidates):
                yield self._judged(index, ordinal, candidate)

    def _judged(self, index: sqlite3.Connection, ordinal: int, candidate: Candidate) -> Candidate | Dropped:
        words = words_of(candidate.question)
        text = " ".join(words) or candidate.question
        digest = _digest(f"{candidate.kind}\0{text}")
        same = index.execute("SELECT id, reference FROM seen WHERE digest = ?", (digest,)).fetchone()
        if same:
            contrary = same[1] != candidate.reference
            reason = "duplicate with another reference" if contrary else "duplicate"
            return Dropped(candidate, reason, f"of {same[0]}" + (f", whose reference is {same[1][:60]!r}" if contrary else ""))
        bands = _bands(runs_of(words, RUN))
        if like := self._near(index, bands, words):
            return Dropped(candidate, "near duplicate", like)
        index.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", (ordinal, digest, candidate.id, candidate.reference, text))
        index.executemany("INSERT INTO band VALUES (?, ?)", [(band, ordinal) for band in bands])
        return candidate

    def _near(self, index: sqlite3.Connection, bands: list[int], words: list[str]) -> str:
        """Which earlier candidate it is like, and how much; empty if none."""
        marks = ",".join("?" * len(bands))
        found = index.execute(
            f"SELECT id, text FROM seen WHERE ordinal IN (SELECT DISTINCT ordinal FROM band WHERE hash IN ({marks}) LIMIT 64)",
            bands,
        ).fetchall()
        runs, numbers = runs_of(words, RUN), numbers_of(words)
        for name, text in found:
            other = text.split(" ")
            theirs = runs_of(other, RUN)
            share = len(runs & theirs) / len(runs | theirs)
            if share >= self.near and numbers_of(other) == numbers:
                return f"of {name}: {share:.0%} of their runs of {RUN} words"
        return ""


def _index(folder: Path) -> sqlite3.Connection:
    index = sqlite3.connect(folder / "seen.db", isolation_level=None)
    index.executescript(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536; BEGIN;"
        "CREATE TABLE seen (ordinal INTEGER PRIMARY KEY, digest INTEGER, id TEXT, reference TEXT, text TEXT);"
        "CREATE INDEX seen_digest ON seen (digest);"
        "CREATE TABLE band (hash INTEGER, ordinal INTEGER, PRIMARY KEY (hash, ordinal)) WITHOUT ROWID;"
    )
    return index


def _bands(runs: set[str]) -> list[int]:
    """A hash for each band of the runs' MinHash; two sets that are alike have one in common."""
    hashes = np.fromiter((zlib.crc32(run.encode()) for run in runs), np.uint64, len(runs))
    least = ((hashes[:, None] * _FACTORS + _SHIFTS) % np.uint64(_PRIME)).min(axis=0).reshape(N_BANDS, N_ROWS)
    return [_digest(f"{place}\0{band.tobytes().hex()}") for place, band in enumerate(least)]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big", signed=True)
