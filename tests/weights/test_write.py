"""Files written tensor by tensor: whole or not there, and taken up again where they stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from magistral.errors import UserError
from magistral.weights import write
from magistral.weights.safetensors import read_header
from magistral.weights.write import Part, Target, finish, shard_index, shards, unfinished_folder, write_parts

TENSORS = {name: np.full((4, 8), i, dtype=np.float32) for i, name in enumerate("abcde")}


def nothing(_n: int) -> None:
    pass


@pytest.fixture
def targets(tmp_path: Path) -> list[Target]:
    save_file(TENSORS, tmp_path / "in.safetensors")
    found = read_header(tmp_path / "in.safetensors")
    return [Target(source=found[name], name=name, kind="F32") for name in TENSORS]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is written after every tensor."""
    monkeypatch.setattr(write, "SYNC_BYTES", 1)


def stopping_after(n: int) -> Callable[[int], None]:
    left = [n]

    def advance(_n: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    return advance


def write_all(out: Path, parts: list[Part], advance: Callable[[int], None] = nothing) -> None:
    with unfinished_folder(out) as folder:
        write_parts(folder, parts, advance)
        finish(folder, out)


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [(10_000, [5]), (256, [2, 2, 1]), (257, [2, 2, 1]), (128, [1] * 5), (1, [1] * 5)],
    ids=["one file", "just two a file", "not quite three", "one a file", "none fits: one a file all the same"],
)
def test_tensors_are_shared_out_over_files(limit: int, sizes: list[int], targets: list[Target]) -> None:
    parts = shards(targets, "model", limit=limit)
    assert [len(part.targets) for part in parts] == sizes
    n = len(sizes)
    assert parts[-1].name == ("model.safetensors" if n == 1 else f"model-{n:05}-of-{n:05}.safetensors")
    index = json.loads(shard_index(parts))
    assert index["metadata"] == {"total_size": 640}
    assert list(index["weight_map"]) == list(TENSORS)


def test_what_is_written_is_what_was_read(targets: list[Target], tmp_path: Path) -> None:
    seen: list[int] = []
    write_all(tmp_path / "out", shards(targets, "model", limit=256), seen.append)
    found = {k: v for file in (tmp_path / "out").glob("*.safetensors") for k, v in load_file(file).items()}
    assert {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in TENSORS.items()}
    assert sum(seen) == 640
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.safetensors", "out"]


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("n", [0, 1, 2, 4])
def test_one_cut_short_has_no_name_and_goes_on_where_it_stopped(n: int, targets: list[Target], tmp_path: Path) -> None:
    parts = shards(targets, "model", limit=256)
    with pytest.raises(KeyboardInterrupt):
        write_all(tmp_path / "out", parts, stopping_after(n))
    assert not (tmp_path / "out").exists()
    journal = tmp_path / ".out.partial" / write.JOURNAL
    assert (json.loads(journal.read_text())["done"] if n else journal.exists()) == n
    if n:  # what is done is not read again
        first = tmp_path / ".out.partial" / parts[0].name
        data = bytearray(first.read_bytes())
        data[parts[0].places()[0]] = 99
        first.write_bytes(data)
    write_all(tmp_path / "out", parts)
    found = {k: v for file in (tmp_path / "out").glob("*.safetensors") for k, v in load_file(file).items()}
    assert (found["a"].tobytes()[0] == 99) == bool(n)
    assert all(found[k].tolist() == TENSORS[k].tolist() for k in "bcde")


@pytest.mark.usefixtures("eager")
def test_one_killed_while_it_began_a_file_begins_that_file_again(targets: list[Target], tmp_path: Path) -> None:
    parts = shards(targets, "model", limit=256)
    with pytest.raises(KeyboardInterrupt):
        write_all(tmp_path / "out", parts, stopping_after(2))
    begun = tmp_path / ".out.partial" / parts[1].name
    begun.unlink()
    begun.with_name(f".{begun.name}.new").write_bytes(parts[1].header[:10])
    write_all(tmp_path / "out", parts)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [part.name for part in parts]
    assert load_file(tmp_path / "out" / parts[1].name)["c"].tolist() == TENSORS["c"].tolist()


@pytest.mark.usefixtures("eager")
def test_what_another_conversion_left_is_not_gone_on_with(targets: list[Target], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_all(tmp_path / "out", shards(targets, "model", limit=256), stopping_after(3))
    write_all(tmp_path / "out", shards(targets[::-1], "model", limit=10_000))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["model.safetensors"]
    assert load_file(tmp_path / "out" / "model.safetensors")["a"].tolist() == TENSORS["a"].tolist()


@pytest.mark.usefixtures("eager")
def test_a_source_that_has_changed_is_read_anew(targets: list[Target], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_all(tmp_path / "out", shards(targets, "model", limit=10_000), stopping_after(3))
    save_file({k: v + 1 for k, v in TENSORS.items()}, tmp_path / "in.safetensors")
    write_all(tmp_path / "out", shards(targets, "model", limit=10_000))
    assert load_file(tmp_path / "out" / "model.safetensors")["a"].tolist() == (TENSORS["a"] + 1).tolist()


@pytest.mark.parametrize("journal", ["", "{", "[]", '{"done": 3}'])
def test_a_journal_that_cannot_be_read_means_to_begin_anew(journal: str, targets: list[Target], tmp_path: Path) -> None:
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / write.JOURNAL).write_text(journal)
    write_all(tmp_path / "out", shards(targets, "model", limit=10_000))
    assert len(load_file(tmp_path / "out" / "model.safetensors")) == 5


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out exists: name another OUT"), unfinished_folder(tmp_path / "out"):
        pass


def test_two_processes_do_not_write_the_same_model(tmp_path: Path) -> None:
    with (
        unfinished_folder(tmp_path / "out"),
        pytest.raises(UserError, match="another process is writing"),
        unfinished_folder(tmp_path / "out"),
    ):
        pass


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), unfinished_folder(tmp_path / "file" / "out"):
        pass


def test_tensors_stand_at_multiples_of_the_alignment(targets: list[Target]) -> None:
    part = Part(name="m", header=b"x" * 64, targets=tuple(targets[:3]), alignment=96)
    assert part.places() == [64, 64 + 192, 64 + 384, 64 + 576]  # 128 bytes each, up to the next multiple of 96
