"""GPQA (Rein et al., arXiv 2311.12022) from your own copy: the authors' zip, still locked, or a CSV file out of it.

The authors ask that no question be published in plain text: so the zip is read in memory and never unpacked to disc, reports
show no text of it, and its canary goes wherever its questions go.
"""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from magistral.curation.sources.base import Row
from magistral.curation.sources.files import needed, read_rows
from magistral.errors import UserError
from magistral.flow import Problem

PASSWORD = "GPQA_PASSWORD"
"""The environment variable that holds the zip's password (its authors publish it beside the file)."""
_WRONG = tuple(f"Incorrect Answer {n}" for n in (1, 2, 3))


def read(path: Path, part: str) -> Iterator[Problem]:
    """`part`: the CSV file's name without its end, as "gpqa_diamond". The reference holds the options, the right one first: an
    order of its own is drawn for each completion when it is asked (verifiers/choice.py)."""
    rows = _of_zip(path, f"{part}.csv") if path.suffix == ".zip" else read_rows(path)
    for row in rows:
        options = [needed(row, column).strip() for column in ("Correct Answer", *_WRONG)]
        canary = str(row.values.get("Canary String") or "")
        yield Problem(
            id=needed(row, "Record ID"), question=needed(row, "Question").strip(), kind="choice",
            family=str(row.values.get("High-level domain") or ""),
            reference=json.dumps({"key": "A", "options": options, "canary": canary}, ensure_ascii=False),
        )  # fmt: skip


def _of_zip(path: Path, name: str) -> Iterator[Row]:
    password = os.environ.get(PASSWORD, "")
    try:
        with zipfile.ZipFile(path) as archive:
            member = next((m for m in archive.namelist() if Path(m).name == name), None)
            if member is None:
                raise UserError(f"{path} holds no {name}")
            text = archive.read(member, pwd=password.encode() or None).decode("utf-8-sig")
    except (RuntimeError, zlib.error) as e:  # how zipfile says that a password is missing or wrong
        raise UserError(f"{path} is locked ({e}): put its password into the environment variable {PASSWORD}") from None
    except (OSError, zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as e:
        raise UserError(f"{path} cannot be read: {e}") from None
    for number, values in enumerate(csv.DictReader(io.StringIO(text, newline="")), 1):
        yield Row(f"{path.name}, {name}, row {number}", values)
