"""How each benchmark is measured: Magistral's protocol (arXiv 2506.10910, section 5.1) where it says, our choice elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import Field

from magistral.recipe import Resolved

MAX_RUNS = 1000
"""Completions of a problem: the number of ways to draw from more is over the largest float."""
TEMPERATURE = 0.7
LONG, SHORT = 40_960, 32_768
"""The longest answer, in tokens: 40 k for AIME and LiveCodeBench, 32 k for the rest. chosen: a k is 1024."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    n_runs: int
    """Completions of each problem."""
    n_problems: int
    """Of the whole benchmark; where it is in several languages, of each."""
    n_unfit: int = 0
    """Of these, left out since its own errata call them unfit."""
    in_languages: bool = False
    languages: tuple[str, ...] = ()
    """That the whole has, where there is such a whole."""
    max_tokens: int = SHORT
    top_p: float = 1.0
    """1.0 for mathematics and GPQA, 0.95 for code."""
    of_paper: bool = False
    """All of this is the paper's, the number of runs, too; else a report calls the protocol ours."""


_CODE = 0.95
_MGSM = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")
PROTOCOLS: Mapping[str, Protocol] = {
    "aime24": Protocol(n_runs=64, n_problems=30, max_tokens=LONG, of_paper=True),
    "aime25": Protocol(n_runs=64, n_problems=30, max_tokens=LONG, of_paper=True),
    "aime_multilingual": Protocol(n_runs=64, n_problems=30, in_languages=True, max_tokens=LONG, of_paper=True),
    "math500": Protocol(n_runs=4, n_problems=500),
    "gpqa_diamond": Protocol(n_runs=8, n_problems=198),
    "livecodebench_v5": Protocol(n_runs=16, n_problems=880, n_unfit=12, max_tokens=LONG, top_p=_CODE, of_paper=True),
    "livecodebench_v6": Protocol(n_runs=16, n_problems=1055, n_unfit=12, max_tokens=LONG, top_p=_CODE, of_paper=True),
    "gsm8k": Protocol(n_runs=1, n_problems=1319),
    "mgsm": Protocol(n_runs=1, n_problems=250, in_languages=True, languages=_MGSM),
    "olympiadbench": Protocol(n_runs=4, n_problems=674),
    "humaneval": Protocol(n_runs=8, n_problems=164, top_p=_CODE),
    "humaneval_x": Protocol(n_runs=8, n_problems=328, top_p=_CODE),
    "mbpp": Protocol(n_runs=4, n_problems=500, top_p=_CODE),
}
"""Runs: 64 and 16 of the paper; it names none for the others. chosen: about 2000 completions of a benchmark, or each once."""


class Measuring(Resolved):
    """All that a measurement depends on: its run's recipe.toml."""

    benchmark: str
    model: str
    n_problems: int
    data: str
    """A hash of the problems, so that a resumed run, and one that is compared, has the same."""
    selection: str = ""
    """What of the benchmark is taken, where it is not all: "languages fr, en", "contests 2024-08-01 to 2025-01-31"."""
    n_runs: int = Field(gt=0, le=MAX_RUNS)
    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_tokens: int = Field(gt=0)
    system: str = ""
    """What the model is told before each problem."""
    version: str = "text"
    """Of Magistral Small, where the model is read as one: its marks of thinking and its layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """What else an answer depends on, known where the model is: asked.json in a measurement's folder."""

    weights: str = ""
    """"float32", "int8", of a .gguf file how they are stored before it, as "Q4_K, int8"; empty: nobody says, as an endpoint."""
    own_system: bool = True
    """It was told what its version or its training says, not something of a person's."""

    @property
    def is_exact(self) -> bool:
        return self.weights in ("", "float32", AS_STORED)


UNKNOWN = How()
AS_STORED = "as stored"
"""Of weights: plain floats of at least 16 bits, read by llama.cpp."""
SHOWN = 60
"""Characters of a system prompt in a departure; eval.json has all."""


def departures(m: Measuring, how: How = UNKNOWN) -> list[str]:
    """What differs from the protocol, a line each; empty where the numbers may stand beside published ones."""
    p = PROTOCOLS[m.benchmark]
    wanted = {"n_runs": p.n_runs, "temperature": TEMPERATURE, "top_p": p.top_p, "max_tokens": p.max_tokens}
    told = [f"{name} {getattr(m, name):g} instead of {value:g}" for name, value in wanted.items() if getattr(m, name) != value]
    if not how.is_exact:
        told.append(f"weights in {how.weights} instead of full precision")
    if not how.own_system:
        told.append(f"a system prompt of --system: {m.system[:SHOWN]!r}{'…' * (len(m.system) > SHOWN)}")
    return told + ([m.selection] if m.selection else [])


def missing(m: Measuring, languages: Iterable[str]) -> list[str]:
    """What was not there of the whole benchmark, a line each, and was not left out on purpose. `languages`: of each problem."""
    p = PROTOCOLS[m.benchmark]
    if any(part in m.selection for part in ("of the problems", "contests")):
        return []
    if not p.in_languages:
        return [f"{m.n_problems} of {p.n_problems} problems"] if m.n_problems < p.n_problems - p.n_unfit else []
    found = Counter(languages)
    told = [f"{name}: {n} of {p.n_problems} problems" for name, n in sorted(found.items()) if n < p.n_problems]
    absent = [name for name in p.languages if name not in found and not m.selection]
    return told + ([f"without the languages {', '.join(absent)}"] if absent else [])


_BOX = {
    "de": r"Schreibe die Antwort am Ende in \boxed{}.",
    "en": r"Put the final answer in \boxed{}.",
    "es": r"Escribe la respuesta final en \boxed{}.",
    "fr": r"Écris la réponse finale dans \boxed{}.",
    "it": r"Scrivi la risposta finale in \boxed{}.",
    "ja": r"最後の答えを \boxed{} に書いてください。",
    "pt": r"Escreva a resposta final em \boxed{}.",
    "ru": r"Запиши окончательный ответ в \boxed{}.",
    "zh": r"请把最终答案写在 \boxed{} 中。",
}
"""In the problem's language, so that it does not draw the model into English; English for languages that are not here."""
_CHOICE = r"Put the letter of the right option in \boxed{}."
_PROGRAM = {
    "python": "Answer with one whole Python program, imports included, in a code block that begins with ```python",
    "cpp": "Answer with one whole C++ program, includes included, in a code block that begins with ```cpp",
}


def instruction(kind: str, language: str, family: str) -> str:
    """What stands under a problem so that its verifier finds the answer. The paper's words for this are not published."""
    if kind == "code":
        return _PROGRAM["cpp" if family == "cpp" else "python"]
    return _CHOICE if kind == "choice" else _BOX.get(language, _BOX["en"])
