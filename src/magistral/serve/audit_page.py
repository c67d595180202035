"""The audit log as one HTML file that opens from the disc and loads nothing."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

STYLE = """body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #ddd;vertical-align:top}
code{font-size:.85em;word-break:break-all}pre{white-space:pre-wrap;margin:.3rem 0}summary{cursor:pointer}
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th,td{border-color:#444}}"""


def page(entries: Iterable[dict[str, Any]], *, head: str, fault: str, decode: Callable[[Sequence[int]], str] | None) -> str:
    """`entries` as `audit.entries` gives them, with the entry read. `decode`: tokens to text, where the model is at hand."""
    rows = "\n".join(_row(e, decode) for e in entries)
    state = f"Broken: {html.escape(fault)}" if fault else "Every entry follows the one before it and is signed."
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Audit log</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'"><style>{STYLE}</style>
<h1>Audit log</h1><p>{state} Head: <code>{head}</code></p>
<table><thead><tr><th>#<th>time<th>key<th>model<th>tokens<th>what</thead><tbody>{rows}</tbody></table></html>
"""


def _row(said: dict[str, Any], decode: Callable[[Sequence[int]], str] | None) -> str:
    entry, tokens = said["fields"], said["tokens"]
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry["at"]))
    n = f"{entry['prompt']['n']} + {' + '.join(str(c['n']) for c in entry['completions'])}"
    cells = [str(entry["seq"]), at, entry["key"], entry["model"], n]
    text = ""
    if tokens and decode:
        parts = [tokens["prompt"], *tokens["completions"]]
        text = "".join(f"<pre>{html.escape(decode(part))}</pre>" for part in parts)
    details = f"<details><summary>entry</summary><code>{html.escape(said['entry'])}</code>{text}</details>"
    return "<tr>" + "".join(f"<td>{html.escape(cell)}" for cell in cells) + f"<td>{details}</tr>"
