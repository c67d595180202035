"""The sizes of a dense model: read from and written as config.json, params.json or a GGUF file's fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from magistral.errors import ModelError
from magistral.recipe_train import Lora
from magistral.weights.read import Weights

MISTRAL_WINDOW = 131_072
"""Tokens, where params.json does not say (chosen: what the public configurations of Mistral Small 3.1 say)."""
MAX_LAYERS = 10_000
"""Over this a file is broken (chosen: the deepest published models have about 130)."""
FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    family: str
    n_words: int
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    """heads * head_dim need not be dim (Magistral Small: 32 * 128, dim 5120)."""
    hidden_dim: int
    norm_eps: float
    rope_theta: float
    window: int
    """Longest sequence, in tokens."""
    tied: bool
    """The output matrix is the embedding."""
    attention_bias: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        """Raises ModelError for numbers that no model has: files are not to be trusted."""
        for field in fields(self):
            value: Any = getattr(self, field.name)
            wanted: tuple[type, ...] = {"str": (str,), "bool": (bool,), "int": (int,), "float": (int, float)}[str(field.type)]
            sound = isinstance(value, wanted)
            if not sound or (field.type in ("int", "float") and not 0 < value < 2**40):
                raise ModelError(f"a model's {field.name} cannot be {value!r}")
        if self.n_layers > MAX_LAYERS:
            raise ModelError(f"a model's n_layers cannot be {self.n_layers}")
        if self.rope_theta < 1:
            raise ModelError(f"a model's rope_theta cannot be {self.rope_theta}")
        if self.n_heads % self.n_kv_heads or self.head_dim % 2:
            raise ModelError(f"{self.n_kv_heads} key heads for {self.n_heads} heads of {self.head_dim} do not fit")

    @property
    def n_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.shapes().values())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor under our names, in the order in which it is used; a tied output matrix is not there."""
        q_dim, kv_dim = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        layer: dict[str, tuple[int, ...]] = {"input_layernorm.weight": (self.dim,)}
        for part, n in (("q_proj", q_dim), ("k_proj", kv_dim), ("v_proj", kv_dim)):
            layer[f"self_attn.{part}.weight"] = (n, self.dim)
            if self.attention_bias:
                layer[f"self_attn.{part}.bias"] = (n,)
        layer["self_attn.o_proj.weight"] = (self.dim, q_dim)
        if self.attention_bias and self.family == "llama":
            layer["self_attn.o_proj.bias"] = (self.dim,)
        if self.qk_norm:
            layer |= {"self_attn.q_norm.weight": (self.head_dim,), "self_attn.k_norm.weight": (self.head_dim,)}
        layer["post_attention_layernorm.weight"] = (self.dim,)
        layer |= {f"mlp.{part}_proj.weight": (self.hidden_dim, self.dim) for part in ("gate", "up")}
        layer["mlp.down_proj.weight"] = (self.dim, self.hidden_dim)
        shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (self.n_words, self.dim)}
        for i in range(self.n_layers):
            shapes |= {f"layers.{i}.{name}": shape for name, shape in layer.items()}
        shapes["norm.weight"] = (self.dim,)
        return shapes if self.tied else {**shapes, "lm_head.weight": (self.n_words, self.dim)}

    def n_trained(self, lora: Lora | None) -> int:
        """Parameters that are trained: all, or LoRA's additions to the seven matrices of a layer."""
        if lora is None:
            return self.n_parameters
        matrices = [s for name, s in self.shapes().items() if name.startswith("layers.0.") and len(s) == 2]
        n_layers = min(lora.last_layers or self.n_layers, self.n_layers)
        return n_layers * sum(lora.rank * sum(shape) for shape in matrices)

    def to_config(self, dtype: str = "float32") -> dict[str, Any]:
        """A Hugging Face config.json."""
        names = {
            "llama": "LlamaForCausalLM",
            "mistral": "MistralForCausalLM",
            "qwen2": "Qwen2ForCausalLM",
            "qwen3": "Qwen3ForCausalLM",
        }
        config = {
            "architectures": [names[self.family]],
            "model_type": self.family,
            "vocab_size": self.n_words,
            "hidden_size": self.dim,
            "num_hidden_layers": self.n_layers,
            "num_attention_heads": self.n_heads,
            "num_key_value_heads": self.n_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.hidden_dim,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "max_position_embeddings": self.window,
            "tie_word_embeddings": self.tied,
            "hidden_act": "silu",
            "sliding_window": None,
            "torch_dtype": dtype,
        }
        return config if self.family.startswith("qwen") else {**config, "attention_bias": self.attention_bias}

    def to_params(self) -> dict[str, Any]:
        """Mistral's params.json. Raises ModelError for what that format has no word for."""
        if self.attention_bias or self.qk_norm:
            raise ModelError(f"Mistral's format knows no biases and no normalised queries, and this {self.family} model has them")
        return {
            "dim": self.dim,
            "n_layers": self.n_layers,
            "head_dim": self.head_dim,
            "hidden_dim": self.hidden_dim,
            "n_heads": self.n_heads,
            "n_kv_heads": self.n_kv_heads,
            "rope_theta": self.rope_theta,
            "norm_eps": self.norm_eps,
            "vocab_size": self.n_words,
            "max_position_embeddings": self.window,
            "tied_embeddings": self.tied,
        }

    def to_gguf(self) -> dict[str, int | float | str]:
        """A GGUF file's fields; llama.cpp knows Mistral's dense models as llama."""
        family = "llama" if self.family == "mistral" else self.family
        return {
            "general.architecture": family,
            f"{family}.vocab_size": self.n_words,
            f"{family}.context_length": self.window,
            f"{family}.embedding_length": self.dim,
            f"{family}.block_count": self.n_layers,
            f"{family}.feed_forward_length": self.hidden_dim,
            f"{family}.attention.head_count": self.n_heads,
            f"{family}.attention.head_count_kv": self.n_kv_heads,
            f"{family}.attention.key_length": self.head_dim,
            f"{family}.attention.value_length": self.head_dim,
            f"{family}.rope.dimension_count": self.head_dim,
            f"{family}.rope.freq_base": self.rope_theta,
            f"{family}.attention.layer_norm_rms_epsilon": self.norm_eps,
        }


