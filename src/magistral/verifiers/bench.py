"""Graders measured against each other: pairs that we wrote, and reference answers under spellings that change nothing.

A grader takes an answer and a reference, both bare, and says right, not right, or nothing (a failure). Each runs in a process of
its own that is killed when it hangs, so that a peer that does cannot hold us up.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources, util
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from magistral.verifiers.pool import PACKAGES

HANG_S = 10.0
"""chosen: twice the deadline that a verifier has; who has said nothing by then is killed and counted as hung."""
PEERS = {"magistral": "magistral", "math-verify": "math_verify", "inspect_ai": "inspect_ai"}
"""Name to the module that it needs."""


class Row(NamedTuple):
    answer: str
    reference: str
    question: str
    right: bool
    kind: str
    """plain, adversarial, hostile, or the name of a benchmark."""
    reason: str


def written_pairs() -> list[Row]:
    """Ours, from pairs/math.toml: each with its reason."""
    text = resources.files("magistral.verifiers").joinpath("pairs/math.toml").read_text(encoding="utf-8")
    return [
        Row(answer, reference, rule.get("question", ""), rule["right"], rule["kind"], rule["reason"])
        for rule in tomllib.loads(text)["rule"]
        for answer, reference in rule["pairs"]
    ]


_THOUSANDS = re.compile(r",(?:\\!)?\d{3}(?!\d)")
REWRITINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("itself", lambda r: r),
    ("other fractions and brackets", lambda r: r.replace("\\frac", "\\dfrac").replace("\\left", "").replace("\\right", "")),
    ("dollars around it", lambda r: f"${r}$"),
    ("spaces within", lambda r: (r if _THOUSANDS.search(r) else r.replace(",", ", ")).replace("=", " = ").replace("+", " + ")),
    ("a final point", lambda r: r if r.endswith(".") else f"{r}."),
    ("an integer as a fraction", lambda r: f"\\frac{{{2 * int(r)}}}{{2}}" if r.lstrip("-").isdecimal() and r.isascii() else r),
    ("roots and fractions without braces", lambda r: re.sub(r"\\(sqrt|frac)\{(\d)\}(?:\{(\d)\})?", r"\\\1 \2 \3", r)),
)
"""Spellings of an answer that change nothing of it."""


def reference_pairs(data: Path) -> list[Row]:
    """The references of MATH-500, AIME, GSM8K and OlympiadBench under each rewriting; of those that the folder holds."""
    rows = []
    for name in ("math500", "aime24", "aime25", "gsm8k", "olympiadbench"):
        for reference in references(data, name):
            for what, rewrite in REWRITINGS:
                rows.append(Row(answer=rewrite(reference), reference=reference, question="", right=True, kind=name, reason=what))
    return rows


def references(data: Path, name: str) -> list[str]:
    file = data / name / ("oe_to_maths_en_comp.jsonl" if name == "olympiadbench" else "test.jsonl")
    if not file.exists():
        return []
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    if name == "olympiadbench":
        return [answer.strip("$") for line in lines for answer in line["final_answer"]]
    return [str(line["answer"]).rpartition("####")[2].strip() for line in lines]


@dataclass(slots=True)
class Measured:
    """One grader on one kind of pairs."""

    n: int = 0
    false_negatives: list[Row] = field(default_factory=list)
    false_positives: list[Row] = field(default_factory=list)
    n_failed: int = 0
    """Said nothing: neither right nor not right."""
    n_timed_out: int = 0
    n_hung: int = 0
    """Killed after HANG_S."""
    seconds: list[float] = field(default_factory=list)

    def add(self, row: Row, said: str, seconds: float) -> None:
        self.n += 1
        self.seconds.append(seconds)
        self.n_hung += said == "hung"
        self.n_failed += said in ("failed", "died")
        self.n_timed_out += said == "timed_out"
        if row.right and said != "right":
            self.false_negatives.append(row)
        if not row.right and said == "right":
            self.false_positives.append(row)

    def summary(self) -> dict[str, Any]:
        ordered = sorted(self.seconds) or [0.0]
        return {
            "n": self.n,
            "false_negatives": len(self.false_negatives),
            "false_positives": len(self.false_positives),
            "failed": self.n_failed,
            "timed_out": self.n_timed_out,
            "hung": self.n_hung,
            "p50_ms": round(1000 * statistics.median(ordered), 3),
            "p99_ms": round(1000 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], 3),
            "max_ms": round(1000 * ordered[-1], 1),
            "pairs_per_s": round(self.n / max(sum(ordered), 1e-9), 1),
        }


def installed() -> list[str]:
    return [name for name, module in PEERS.items() if util.find_spec(module) is not None]


def measure(
    graders: Sequence[str], rows: Iterable[Row], on_row: Callable[[], None] = lambda: None
) -> dict[str, dict[str, Measured]]:
    """By grader and kind of pair. Graders take turns, pair by pair, so that what else runs on the machine slows all alike.

    The process of one that hangs or dies is started again."""
    measured: dict[str, dict[str, Measured]] = {name: {} for name in graders}
    processes = {name: Grader(name) for name in graders}
    for row in rows:
        for name in graders:
            said, seconds = processes[name].ask(row)
            measured[name].setdefault(row.kind, Measured()).add(row, said, seconds)
            if said in ("hung", "died"):
                processes[name].stop()
                processes[name] = Grader(name)
        on_row()
    for process in processes.values():
        process.stop()
    return measured


class Grader:
    """A process that answers a line with a line."""

    def __init__(self, name: str) -> None:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGES), os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "magistral.verifiers.bench", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env=env, start_new_session=True,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._lines.get(timeout=120)  # ready, its imports done

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put("died")

    def ask(self, row: Row) -> tuple[str, float]:
        """right, wrong, timed_out, failed, died or hung; and the seconds that it took, by the process's own clock."""
        assert self._process.stdin is not None
        start = time.perf_counter()
        try:
            self._process.stdin.write(json.dumps([row.answer, row.reference, row.question]) + "\n")
            self._process.stdin.flush()
            said, _, seconds = self._lines.get(timeout=HANG_S).partition(" ")
            return said, float(seconds or time.perf_counter() - start)
        except BrokenPipeError:
            return "died", time.perf_counter() - start
        except queue.Empty:
            return "hung", HANG_S

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout):
            if file is not None:
                file.close()


