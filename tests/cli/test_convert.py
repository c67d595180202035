"""`magistral convert`, as a person runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from magistral.cli.convert import command as convert
from magistral.cli.served import told_by
from magistral.errors import DiscFull, ModelError, RunFailed, UserError
from magistral.models.load import load_model, save_model
from magistral.models.transformer import Transformer
from magistral.text.tokens import byte_tokenizer


@pytest.fixture
def hf(tiny: Callable[..., Transformer], tmp_path: Path) -> Path:
    model = tiny(n_words=257)
    (tmp_path / "hf").mkdir()
    save_model(tmp_path / "hf", model, byte_tokenizer(), model.named_parameters())
    return tmp_path / "hf"


def test_it_says_what_it_wrote_and_what_stayed_plain(hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(str(hf), tmp_path / "m.gguf", kind="q8_0")
    said = capsys.readouterr().out.replace("\n", " ")
    assert "kept in a plain type: 2 matrices whose rows Q8_0 does not divide, as layers.0.mlp.down_proj.weight" in said
    assert "m.gguf: 23,744 parameters" in said
    assert load_model(str(tmp_path / "m.gguf"))[0].sizes.dim == 32


def test_the_prompt_beside_a_gguf_file_is_served_with_it(hf: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (hf / "SYSTEM_PROMPT.txt").write_text("Think.")
    convert(str(hf), tmp_path / "m.gguf")
    assert "SYSTEM_PROMPT.txt: the model's own" in capsys.readouterr().out.replace("\n", "")
    assert told_by(str(tmp_path / "m.gguf"), "magistral-small-2507") == "Think."


def test_k_quants_leave_nothing_but_the_file(hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "llama-quantize"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ncp "$1" "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    convert(str(hf), tmp_path / "out" / "m.gguf", kind="q4_k_m")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["m.gguf"]


def test_the_plain_file_is_taken_again_where_the_quantiser_failed(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, plain = tmp_path / "out" / "m.gguf", tmp_path / "out" / ".m.f16.gguf"
    program = tmp_path / "bin" / "llama-quantize"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho half > "$2"; exit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    with pytest.raises(RunFailed, match="quantiser left with 1"):
        convert(str(hf), out, kind="q4_k_m")
    written = plain.stat().st_ino
    with pytest.raises(RunFailed, match="quantiser left with 1"):
        convert(str(hf), out, kind="q4_k_m")
    assert plain.stat().st_ino == written, "it is the same file"
    (hf / "model.safetensors").touch()
    with pytest.raises(RunFailed, match="quantiser left with 1"):
        convert(str(hf), out, kind="q4_k_m")
    assert plain.stat().st_ino != written, "the model is another"
    program.write_text('#!/bin/sh\ncp "$1" "$2"\n')
    convert(str(hf), out, kind="q4_k_m")
    assert [p.name for p in out.parent.iterdir()] == ["m.gguf"]


def test_room_for_both_files_is_asked_for_before_either_is_written(
    hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magistral.models.convert.llama_quantise", lambda: ["true"])
    plain, quantised = 47_808, int(23_744 * 4.9 / 8)  # 2 bytes a weight of a matrix and 4 of a vector; 4.9 bits of each
    for free, refused in ((plain + quantised - 1, True), (plain + quantised, False)):
        monkeypatch.setattr("magistral.log.shutil.disk_usage", lambda _path, free=free: SimpleNamespace(free=free))
        with pytest.raises(DiscFull if refused else ModelError):  # `true` leaves no file
            convert(str(hf), tmp_path / "m.gguf", kind="q4_k_m")
        assert (tmp_path / ".m.f16.gguf").exists() != refused


@pytest.mark.parametrize(
    ("out", "kind", "error", "says"),
    [
        ("m", "q4_k_m", UserError, "type of GGUF files"),
        ("hf", "keep", UserError, "hf exists: name another OUT"),
        ("m", "q8_0", UserError, "Q8_0 cannot be written as hf"),
    ],
    ids=["K-quants as a folder", "over another model", "8-bit blocks as a folder"],
)
def test_what_cannot_be_is_said_before_anything_is_written(
    out: str, kind: str, error: type[Exception], says: str, hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("magistral.models.convert.llama_quantise", lambda: ["true"])
    with pytest.raises(error, match=says):
        convert(str(hf), tmp_path / out, kind=kind)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["hf"]


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model at nowhere"):
        convert("nowhere", tmp_path / "m")