MAGISTRAL_SMALL = Sizes(
    family="mistral", n_words=131_072, dim=5120, n_layers=40, n_heads=32, n_kv_heads=8, head_dim=128, hidden_dim=32_768,
    norm_eps=1e-5, rope_theta=1e9, window=131_072, tied=False,
)  # fmt: skip
"""The text part of all three versions: 23,572,403,200 parameters, as published for 2506 and 2507."""
SIZES = {f"magistral-small-{version}": MAGISTRAL_SMALL for version in ("2506", "2507", "2509")}
"""Of models that are known by name, for planning before anything is fetched. A model's own files go before these."""
BASES = {f"Mistral-Small-{version}": MAGISTRAL_SMALL for version in ("3.1-24B-Instruct-2503", "3.2-24B-Instruct-2506")}
"""What Magistral Small was made from (its model cards), by the last part of the repository's name."""


def sizes_from_config(config: dict[str, Any]) -> Sizes:
    """Raises ModelError for a family or a feature that the one model definition does not cover."""
    if config.get("model_type") == "mistral3" and isinstance(config.get("text_config"), dict):  # the text part of one that sees
        config = {"tie_word_embeddings": config.get("tie_word_embeddings", False), **config["text_config"]}
    if config.get("quantization_config"):
        raise ModelError(f"config.json: quantised by {config['quantization_config'].get('quant_method')!r}, which is not covered")
    family = config.get("model_type", "")
    if family not in FAMILIES:
        raise ModelError(f"a model of family {family!r}; what is covered: {', '.join(FAMILIES)} (dense)")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ModelError(f"rope scaling {rope} is not covered")
    if config.get("sliding_window") and config.get("use_sliding_window", family == "mistral"):
        raise ModelError("sliding-window attention is not covered")
    if (config.get("hidden_act") or "silu") not in ("silu", "swish"):  # two names of one function
        raise ModelError(f"config.json: hidden_act={config['hidden_act']!r} is not covered (silu is)")
    try:
        heads = config["num_attention_heads"]
        return Sizes(
            family=family,
            n_words=config["vocab_size"],
            dim=config["hidden_size"],
            n_layers=config["num_hidden_layers"],
            n_heads=heads,
            n_kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            hidden_dim=config["intermediate_size"],
            norm_eps=config["rms_norm_eps"],
            rope_theta=config.get("rope_theta") or rope.get("rope_theta", 10000.0),
            window=config["max_position_embeddings"],
            tied=config.get("tie_word_embeddings", False),
            attention_bias=family == "qwen2" or (family == "llama" and config.get("attention_bias", False)),
            qk_norm=family == "qwen3",
        )
    except KeyError as e:
        raise ModelError(f"config.json has no {e.args[0]!r}") from None


