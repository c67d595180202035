"""From verdicts to scores, over arrays: a million completions in seconds, whatever the order of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from magistral.errors import RunFailed, UserError
from magistral.eval.estimate import Floats, maj_at_k, pass_at_k
from magistral.eval.judge import classes
from magistral.eval.scores import Score, amount, difference, share
from magistral.flow import Finish, Outcome

if TYPE_CHECKING:
    import pyarrow as pa

N_BINS = 5
"""Of lengths (chosen: fifths are told apart at the sizes of benchmarks)."""
Ints = np.ndarray[Any, np.dtype[np.int64]]


def with_classes(verdicts: pa.Table, equality: Callable[[str], Callable[[str, str], bool] | None]) -> pa.Table:
    """`verdicts` (as `read_verdicts` gives them) with a column `class`: `classes` of each problem; null for kinds that are not
    voted on. `equality` gives the comparison of a kind."""
    import pyarrow as pa

    found: list[int | None] = []
    for start, end in _spans(verdicts["problem_id"].to_numpy()):
        part = verdicts.slice(start, end - start).select(["kind", "outcome", "answer"])
        same = equality(part["kind"][0].as_py())
        found += [None] * (end - start) if same is None else classes(part.to_pylist(), same)
    return verdicts.append_column("class", pa.array(found, pa.int32()))


def _spans(ids: Sequence[str] | Any) -> Iterator[tuple[int, int]]:
    """(start, end) of each run of equal values."""
    edges = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1).tolist(), len(ids)]
    yield from pairwise(edges)


@dataclass(frozen=True, slots=True)
class Counts:
    """Of each problem with at least one judged completion, in the order of ids."""

    ids: list[str]
    family: list[str]
    language: list[str]
    n: Ints
    n_right: Ints
    sums: dict[str, Floats]
    """Mean over its completions: n_tokens, truncated, malformed, wrong_language."""
    votes: list[tuple[int, tuple[int, ...], int] | None]
    """What `maj_at_k` takes; None where answers are not voted on."""

    def take(self, which: Sequence[int]) -> Counts:
        at = np.asarray(which, dtype=np.int64)
        return Counts(
            ids=[self.ids[i] for i in which], family=[self.family[i] for i in which],
            language=[self.language[i] for i in which], n=self.n[at], n_right=self.n_right[at],
            sums={name: values[at] for name, values in self.sums.items()}, votes=[self.votes[i] for i in which],
        )  # fmt: skip

    @property
    def right(self) -> Floats:
        """Share of each problem's completions that are right."""
        return self.n_right / self.n

    @property
    def cluster(self) -> Ints:
        """Of each problem the number of what was drawn at random: translations of one problem were drawn as one."""
        named = zip(self.ids, self.language, strict=True)
        return np.unique([i.removeprefix(f"{code}-").removesuffix(f"-{code}") for i, code in named], return_inverse=True)[1]

    def per_cluster(self, values: Floats) -> list[float]:
        """Means over the problems of each cluster."""
        cluster = self.cluster
        means: list[float] = (np.bincount(cluster, values) / np.bincount(cluster)).tolist()
        return means


def counted(verdicts: pa.Table) -> Counts:
    """Of a table with classes. What no verifier could judge is left out. Raises RunFailed where nothing is left."""
    import pyarrow.compute as pc

    judged = verdicts.filter(pc.not_equal(verdicts["outcome"], str(Outcome.ERROR)))
    if not judged.num_rows:
        raise RunFailed(f"none of {verdicts.num_rows} completions could be judged")
    column = {name: judged[name].to_numpy() for name in ("problem_id", "n_tokens", "one_language")}
    spans = list(_spans(column["problem_id"]))
    starts = np.array([start for start, _ in spans], dtype=np.int64)
    n = np.array([end - start for start, end in spans], dtype=np.int64)

    def per_problem(values: Any) -> Floats:
        return np.add.reduceat(np.asarray(values, dtype=np.float64), starts)

    right = pc.equal(judged["outcome"], str(Outcome.RIGHT)).to_numpy()
    number = judged["class"].to_numpy()  # floats with NaN where there are nulls
    means = {
        "n_tokens": column["n_tokens"],
        "truncated": pc.equal(judged["finish"], str(Finish.LENGTH)).to_numpy(),
        "malformed": pc.not_equal(judged["fault"], "").to_numpy(),
        "wrong_language": ~column["one_language"].astype(bool),
    }
    first = judged.take(starts)
    return Counts(
        ids=first["problem_id"].to_pylist(), family=first["family"].to_pylist(), language=first["language"].to_pylist(),
        n=n, n_right=per_problem(right).astype(np.int64),
        sums={name: per_problem(values) / n for name, values in means.items()},
        votes=[_votes(number[start:end]) for start, end in spans],
    )  # fmt: skip


