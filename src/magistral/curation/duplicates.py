"""Duplicates: the same words, or nearly the same with the same numbers. The first is kept; another
problem that bears its name gets a new one.

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
N_BANDS, N_ROWS = 20, 4
"""chosen: of pairs that share 70 % of their runs one in 200 is missed, of those that share 30 % one in 7 is compared in vain."""
MAX_COMPARED = 16
"""Earlier candidates that are compared with one, those with the most bands in common first (chosen)."""
_random = np.random.default_rng(20250610)
_FACTORS = _random.integers(0, 1 << 63, N_BANDS * N_ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


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
        if index.execute("SELECT 1 FROM seen WHERE id = ?", (candidate.id,)).fetchone():
            candidate = candidate.but(id=f"{candidate.id}~{ordinal}")
        index.execute("INSERT INTO seen VALUES (?, ?, ?, ?, ?)", (ordinal, digest, candidate.id, candidate.reference, text))
        index.executemany("INSERT INTO band VALUES (?, ?)", [(band, ordinal) for band in bands])
        return candidate

    def _near(self, index: sqlite3.Connection, bands: list[int], words: list[str]) -> str:
        """Which earlier candidate it is like, and how much; empty if none."""
        marks = ",".join("?" * len(bands))
        found = index.execute(
            "SELECT id, text FROM seen WHERE ordinal IN (SELECT ordinal FROM band WHERE "
            f"hash IN ({marks}) GROUP BY ordinal ORDER BY COUNT(*) DESC LIMIT {MAX_COMPARED})",
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
        "CREATE INDEX seen_digest ON seen (digest); CREATE INDEX seen_id ON seen (id);"
        "CREATE TABLE band (hash INTEGER, ordinal INTEGER, PRIMARY KEY (hash, ordinal)) WITHOUT ROWID;"
    )
    return index


def _bands(runs: set[str]) -> list[int]:
    """A hash for each band of the runs' MinHash; two sets that are alike have one in common."""
    # Each product, which wraps at 64 bits, puts the runs in an order of its own.
    hashes = np.fromiter((zlib.crc32(run.encode()) for run in runs), np.uint64, len(runs))
    least = (hashes[:, None] * _FACTORS).min(axis=0).reshape(N_BANDS, N_ROWS)
    return [_digest(f"{place}\0{band.tobytes().hex()}") for place, band in enumerate(least)]


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "big", signed=True)
