"""Writing a model tensor by tensor into a folder beside its final place, which it takes only when it is whole.

A journal in that folder says how much is safely on the disc, so that a conversion cut short goes on where it stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from magistral.errors import ModelError, UserError
from magistral.weights.kinds import FLOATS, all_finite, n_bytes, recast
from magistral.weights.safetensors import header_bytes
from magistral.weights.stored import Stored, paired

JOURNAL, LOCK = "progress.json", "progress.lock"
SYNC_BYTES = 256 * 2**20
"""Written between two entries of the journal (chosen: a second or two of work at risk)."""
SHARD_BYTES = 5 * 10**9
"""Of a safetensors file, at most, one tensor at least (chosen: what Hugging Face's own writer does)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A tensor to be written."""

    source: Stored
    name: str
    """As the new file calls it."""
    kind: str
    n_heads: int = 0
    """Heads whose rows the new file wants in rotated pairs; 0: in our order."""

    @property
    def n_bytes(self) -> int:
        return n_bytes(self.kind, self.source.shape)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A file to be written: what it begins with, then tensors, each at a multiple of `alignment` after the header."""

    name: str
    header: bytes
    targets: tuple[Target, ...]
    alignment: int = 1

    def places(self) -> list[int]:
        """Where each tensor begins, and where the file ends."""
        places = [len(self.header)]
        for target in self.targets:
            end = places[-1] + target.n_bytes
            places.append(len(self.header) + -(-(end - len(self.header)) // self.alignment) * self.alignment)
        return places


def shards(targets: Sequence[Target], stem: str, *, limit: int) -> list[Part]:
    """Safetensors files of at most `limit` bytes each, named as readers expect."""
    groups: list[list[Target]] = [[]]
    for target in targets:
        if groups[-1] and sum(t.n_bytes for t in groups[-1]) + target.n_bytes > limit:
            groups.append([])
        groups[-1].append(target)
    names = [
        f"{stem}-{i + 1:05}-of-{len(groups):05}.safetensors" if len(groups) > 1 else f"{stem}.safetensors"
        for i in range(len(groups))
    ]
    parts = []
    for name, group in zip(names, groups, strict=True):
        assert all(t.kind in FLOATS for t in group)
        header = header_bytes({t.name: (t.kind, t.source.shape) for t in group})
        parts.append(Part(name=name, header=header, targets=tuple(group)))
    return parts


def shard_index(parts: Sequence[Part]) -> str:
    """model.safetensors.index.json"""
    index = {
        "metadata": {"total_size": sum(t.n_bytes for part in parts for t in part.targets)},
        "weight_map": {t.name: part.name for part in parts for t in part.targets},
    }
    return json.dumps(index, indent=1) + "\n"


@contextmanager
def unfinished_folder(out: Path) -> Iterator[Path]:
    """The folder in which `out` is made, locked. Raises UserError if `out` is there, or another process makes it."""
    if out.exists():
        raise UserError(f"{out} exists: name another OUT, or remove it first")
    folder = _partial(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("w")
    except OSError as e:
        raise UserError(f"{folder} cannot be written: {e.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is writing {out}: wait for it, or name another OUT") from None
        yield folder


def n_taken(out: Path) -> int:
    """Bytes of the disc that an earlier try to make `out` holds: they are gone on with, or removed."""
    folder = _partial(out)
    return sum(file.stat().st_blocks * 512 for file in folder.iterdir()) if folder.is_dir() else 0


def _partial(out: Path) -> Path:
    return out.with_name(f".{out.name}.partial")


def write_parts(folder: Path, parts: Sequence[Part], advance: Callable[[int], None]) -> None:
    """Write all parts, less what an earlier try of just this conversion has written. `advance` is told bytes as they are done."""
    identity = identity_of(parts)
    n_done = _done_before(folder, identity)
    written = 0
    for ordinal, (part, i, place) in enumerate((p, i, place) for p in parts for i, place in enumerate(p.places()[:-1])):
        if ordinal < n_done:
            advance(part.targets[i].n_bytes)
            continue
        with _opened(folder / part.name, part) as file:
            file.seek(place)
            written += _write_tensor(file, part.targets[i], advance)
            if written >= SYNC_BYTES or i + 1 == len(part.targets):
                file.flush()
                os.fsync(file.fileno())
                _note(folder, identity, ordinal + 1)
                written = 0


def finish(folder: Path, out: Path, *, single: str = "") -> None:
    """Give what was made its final name: the folder, or the `single` file in it."""
    for name in (JOURNAL, LOCK):
        (folder / name).unlink(missing_ok=True)
    if single:
        (folder / single).replace(out)
        shutil.rmtree(folder)
    else:
        folder.replace(out)


def _write_tensor(file: BinaryIO, target: Target, advance: Callable[[int], None]) -> int:
    n = 0
    source = target.source
    assert len(source.shape) > 1 or target.kind in FLOATS, target.name
    for rows in source.chunks(target.n_heads):
        if not all_finite(rows, source.kind):
            raise ModelError(f"{source.file}: {source.name} holds numbers that are not finite: the model is broken")
        cast = recast(rows, source.kind, target.kind)
        if cast is not rows and not all_finite(cast, target.kind):
            raise ModelError(f"{source.file}: {source.name} holds numbers that are too large for {target.kind}: choose f32")
        data = paired(cast, len(cast) * target.n_heads // source.shape[0]) if target.n_heads else cast
        file.write(data.data)
        n += data.nbytes
        advance(data.nbytes)
    assert n == target.n_bytes, (target.name, n, target.n_bytes)
    return n


@contextmanager
def _opened(path: Path, part: Part) -> Iterator[BinaryIO]:
    """Ready to write into: of its full length, its header in place."""
    if not path.exists():
        new = path.with_name(f".{path.name}.new")  # a file that is there has its whole header
        with new.open("wb") as file:
            file.write(part.header)
            file.truncate(part.places()[-1])
        new.replace(path)
    with path.open("r+b") as file:
        yield file


def identity_of(parts: Sequence[Part]) -> str:
    """Of a conversion: its sources as they lie on the disc, and everything that will be written."""
    digest = hashlib.sha256()
    for file in sorted({t.source.file for part in parts for t in part.targets}):
        stat = file.stat()
        digest.update(f"{file.resolve()} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    for part in parts:
        digest.update(part.name.encode() + part.header)
    return digest.hexdigest()


def _done_before(folder: Path, identity: str) -> int:
    """Tensors that an earlier try left whole. What another conversion left there is removed."""
    try:
        journal = json.loads((folder / JOURNAL).read_text(encoding="utf-8"))
        if journal["identity"] == identity:
            return int(journal["done"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no journal that can be read: begin anew
    for file in folder.iterdir():
        if file.name != LOCK:
            file.unlink()
    return 0


def _note(folder: Path, identity: str, n_done: int) -> None:
    temporary = folder / f".{JOURNAL}"
    temporary.write_text(json.dumps({"identity": identity, "done": n_done}), encoding="utf-8")
    temporary.replace(folder / JOURNAL)