def _votes(number: Any) -> tuple[int, tuple[int, ...], int] | None:
    if np.isnan(number[0]):
        return None
    _, counts = np.unique(number[number > 0], return_counts=True)
    return int((number == 0).sum()), tuple(sorted(counts.tolist())), int((number < 0).sum())


def scores(c: Counts) -> dict[str, Score]:
    """pass@1, pass@n and maj@n over the n runs of a problem, and the shares of what went wrong."""
    shares = {"pass_at_1": c.right}
    if (k := int(c.n.max())) > 1:
        shares |= {f"{name}_{k}": each[:, k - 1] for name, each in _at_every_k(c).items()}
    shares |= {name: c.sums[name] for name in ("truncated", "malformed", "wrong_language")}
    shares["well_formed"] = 1 - c.sums["malformed"]
    return {name: share(c.per_cluster(each)) for name, each in shares.items()} | {
        "tokens": amount(c.per_cluster(c.sums["n_tokens"]))
    }


def at_every_k(c: Counts) -> dict[str, list[float]]:
    """pass@k and maj@k at k = 1, 2, …: means over problems."""
    cluster = c.cluster
    weight = 1 / np.bincount(cluster)[cluster]
    return {name: (weight @ each / weight.sum()).tolist() for name, each in _at_every_k(c).items()}


def _at_every_k(c: Counts) -> dict[str, Floats]:
    """[problems, k] up to the runs of a problem. Where some of a problem's could not be judged, the others stand for them: one
    completion that no verifier can read does not make maj@64 of 30 problems a maj@63. The report says how many were dropped."""
    k = int(c.n.max())

    def to_k(values: Floats) -> Floats:
        return np.pad(values, (0, k - len(values)), mode="edge")

    found = {"pass_at": np.array([to_k(pass_at_k(int(n), int(r))) for n, r in zip(c.n, c.n_right, strict=True)])}
    if all(c.votes):
        found["maj_at"] = np.array([to_k(maj_at_k(*v)) for v in c.votes if v])
    return found


def by(c: Counts, names: Sequence[str]) -> dict[str, dict[str, Score]]:
    """Scores of the problems with each of `names` (families, languages)."""
    at: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        at.setdefault(name, []).append(i)
    return {name: scores(c.take(which)) for name, which in sorted(at.items())}


def by_length(verdicts: pa.Table) -> list[dict[str, float]]:
    """Accuracy in each fifth of the completions by thinking length: {"low", "high" (tokens), "n", "right"}.

    A thinking's length is its share of the completion's characters times its tokens."""
    length = verdicts["n_thinking"].to_numpy()
    right = (verdicts["outcome"].to_numpy() == Outcome.RIGHT).astype(np.float64)
    order = np.argsort(length, kind="stable")
    return [
        {"low": int(length[part[0]]), "high": int(length[part[-1]]), "median": float(median(length[part].tolist())),
         "n": len(part), "right": float(right[part].mean())}
        for part in np.array_split(order, N_BINS) if len(part)
    ]  # fmt: skip


def totals(verdicts: pa.Table, prices: tuple[float, float] | None) -> dict[str, float]:
    """Tokens written for each right answer, and what one costs. `prices`: of a million tokens, read and written."""
    n_right = int((verdicts["outcome"].to_numpy() == Outcome.RIGHT).sum())
    n_in, n_out = (int(verdicts[name].to_numpy().sum()) for name in ("n_prompt", "n_tokens"))
    told: dict[str, float] = {"n_completions": verdicts.num_rows, "n_right": n_right, "tokens_in": n_in, "tokens_out": n_out}
    if prices is not None:
        told["cost"] = (n_in * prices[0] + n_out * prices[1]) / 1e6
    if n_right:
        told |= {f"{name}_per_right_answer": told[name] / n_right for name in ("tokens_out", "cost") if name in told}
    return told


def paired(ours: Counts, theirs: Counts) -> dict[str, Any]:
    """pass@1 of two models on the problems that both answered: each, and ours - theirs with its interval.

    Raises UserError where there is none."""
    at = {name: i for i, name in enumerate(theirs.ids)}
    both = [(i, at[name]) for i, name in enumerate(ours.ids) if name in at]
    if not both:
        raise UserError(f"no problem in common: {ours.ids[0]!r} and the like here, {theirs.ids[0]!r} there")
    a, b = (c.per_cluster(c.right) for c in (ours.take([i for i, _ in both]), theirs.take([j for _, j in both])))
    return {
        "n_problems": len(both), "ours": share(a), "theirs": share(b), "difference": difference(a, b),
        "n_better": sum(x > y for x, y in zip(a, b, strict=True)), "n_worse": sum(x < y for x, y in zip(a, b, strict=True)),
    }  # fmt: skip


def hardest(c: Counts, n: int) -> Mapping[str, float]:
    """The problems with the lowest share of right completions, and that share."""
    order = sorted(range(len(c.ids)), key=lambda i: (c.right[i], c.ids[i]))[:n]
    return {c.ids[i]: float(c.right[i]) for i in order}
