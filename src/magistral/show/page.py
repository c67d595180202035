"""One self-contained HTML page: opens from disk, loads nothing.

What a model wrote is hostile. Three things hold it: the template escapes every value (jinja2's autoescape), control
characters are shown as pictures of themselves, and the page's Content-Security-Policy forbids every load and every script
and style but the page's own, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import time
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from magistral.errors import RunFolderError
from magistral.log import write_atomically
from magistral.show.chart import whisker
from magistral.show.visible import visible
from magistral.show.words import duration, number, percent

MAX_CHARACTERS = 20_000  # of one text

_POLICY = "default-src 'none'; style-src '{style}'; script-src '{script}'; base-uri 'none'; form-action 'none'"


def render_page(template: str, *, title: str, **values: Any) -> str:
    """A template of this folder, filled, with the style and the script that all pages share."""
    style, script = _asset("report.css"), _asset("report.js")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finalized)
    environment.globals.update(duration=duration, number=number, percent=percent, whisker=whisker)
    return environment.from_string(_asset(template)).render(
        title=title,
        policy=_POLICY.format(style=_sha256(style), script=_sha256(script)),
        style=Markup(style),
        script=Markup(script),
        written=time.strftime("%Y-%m-%d %H:%M"),
        **values,
    )


def write_page(path: Path, text: str) -> None:
    """Raises RunFolderError where `path` cannot be written."""
    try:
        write_atomically(path, text)
    except (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as e:
        raise RunFolderError(f"{path} cannot be written ({e.strerror}): name another place with --report") from None


def cut(text: str) -> str:
    """A text of tens of thousands of characters would make the page unusable: its start, and how much is missing."""
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}\n… ({len(text) - MAX_CHARACTERS} more characters)"


def _finalized(value: Any) -> Any:
    """Every value that the template prints goes through here: nothing shows a control character, or is endless."""
    return visible(cut(value)) if isinstance(value, str) and not isinstance(value, Markup) else value


def _asset(name: str) -> str:
    return (resources.files("magistral.show") / name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