def sizes_from_gguf(found: dict[str, Any], *, tied: bool) -> Sizes:
    """From a GGUF file's fields. Raises ModelError for a family that is not covered or a field that is missing."""
    family = found.get("general.architecture")
    if family not in FAMILIES:
        raise ModelError(f"a GGUF model of architecture {family!r}; what is covered: {', '.join(FAMILIES)} (dense)")

    def get(key: str) -> Any:
        if f"{family}.{key}" not in found:
            raise ModelError(f"the GGUF file has no field '{family}.{key}'")
        return found[f"{family}.{key}"]

    if found.get(f"{family}.rope.scaling.type", "none") != "none":
        raise ModelError(f"rope scaling {found[f'{family}.rope.scaling.type']!r} is not covered")
    heads = get("attention.head_count")
    return Sizes(
        family=family,
        n_words=len(found.get("tokenizer.ggml.tokens", ())),
        dim=get("embedding_length"),
        n_layers=get("block_count"),
        n_heads=heads,
        n_kv_heads=get("attention.head_count_kv"),
        head_dim=found.get(f"{family}.attention.key_length") or get("embedding_length") // heads,
        hidden_dim=get("feed_forward_length"),
        norm_eps=get("attention.layer_norm_rms_epsilon"),
        rope_theta=found.get(f"{family}.rope.freq_base", 10000.0),
        window=get("context_length"),
        tied=tied,
        attention_bias=family == "qwen2",
        qk_norm=family == "qwen3",
    )


def sizes_from_params(params: dict[str, Any]) -> Sizes:
    """From Mistral's params.json. Raises ModelError for what the one model definition does not cover."""
    for key in ("moe", "yarn", "llama_4_scaling", "quantization", "q_lora_rank"):
        if params.get(key):
            raise ModelError(f"params.json: {key} is not covered (dense models in bf16 are)")
    if params.get("sliding_window"):
        raise ModelError("params.json: sliding-window attention is not covered")
    try:
        return Sizes(
            family="mistral",
            n_words=params["vocab_size"],
            dim=params["dim"],
            n_layers=params["n_layers"],
            n_heads=params["n_heads"],
            n_kv_heads=params.get("n_kv_heads") or params["n_heads"],
            head_dim=params.get("head_dim") or params["dim"] // params["n_heads"],
            hidden_dim=params["hidden_dim"],
            norm_eps=params["norm_eps"],
            rope_theta=params.get("rope_theta", 10000.0),
            window=params.get("max_position_embeddings") or params.get("max_seq_len") or MISTRAL_WINDOW,
            tied=params.get("tied_embeddings", False),
        )
    except KeyError as e:
        raise ModelError(f"params.json has no {e.args[0]!r}") from None


def sizes_of(weights: Weights) -> Sizes:
    """Of a model in any format."""
    try:
        if weights.form == "gguf":
            sizes = sizes_from_gguf(weights.config, tied="lm_head.weight" not in weights.tensors)
            return replace(sizes, attention_bias="layers.0.self_attn.q_proj.bias" in weights.tensors)
        return sizes_from_params(weights.config) if weights.form == "mistral" else sizes_from_config(weights.config)
    except (TypeError, ValueError, AttributeError, ZeroDivisionError) as e:  # a list where a number should be
        raise ModelError(f"{weights.path}: its sizes cannot be read: {e}") from None


def check_tensors(sizes: Sizes, weights: Weights) -> None:
    """Raises ModelError unless the files hold every tensor of such a model, in its shape, and none besides."""
    wanted = sizes.shapes()
    for name, tensor in weights.tensors.items():
        if name == "lm_head.weight" and sizes.tied:
            continue
        if name not in wanted:
            raise ModelError(f"{weights.path} has a tensor {name!r} that a {sizes.family} model has not")
        if tensor.shape != wanted[name]:
            source = {"hf": "config.json says", "mistral": "params.json says", "gguf": "its fields say"}[weights.form]
            raise ModelError(f"{weights.path}: {name} has shape {tensor.shape}, {source} {wanted[name]}")
    missing = sorted(wanted.keys() - weights.tensors.keys())
    if missing:
        raise ModelError(f"{weights.path} lacks {len(missing)} tensors, as {missing[0]}: the model is incomplete")
