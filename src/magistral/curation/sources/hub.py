"""Data sets of the Hugging Face hub, at a revision, and folders of the same form, read row by row by the package `datasets`.

hf:OWNER/NAME@REVISION                                  its split `train`
hf:OWNER/NAME@REVISION?config=main&split=test           another one
hf:OWNER/NAME@REVISION?question=prompt&solutions=       the column `prompt` is the question, and `solutions` is not taken
hf:./FOLDER?split=train                                 a folder on this machine: no hub is asked
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

from magistral.curation.sources.base import Row
from magistral.errors import UserError
from magistral.registry import nearest

PREFIX = "hf:"
LIMIT_S = 30.0
"""For the hub to say what it has (chosen)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Example: Place(name="openai/gsm8k", revision="e53f048", config="main", split="test", columns={"reference": "answer"})"""

    name: str
    """OWNER/NAME, or a folder's path."""
    revision: str
    """A commit or a tag; empty for a folder."""
    config: str | None
    split: str
    columns: Mapping[str, str]
    """Ours to theirs; to nothing where a column is not to be taken."""

    @classmethod
    def of(cls, path: Path) -> Self:
        """Raises UserError where it names no data set at a revision."""
        named, _, query = str(path).removeprefix(PREFIX).partition("?")
        columns = dict(parse_qsl(query, keep_blank_values=True))
        config, split = columns.pop("config", None), columns.pop("split", "train")
        if _is_folder(named):
            return cls(name=named, revision="", config=config, split=split, columns=columns)
        name, _, revision = named.partition("@")
        if not revision or not all(name.partition("/")):
            raise UserError(
                f"{path}: write {PREFIX}OWNER/NAME@REVISION (a commit of the data set, so that it stays the same), "
                f"or {PREFIX}./FOLDER for one on this machine"
            )
        return cls(name=name, revision=revision, config=config, split=split, columns=columns)

    @property
    def stem(self) -> str:
        """What rows without an id of their own are called by."""
        return Path(self.name).name


def rows(path: Path) -> Iterator[Row]:
    """Its rows, streamed, each with `origin` and, unless it has one of its own, the set's `licence`.

    Raises UserError where the package or the hub is not there, or the hub does not have what is named."""
    place = Place.of(path)
    try:
        import datasets
    except ImportError:
        raise UserError(f"{path}: data sets of a hub need the package `datasets`: pip install 'open-magistral[hub]'") from None
    datasets.disable_progress_bars()
    with _said_of(path, place):
        commit, licence = _of_folder(place) if not place.revision else _of_hub(place)
        origin = f"{PREFIX}{place.name}" + (f"@{commit}" if commit else "")
        found = datasets.load_dataset(place.name, place.config, split=place.split, revision=commit or None, streaming=True)
        for number, values in enumerate(found, 1):
            where = f"{origin}, row {number}"
            yield Row(where, {"licence": licence, **_renamed(values, place.columns, where), "origin": origin})


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any]:
    for theirs in columns.values():
        if theirs and theirs not in values:
            raise UserError(f"{where}: no column {theirs!r}; {nearest(theirs, values)}")
    kept = {name: value for name, value in values.items() if name not in columns}
    return kept | {ours: values[theirs] for ours, theirs in columns.items() if theirs}


def _of_hub(place: Place) -> tuple[str, str]:
    """The commit that its revision is now, and its licence. Asked first: `datasets` would fall back on any copy it once had."""
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(place.name, revision=place.revision, timeout=LIMIT_S)
    return str(info.sha), _licence(info.card_data)


def _of_folder(place: Place) -> tuple[str, str]:
    from huggingface_hub import DatasetCard

    if not Path(place.name).is_dir():
        raise UserError(f"no folder at {place.name}")
    card = Path(place.name) / "README.md"
    return "", _licence(DatasetCard.load(card).data) if card.exists() else ""


def _licence(card: Any) -> str:
    said = getattr(card, "license", None) or ""
    return said if isinstance(said, str) else ", ".join(said)


def _is_folder(name: str) -> bool:
    return name.startswith((".", "/"))


@contextmanager
def _said_of(path: Path, place: Place) -> Iterator[None]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the client that the hub's package is built on

    try:
        yield
    except (DatasetsError, HTTPError, OSError, ValueError, RuntimeError) as e:
        said = (str(e) or type(e).__name__).partition("\n")[0]
        instead = f" (where no hub can be reached, fetch the set elsewhere and name its folder: {PREFIX}./FOLDER)"
        raise UserError(f"{path}: {said}{instead if place.revision else ''}") from None
