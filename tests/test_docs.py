"""The documents say what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
PACKAGE = ROOT / "src" / "magistral"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_every_link_to_a_file_of_ours_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


@pytest.mark.parametrize("document", ["map.md", "flow.md"])
def test_every_file_that_the_map_and_the_flow_name_is_there(document: str) -> None:
    named = re.findall(r"`([a-z_]+/[a-z_/]*[a-z_]+\.py|[a-z_]+\.py)`", (ROOT / "docs" / document).read_text(encoding="utf-8"))
    assert named
    assert [name for name in named if not (PACKAGE / name).exists()] == []


def test_every_room_is_on_the_map() -> None:
    text = (ROOT / "docs" / "map.md").read_text(encoding="utf-8")
    rooms = [path.name for path in PACKAGE.iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    assert [room for room in rooms if f"`{room}/`" not in text] == []