def _magistral() -> Callable[[str, str, str], str]:
    from magistral.errors import VerifierFailed
    from magistral.verifiers.math import MathVerifier
    from magistral.verifiers.pool import Pool

    verifier = MathVerifier(Pool(5.0))
    verifier.compare("x+1", "1+x")

    def grade(answer: str, reference: str, question: str) -> str:
        try:
            return {"right": "right", "timed_out": "timed_out", "error": "failed"}.get(
                verifier.compare(answer, reference, question=question).outcome, "wrong"
            )
        except VerifierFailed:
            return "failed"

    return grade


def _math_verify() -> Callable[[str, str, str], str]:
    """As its own documentation wires it: LaTeX and plain expressions, the answer in dollars and in a box, as it wants it."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, StringExtractionConfig, parse, verify

    configs = [LatexExtractionConfig(), ExprExtractionConfig(), StringExtractionConfig()]

    def grade(answer: str, reference: str, question: str) -> str:
        gold = parse(f"$\\boxed{{{reference}}}$", configs, raise_on_error=True)
        said = parse(f"$\\boxed{{{answer}}}$", configs, raise_on_error=True)
        return "right" if verify(gold, said, raise_on_error=True) else "wrong"

    grade("1", "1", "")
    return grade


def _inspect_ai() -> Callable[[str, str, str], str]:
    """Its scorer `math`, as an evaluation would call it: a whole completion with a box, its own limits of 2 s for each side."""
    import asyncio

    from inspect_ai.model import ModelName, ModelOutput
    from inspect_ai.scorer import Target, math
    from inspect_ai.solver import TaskState

    score, loop = math(), asyncio.Runner()
    model = ModelName("mockllm/model")

    def grade(answer: str, reference: str, question: str) -> str:
        output = ModelOutput.from_content("mockllm/model", f"$\\boxed{{{answer}}}$")
        state = TaskState(model=model, sample_id=0, epoch=0, input=question, messages=[], output=output)
        said = loop.run(score(state, Target(reference)))
        assert said is not None
        status = str((said.metadata or {}).get("math_scorer_status"))
        outcomes = {"correct": "right", "answer_timeout": "timed_out", "target_timeout": "timed_out"}
        return outcomes.get(status, "wrong")

    grade("1", "1", "")
    return grade


_GRADERS = {"magistral": _magistral, "math-verify": _math_verify, "inspect_ai": _inspect_ai}


def main(arguments: Sequence[str], given: TextIO, told: TextIO) -> None:
    grade = _GRADERS[arguments[0]]()
    told.write("ready\n")
    told.flush()
    for line in given:
        start = time.perf_counter()
        try:
            said = grade(*json.loads(line))
        except BaseException as e:  # noqa: BLE001 - whatever a peer raises is a failure of its own
            said = "timed_out" if "timeout" in type(e).__name__.lower() else "failed"
        told.write(f"{said} {time.perf_counter() - start}\n")
        told.flush()


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdin, sys.stdout)
