"""Bytes and seconds of the 24B, worked out by hand."""

from __future__ import annotations

import pytest

from magistral.models.sizes import MAGISTRAL_SMALL as SMALL
from magistral.pipeline.forecast import GPUS, generator_memory, host_memory, hosts, speeds_of, trainer_memory
from magistral.recipe_train import Lora, Rl, Runtime

RL = Rl(
    steps=1, group_size=16, n_batch=16, n_minibatch=16, n_async=16, eps_low=0.2, eps_high=0.3, temperature=1.0, max_tokens=1000,
    lr=1e-6, micro_batch_tokens=1000, recompute=True,
)  # fmt: skip
RUNTIME = Runtime(kind="ray", n_trainers=8, generator_gpus=2, trainer_gpus=1)
N = 23_572_403_200


def test_a_trained_weight_takes_16_bytes_over_all_ranks_and_a_frozen_one_two() -> None:
    assert trainer_memory(SMALL, GPUS["h100"], RUNTIME, RL).parts["weights, gradients, moments"] == 16 * N / 8
    lora = RL.model_copy(update={"lora": Lora(rank=32, alpha=64)})
    # of each layer: 5120 x 4096 and back, 5120 x 1024 twice, 5120 x 32768 three times
    added = 40 * 32 * (2 * (5120 + 4096) + 2 * (5120 + 1024) + 3 * (5120 + 32768))
    assert SMALL.n_trained(lora.lora) == added
    parts = trainer_memory(SMALL, GPUS["h100"], RUNTIME, lora).parts
    assert parts["weights, gradients, moments"] == pytest.approx((16 * added + 2 * N) / 8, abs=1)


def test_a_generator_s_gpus_share_weights_and_cache() -> None:
    parts = generator_memory(SMALL, GPUS["h100"], RUNTIME, n_slots=10, n_tokens=1000).parts
    assert parts["weights (bf16)"] == N
    assert parts["keys and values"] == 10 * 1000 * 2 * 40 * 8 * 128 * 2 / 2


def test_half_a_gpu_has_half_of_its_memory_and_of_its_speed() -> None:
    half = RUNTIME.model_copy(update={"generator_gpus": 0.5, "trainer_gpus": 0.5})
    whole = RUNTIME.model_copy(update={"generator_gpus": 1.0})
    gpu = GPUS["h200"]
    assert trainer_memory(SMALL, gpu, half, RL).limit == pytest.approx(trainer_memory(SMALL, gpu, whole, RL).limit / 2, abs=1)
    assert speeds_of(SMALL, gpu, half, RL).token_s == 2 * speeds_of(SMALL, gpu, whole, RL).token_s
    assert speeds_of(SMALL, gpu, half, RL).decode_s == 2 * speeds_of(SMALL, gpu, whole, RL).decode_s


def test_a_decode_step_reads_the_weights_once_and_a_training_token_costs_eight_operations_a_weight() -> None:
    speeds = speeds_of(SMALL, GPUS["h100"], RUNTIME, RL)
    assert speeds.decode_s == pytest.approx(2 * N / (2 * 3.35e12 * 0.7))
    assert speeds.token_s == pytest.approx(8 * N / (989e12 * 0.4))
    assert speeds.micro_s == pytest.approx(8 * N / 50e9)  # two gathers in bf16, a scatter in float32


@pytest.mark.parametrize(
    ("changes", "n_fetches"),
    [({"n_generators": 1, "n_trainers": 2}, 0), ({"n_generators": 4}, 1), ({"n_generators": 96, "n_trainers": 64}, 5)],
    ids=["one host: nothing is fetched", "one host fetches", "24 hosts: 1, 2, 4, 8, 9"],
)
def test_new_weights_go_through_the_hosts_memory_in_float32(changes: dict[str, int], n_fetches: int) -> None:
    speeds = speeds_of(SMALL, GPUS["h100"], RUNTIME.model_copy(update=changes), RL)
    # 4 bytes a weight sealed, put and checked, 2 rounded and sealed, at 10 GB/s; 4 at 5 GB/s for each time that hosts fetch
    assert speeds.broadcast_s == pytest.approx((3 * 4 * N + 2 * 2 * N) / 10e9 + n_fetches * 4 * N / 5e9)
    assert speeds.switch_s == pytest.approx(2 * 2 * N / 10e9)  # checked, and copied to the cards


@pytest.mark.parametrize(
    ("n_generators", "n_trainers", "lora", "own", "shared"),
    [
        (4, 0, False, 4 * 2, 2 * 4 + 4 * 2),
        (4, 0, True, 4 * 4 + 4 * 2, 4 + 2 * 4 + 4 * 2),
        (0, 8, False, 8 * 4 + 4, 4 + 2 * 4),
    ],
    ids=["generators", "generators that begin with the model", "ranks"],
)
def test_what_a_host_holds_in_bytes_a_weight(n_generators: int, n_trainers: int, lora: bool, own: int, shared: int) -> None:
    rl = RL.model_copy(update={"lora": Lora(rank=32, alpha=64)}) if lora else RL
    found = host_memory(SMALL, rl, n_generators=n_generators, n_trainers=n_trainers)
    assert (found.n_shared, found.total) == (shared * N, (own + shared) * N)


@pytest.mark.parametrize(
    ("n_generators", "n_trainers", "expected"),
    [(3, 2, [(3, 2)]), (96, 64, [(4, 0), (0, 8)])],
    ids=["all on one", "each kind alone"],
)
def test_a_host_has_eight_gpus(n_generators: int, n_trainers: int, expected: list[tuple[int, int]]) -> None:
    runtime = RUNTIME.model_copy(update={"n_generators": n_generators, "n_trainers": n_trainers})
    assert hosts(runtime) == expected
