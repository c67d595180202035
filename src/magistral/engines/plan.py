"""What of a model fits on a machine: sizes of weights and of keys and values, and the engine and flags to use.

All sizes are in bytes; shown, a GiB is 2**30 of them, which is also the "GB" by which cards are sold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from magistral.models.sizes import Sizes
from magistral.weights.stored import Stored

GIB = 2**30
WINDOWS = (8_192, 40_960, 131_072)
"""Tokens: a short talk, what the first Magistral is advised up to, the whole."""
GPU_SHARE, CPU_SHARE = 0.92, 0.85
"""Of the memory that an engine may take (vLLM's own default; chosen for a machine that does other things too)."""
OVERHEAD = GIB
"""Of an engine beside weights and cache: code, activations, logits (chosen: about what vLLM and llama.cpp show for 24B)."""
MAX_SLOTS = 8
"""Completions at once that we advise a server to take (chosen: what `magistral serve` takes unasked)."""
CACHE_BITS = {"f16": 16.0, "q8_0": 8.5, "q4_0": 4.5}
"""Bits of one number of a key or value, best first; the two last in llama.cpp's blocks of 32 with a scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A form in which the weights may be held."""

    name: str
    bits: float
    """Of one weight, scales included; of llama.cpp's mixtures as its own table gives them."""
    engine: str


ON_A_GPU = (Kind(name="bf16", bits=16, engine="vllm"), Kind(name="fp8", bits=8, engine="vllm"))
ON_A_CPU = (Kind(name="f16", bits=16, engine="llamacpp"),)
ANYWHERE = (
    Kind(name="int8 (Q8_0)", bits=8.5, engine="llamacpp"),
    Kind(name="Q6_K", bits=6.5625, engine="llamacpp"),
    Kind(name="Q5_K_M", bits=5.69, engine="llamacpp"),
    Kind(name="int4 (Q4_K_M)", bits=4.85, engine="llamacpp"),
)
"""Each best first, and finer than those of the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Example: Machine(memory=24 * GIB, n_gpus=1)"""

    memory: int
    """Of each GPU, or of the machine where it has none."""
    n_gpus: int = 0
    n_cores: int = 1

    @property
    def usable(self) -> int:
        """By weights and cache."""
        share = GPU_SHARE if self.n_gpus else CPU_SHARE
        n = max(1, self.n_gpus)
        return int(self.memory * n * share) - OVERHEAD * n

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of weights, best first."""
        return (*(ON_A_GPU if self.n_gpus else ON_A_CPU), *ANYWHERE)

    def __str__(self) -> str:
        size = f"{self.memory / GIB:.1f} GiB"
        if not self.n_gpus:
            return f"{self.n_cores} CPU cores, {size}"
        return f"one GPU of {size}" if self.n_gpus == 1 else f"{self.n_gpus} GPUs of {size} each"


def kind_of_file(tensors: Mapping[str, Stored], n_parameters: int) -> Kind:
    """Of a GGUF file, which is run as it is: the type of most of its numbers, and its true size."""
    n_by_type: Counter[str] = Counter()
    for tensor in tensors.values():
        n_by_type[tensor.kind] += tensor.n_bytes
    return Kind(name=n_by_type.most_common(1)[0][0], bits=8 * n_by_type.total() / n_parameters, engine="llamacpp")


def weight_bytes(sizes: Sizes, kind: Kind) -> int:
    return int(sizes.n_parameters * kind.bits / 8)


def cache_bytes(sizes: Sizes, n_tokens: int, cache: str = "f16") -> int:
    """Of the keys and values of so many tokens."""
    return int(2 * sizes.n_layers * sizes.n_kv_heads * sizes.head_dim * CACHE_BITS[cache] / 8 * n_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One way to run a model that fits."""

    kind: Kind
    cache: str
    window: int
    n_at_once: int
    """Completions of the whole window that fit at once."""
    n_gpus: int = 1
    """Among which vLLM shares the model."""


def fits(sizes: Sizes, machine: Machine, kind: Kind, window: int) -> Choice | None:
    """With the best cache that fits; None where none does. vLLM's caches are 16 or 8 bits."""
    n_gpus = n_sharing(sizes, machine) if kind.engine == "vllm" else 1
    usable = replace(machine, n_gpus=n_gpus).usable if kind.engine == "vllm" else machine.usable
    left = usable - weight_bytes(sizes, kind)
    for cache in CACHE_BITS:
        if kind.engine == "vllm" and cache == "q4_0":
            continue
        n = left // cache_bytes(sizes, window, cache)
        if n >= 1:
            return Choice(kind=kind, cache=cache, window=window, n_at_once=int(n), n_gpus=n_gpus)
    return None


def n_sharing(sizes: Sizes, machine: Machine) -> int:
    """GPUs among which vLLM can share a model: each takes as many heads, and as many key heads, as every other."""
    return max(n for n in range(1, max(1, machine.n_gpus) + 1) if sizes.n_heads % n == 0 == sizes.n_kv_heads % n)


def best(sizes: Sizes, machine: Machine, kinds: Sequence[Kind], window: int) -> Choice | None:
    """The best weights with a 16-bit cache, else with the best cache that fits at all; 16-bit keys go before finer weights
    (chosen: a rounded cache errs more the longer a model thinks)."""
    choices = [c for kind in kinds if (c := fits(sizes, machine, kind, window))]
    return min(choices, key=lambda c: list(CACHE_BITS).index(c.cache), default=None)


def command(choice: Choice, machine: Machine, model: str, *, version: str = "", flags: Sequence[str] = ()) -> str:
    """What to type: our own server where it does it, which off a GPU is all but rounded caches. `version`: of Magistral;
    `flags`: further ones for vLLM."""
    window = str(choice.window)
    if choice.kind.engine == "vllm":
        return " ".join(["vllm", "serve", model, "--max-model-len", window, *flags, *_vllm_flags(choice)])
    gguf = model if model.endswith(".gguf") else f"{model.rstrip('/').rsplit('/', 1)[-1]}.gguf"
    if not machine.n_gpus and choice.cache == "f16":
        told = ["--as", version] if version else []
        slots = str(min(choice.n_at_once, MAX_SLOTS))
        return " ".join(["magistral", "serve", gguf, "--engine", "llamacpp", "--window", window, "--slots", slots, *told])
    where = ["-ngl", "99"] if machine.n_gpus else []
    if choice.cache != "f16":
        where += ["-fa", "on", "-ctk", choice.cache, "-ctv", choice.cache]
    return " ".join(["llama-server", "-m", gguf, "-c", window, *where])


def mistral_flags(layout: str, *, native: bool, thinks: bool) -> tuple[str, ...]:
    """What vLLM must be told of a model with Mistral's own tokenizer, of that version. `native`: its weights are in Mistral's
    form too; `thinks`: in control tokens, for which the parser of thinking looks (Magistral 1.0 thinks in text)."""
    form = ("--config-format", "mistral", "--load-format", "mistral") if native else ()
    tools = ("--tool-call-parser", "mistral", "--enable-auto-tool-choice") if layout in ("v11", "v13") else ()
    return ("--tokenizer-mode", "mistral", *form, *tools, *(("--reasoning-parser", "mistral") if thinks else ()))


def _vllm_flags(choice: Choice) -> list[str]:
    flags = []
    if choice.kind.name == "fp8":
        flags += ["--quantization", "fp8"]
    if choice.cache != "f16":
        flags += ["--kv-cache-dtype", "fp8"]
    return flags if choice.n_gpus < 2 else [*flags, "--tensor-parallel-size", str(choice.n_gpus)]


def smallest_need(sizes: Sizes, machine: Machine, kinds: Sequence[Kind], window: int) -> int:
    """Memory that a machine of this sort would need at least."""
    kind = min(kinds, key=lambda k: k.bits)
    need = weight_bytes(sizes, kind) + cache_bytes(sizes, window, "q4_0")
    return int((need + OVERHEAD) / (GPU_SHARE if machine.n_gpus else CPU_SHARE))


def windows(sizes: Sizes) -> Sequence[int]:
    """Those of WINDOWS that the model has, and its own where it is shorter than all."""
    return [w for w in WINDOWS if w <= sizes.window] or [sizes.window]
