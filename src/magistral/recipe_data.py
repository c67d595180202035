"""The sections of a recipe that say how problems and traces come about: [curation] and [distill].

A string under a field says what it is and where its default comes from ("paper" is Magistral's report, arXiv 2506.10910).
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TARGETS = ("fr", "es", "it", "de", "zh", "ru")
"""Languages of translated problems (paper, section 2.2.4)."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Asked(Section):
    """A model that is asked for text, and how."""

    model: str
    """A model folder, a .gguf file, `smollm2`, or an OpenAI- or Mistral-style endpoint as NAME=URL, as
    "medium=https://api.mistral.ai/v1#magistral-medium-latest"; its key is read from the environment."""
    system: str = ""
    """What the model is told first."""
    temperature: float = Field(default=0.7, ge=0)
    """Paper, section 5.1."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Paper, section 5.1, for math."""
    max_tokens: int = Field(gt=0)
    n_parallel: int = Field(default=16, gt=0)
    """Completions under way at once. Chosen: what public endpoints allow."""
    budget: float | None = Field(default=None, gt=0)
    """The most that may be spent on this model in a run, over all stages that ask it in this way, in the currency of the
    prices; absent: no limit."""
    price_in: float = Field(default=0.0, ge=0)
    """For a million tokens of prompts."""
    price_out: float = Field(default=0.0, ge=0)
    """For a million tokens of completions."""

    @model_validator(mode="after")
    def _budget_has_prices(self) -> Self:
        if self.budget is not None and not (self.price_in or self.price_out):
            raise ValueError(f"budget={self.budget:g} needs price_in and price_out: without them nothing costs anything")
        return self


class Difficulty(Section):
    """Two passes (paper, section 4.1): a first model grades; a grader learns from what is left and grades the whole set anew."""

    first: Asked
    n_completions: int = Field(default=16, gt=1)
    """Of each problem. Paper, section 4.1."""
    too_easy: float = Field(default=0.9, gt=0, le=1)
    """Pass rate from which a problem is dropped. Chosen: the paper says "high", and publishes no number."""
    majority: float = Field(default=0.5, ge=0.5, lt=1)
    """Share of the answers that must agree on one that is not the reference for the problem to be dropped. Paper: a majority."""
    grader: Asked | None = None
    """Who grades the whole set again; absent: the first pass decides. `model = "rl"`: this recipe's model, trained by [rl]
    on what the first pass left."""


class Programs(Section):
    """Of code problems (paper, section 4.2)."""

    agreement: float = Field(default=0.7, gt=0.5, le=1)
    """Share of the solutions that must give one output, those that do not start among them. Chosen: the paper publishes no
    number."""
    n_least: int = Field(default=3, gt=0)
    """Tests that a problem needs in the end. Chosen: the paper says "enough"."""
    writer: Asked | None = None
    """Who writes inputs where tests are missing; absent: nobody."""
    both_languages: bool = True
    """Ask each problem of programs once for Python and once for C++. Paper, section 4.2."""


class Translation(Section):
    translator: Asked
    share: float = Field(default=0.1, gt=0, le=1)
    """Of the English problems, over all languages. Paper, section 2.2.4."""
    n_checks: int = Field(default=4, ge=0)
    """Completions of the translated problem, one of which must reach the reference; 0: only formulas and numbers are compared.
    Chosen: the paper publishes no check."""


class Curation(Section):
    files: tuple[str, ...] = ()
    """The raw problems, in this order: JSONL, CSV, TSV or Parquet, or data sets of a hub as hf:OWNER/NAME@REVISION."""
    benchmarks: tuple[str, ...] = ()
    """Whose problems must not be trained on: files, or names that `magistral eval` knows (then `data` says where they lie)."""
    data: str = ""
    """The folder of the benchmarks that are named."""
    near: float = Field(default=0.7, gt=0, le=1)
    """Share of three-word runs in common from which two problems with the same numbers are one. Chosen."""
    n_gram: int = Field(default=8, gt=1)
    """Words of the runs that are looked for in benchmarks. Chosen: shorter than the usual 10 to 13, since problems are short."""
    overlap: float = Field(default=0.5, gt=0, le=1)
    """Share of a benchmark problem's runs that make another the same problem. Chosen."""
    difficulty: Difficulty | None = None
    tests: Programs = Programs()
    translation: Translation | None = None
    budget: float | None = Field(default=None, gt=0)
    """The most that a run may spend on all models together; absent: no limit but each model's own."""
    pools: tuple[float, ...] = (0.6, 0.3)
    """Pass rates, falling, at which the pools of the curriculum are cut, easiest first. Chosen: the paper moves from easier to
    harder problems and publishes no cut."""

    @model_validator(mode="after")
    def _pools_fall(self) -> Self:
        if list(self.pools) != sorted(set(self.pools), reverse=True) or not all(0 < p < 1 for p in self.pools):
            raise ValueError(f"pools={list(self.pools)} must fall and lie between 0 and 1, as [0.6, 0.3]")
        return self

    @property
    def asked(self) -> dict[str, Asked]:
        """Whom each stage asks that asks anybody, by its name."""
        found = {"tests-written": self.tests.writer}
        if self.difficulty:
            first, grader = self.difficulty.first, self.difficulty.grader
            found |= {"first-pass": first, "second-pass": grader} if grader else {"difficulty": first}
        if self.translation:
            translator = self.translation.translator
            found["translation"] = translator
            if self.translation.n_checks:
                found["translation-check"] = self.difficulty.first if self.difficulty else translator
        return {name: asked for name, asked in found.items() if asked is not None}

    @model_validator(mode="after")
    def _budget_has_prices(self) -> Self:
        for name, asked in self.asked.items():
            if self.budget is not None and "=http" in asked.model and not (asked.price_in or asked.price_out):
                raise ValueError(
                    f"budget={self.budget:g} needs price_in and price_out of {asked.model}, whom {name} asks: "
                    "without them it costs nothing"
                )
        return self


class Distill(Section):
    """Completions of a teacher become traces to learn from (paper, section 5.3)."""

    teacher: Asked
    """`--teacher` may name another model, which is asked in the same way."""
    licence: str
    """Under which the teacher's maker lets its completions be used; written beside each trace."""
    n_completions: int = Field(default=4, gt=0)
    """Asked for of each problem. Chosen."""
    most_per_problem: int = Field(default=2, gt=0)
    """Traces kept of one problem. Paper, section 5.3, caps them and publishes no number."""
    min_thinking: int = Field(default=32, ge=0)
    """Tokens; traces that think less are left out. Paper, section 5.3, leaves out early short thinking; the number is chosen."""
    most_over: float = Field(default=2.0, ge=1)
    """How many times the mean cell of pass rate by length a cell may hold. Paper, section 5.3: fewer easy problems; chosen."""
