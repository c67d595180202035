"""What a recipe asks of GPUs, before one is there: bytes on each, and seconds of each part of the work.

Arithmetic from the model's sizes and the card's data sheet; the shares of a card's peak that code reaches are chosen, and said.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, exp, log2

from magistral.engines.plan import GIB, GPU_SHARE, OVERHEAD, cache_bytes
from magistral.models.sizes import Sizes
from magistral.recipe_train import Rl, Runtime

BANDWIDTH_SHARE, DECODE_SHARE, TRAIN_SHARE = 0.7, 0.5, 0.4
"""Of a card's peak: bytes a second and operations a second in decoding, operations a second in training (chosen: what vLLM and
FSDP2 are commonly seen to reach with dense models)."""
HEAD_ROWS = 1024
"""Places whose logits the trainer holds at once."""
MEDIAN_SHARE, SIGMA = 0.2, 0.7
"""Lengths are log-normal, cut at the longest completion allowed: the median's share of it, and the logarithm's standard deviation
(chosen: then the longest of a group of 16 is about 5 times its shortest or more, as in section 3 of the paper)."""
N_PROMPT = 400
"""Tokens (chosen: the system prompt and a problem)."""
VERIFY_S = 0.02
"""Seconds for a completion (chosen: a mathematical answer's comparison in a warm process)."""

GPUS_OF_HOST = 8
"""(chosen: as the SXM forms are built in.)"""
HOST_SPEED, HOST_LINK = 10e9, 5e9
"""Bytes a second of one process that copies or checks what lies in memory, and of Ray between two hosts (chosen: a core's share
of the memory; a few streams of TCP)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """From the vendor's data sheets (SXM forms)."""

    memory: int
    flops: float
    """bf16 operations a second, dense."""
    bandwidth: float
    """Of its memory, bytes a second."""
    link: float
    """Between GPUs of different hosts, bytes a second (chosen: one 400 Gbit/s port for each; 200 for A100)."""


GPUS = {
    "a100": Gpu(memory=80 * GIB, flops=312e12, bandwidth=2.039e12, link=25e9),
    "h100": Gpu(memory=80 * GIB, flops=989e12, bandwidth=3.35e12, link=50e9),
    "h200": Gpu(memory=141 * 10**9, flops=989e12, bandwidth=4.8e12, link=50e9),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Speeds:
    """Of one generator, one trainer's rank, one verifier; measured, or from `speeds_of`."""

    decode_s: float
    """A decode step of nothing: the weights are read."""
    row_s: float
    """More for each completion in it."""
    cached_s: float
    """More for each token in the cache."""
    token_s: float
    """Training, for each token of a micro-batch."""
    micro_s: float = 0.0
    """Least seconds of a micro-batch: gathering weights takes so long, however few its tokens are."""
    optimizer_s: float = 0.0
    broadcast_s: float = 0.0
    switch_s: float = 0.0
    """For which writing stands still when new weights have come."""
    verify_s: float = VERIFY_S
    """A completion."""


def speeds_of(sizes: Sizes, gpu: Gpu, runtime: Runtime, rl: Rl) -> Speeds:
    """A training token costs 2 operations a weight forward, as many for the gradients of what goes in, as many for those of the
    weights that are trained, and 2 again where activations are computed again; attention's share is left out (under a tenth at
    32,000 tokens of the 24B). FSDP2 gathers the weights in bf16 twice for a micro-batch and scatters gradients in float32.

    New weights go through the hosts' memory in float32: the first rank gathers and seals them and puts them into Ray's store;
    hosts with generators fetch them from those that have them, twice as many each time; each generator checks them, rounds them
    into a file and seals that. Writing stands still while its server checks the file and copies it to its cards."""
    n, n_trained = sizes.n_parameters, sizes.n_trained(rl.lora)
    operations = n * (4 + 2 * rl.recompute) + 2 * n_trained
    moved = 4 * (n + n_trained) if runtime.n_trainers > 1 else 0.0
    sent, file = 4 * n, 2 * n
    on_host = (3 * sent + 2 * file) / HOST_SPEED
    read = gpu.bandwidth * BANDWIDTH_SHARE * runtime.generator_gpus
    return Speeds(
        decode_s=2 * n / read,
        row_s=2 * n / (gpu.flops * DECODE_SHARE * runtime.generator_gpus),
        cached_s=cache_bytes(sizes, 1) / read,
        token_s=operations / (gpu.flops * TRAIN_SHARE * runtime.trainer_gpus),
        micro_s=moved / gpu.link,
        optimizer_s=28 * n_trained / runtime.n_trainers / (gpu.bandwidth * BANDWIDTH_SHARE),
        broadcast_s=on_host + ceil(log2(1 + hosts_that_fetch(runtime))) * sent / HOST_LINK,
        switch_s=2 * file / HOST_SPEED,
    )


def hosts_that_fetch(runtime: Runtime) -> int:
    """Hosts with generators and without the trainer's first rank."""
    n_writing, n_training = runtime.n_generators * runtime.generator_gpus, runtime.n_trainers * runtime.trainer_gpus
    return 0 if n_writing + n_training <= GPUS_OF_HOST else ceil(n_writing / GPUS_OF_HOST)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMemory:
    """Bytes of a host's own memory, at the most."""

    parts: dict[str, int]
    shared: dict[str, int]
    """In /dev/shm, as Ray's store is."""

    @property
    def total(self) -> int:
        return sum(self.parts.values()) + self.n_shared

    @property
    def n_shared(self) -> int:
        return sum(self.shared.values())


def host_memory(sizes: Sizes, rl: Rl, *, n_generators: int, n_trainers: int) -> HostMemory:
    """Of a host with so many generators (vLLM's) and ranks of the trainer, with room for the first. Verifiers take little.

    A rank begins with the whole model in float32, until it is sharded; so does a generator where LoRA is trained, since it is
    sent the changed matrices alone (counted here as all of them)."""
    whole = 4 * sizes.n_parameters
    n_whole = n_trainers + (n_generators if rl.lora is not None else 0)
    parts = {
        "models to begin with (float32)": n_whole * whole,
        "gathered by the first rank": whole if n_trainers else 0,
        "rounded by generators": n_generators * whole // 2,
    }
    shared = {
        "store: the model to begin with": whole if n_whole else 0,
        "store: two versions": 2 * whole,
        "files for vLLM": n_generators * whole // 2,
    }
    return HostMemory(parts=parts, shared=shared)


def hosts(runtime: Runtime) -> list[tuple[int, int]]:
    """Generators and ranks on each kind of full host: all on one, or each kind alone, which is the most that a host may get."""
    n_writing, n_training = runtime.n_generators * runtime.generator_gpus, runtime.n_trainers * runtime.trainer_gpus
    if n_writing + n_training <= GPUS_OF_HOST:
        return [(runtime.n_generators, runtime.n_trainers)]
    most_writing = min(runtime.n_generators, max(1, int(GPUS_OF_HOST / runtime.generator_gpus)))
    return [(most_writing, 0), (0, min(runtime.n_trainers, max(1, int(GPUS_OF_HOST / runtime.trainer_gpus))))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one GPU, or on the part of it that is asked for."""

    parts: dict[str, int]
    limit: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        return self.total <= self.limit


def mean_held(rl: Rl) -> float:
    """Tokens in the cache of a completion, in the mean over its life: its prompt and half of what it will be (long ones live
    longer: E[n^2] / 2 E[n])."""
    return N_PROMPT + MEDIAN_SHARE * rl.max_tokens * exp(1.5 * SIGMA**2) / 2


def generator_memory(sizes: Sizes, gpu: Gpu, runtime: Runtime, *, n_slots: int, n_tokens: float) -> Memory:
    """`n_tokens`: mean of a completion's prompt and what is written of it, over its life. A generator's GPUs share all evenly."""
    n_gpus = max(1.0, runtime.generator_gpus)
    cache = cache_bytes(sizes, round(n_slots * n_tokens))
    parts = {"weights (bf16)": 2 * sizes.n_parameters / n_gpus, "keys and values": cache / n_gpus, "engine": OVERHEAD}
    return Memory(parts={name: round(part) for name, part in parts.items()}, limit=_limit(gpu, runtime.generator_gpus))


def trainer_memory(sizes: Sizes, gpu: Gpu, runtime: Runtime, rl: Rl) -> Memory:
    """Of one rank. A trained weight takes 16 bytes (master, gradient and two moments in float32), a frozen one 2; two layers are
    whole at a time, as are embedding and output, in bf16, and the largest gradient before it is scattered, in float32."""
    n, t = sizes.n_parameters, rl.micro_batch_tokens
    frozen = 0 if rl.lora is None else 2 * n
    ends = sizes.n_words * sizes.dim * (1 if sizes.tied else 2)
    layer = (n - ends) // sizes.n_layers
    heads = (2 * sizes.n_heads + 2 * sizes.n_kv_heads) * sizes.head_dim
    inside = 2 * t * (4 * sizes.dim + 2 * heads + 3 * sizes.hidden_dim)
    kept = 2 * t * sizes.dim * sizes.n_layers + inside if rl.recompute else inside * sizes.n_layers
    whole = 2 * (2 * layer + ends) + (4 * max(ends, layer) if rl.lora is None else 0)
    parts = {
        "weights, gradients, moments": (16 * sizes.n_trained(rl.lora) + frozen) / runtime.n_trainers,
        "gathered": whole,
        "activations": kept,
        "mask": 5 * t * t,
        "logits": 12 * min(t, HEAD_ROWS) * sizes.n_words,
    }
    return Memory(parts={name: round(part) for name, part in parts.items()}, limit=_limit(gpu, runtime.trainer_gpus))


def _limit(gpu: Gpu, n_gpus: float) -> int:
    return int(gpu.memory * GPU_SHARE * min(1.0, n_gpus))
