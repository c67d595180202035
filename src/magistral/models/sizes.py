"""The sizes of a dense model, read from a Hugging Face config.json or a GGUF file's fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from magistral.errors import ModelError

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

    def to_config(self) -> dict[str, Any]:
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
            "torch_dtype": "float32",
        }
        return config if self.family.startswith("qwen") else {**config, "attention_bias": self.attention_bias}


def sizes_from_config(config: dict[str, Any]) -> Sizes:
    """Raises ModelError for a family or a feature that the one model definition does not cover."""
    family = config.get("model_type", "")
    if family not in FAMILIES:
        raise ModelError(f"a model of family {family!r}; what is covered: {', '.join(FAMILIES)} (dense)")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ModelError(f"rope scaling {rope} is not covered")
    if config.get("sliding_window") and config.get("use_sliding_window", family == "mistral"):
        raise ModelError("sliding-window attention is not covered")
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


def sizes_from_gguf(fields: dict[str, Any], *, tied: bool) -> Sizes:
    """Raises ModelError for a family that is not covered or a field that is missing."""
    family = fields.get("general.architecture")
    if family not in FAMILIES:
        raise ModelError(f"a GGUF model of architecture {family!r}; what is covered: {', '.join(FAMILIES)} (dense)")

    def get(key: str) -> Any:
        if f"{family}.{key}" not in fields:
            raise ModelError(f"the GGUF file has no field '{family}.{key}'")
        return fields[f"{family}.{key}"]

    heads = get("attention.head_count")
    return Sizes(
        family=family,
        n_words=len(fields["tokenizer.ggml.tokens"]),
        dim=get("embedding_length"),
        n_layers=get("block_count"),
        n_heads=heads,
        n_kv_heads=get("attention.head_count_kv"),
        head_dim=fields.get(f"{family}.attention.key_length") or get("embedding_length") // heads,
        hidden_dim=get("feed_forward_length"),
        norm_eps=get("attention.layer_norm_rms_epsilon"),
        rope_theta=fields.get(f"{family}.rope.freq_base", 10000.0),
        window=get("context_length"),
        tied=tied,
        attention_bias=family == "qwen2",
        qk_norm=family == "qwen3",
    )
