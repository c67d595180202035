"""Contamination: problems that are a benchmark's, or hold most of one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from magistral.curation.candidate import Candidate
from magistral.curation.stage import Dropped
from magistral.curation.words import runs_of, words_of


class Contamination:
    """Benchmarks are small and held in memory whole: each run of `n` words, and whose it is."""

    def __init__(self, benchmarks: Iterable[tuple[str, str, bool]], *, n: int, overlap: float) -> None:
        """`benchmarks` are (name, question, whether nothing of it may be shown).

        `overlap`: the share of a question's runs that makes a problem the same."""
        self.n, self.overlap = n, overlap
        self._owners: dict[str, list[int]] = defaultdict(list)
        self._names: list[str] = []
        self._sizes: list[int] = []
        self._private: list[bool] = []
        for name, question, private in benchmarks:
            if words := words_of(question):
                runs = runs_of(words, n)
                for run in runs:
                    self._owners[run].append(len(self._names))
                self._names.append(name)
                self._sizes.append(len(runs))
                self._private.append(private)

    def __call__(self, candidates: Iterator[Candidate]) -> Iterator[Candidate | Dropped]:
        for candidate in candidates:
            yield self._judged(candidate)

    def _judged(self, candidate: Candidate) -> Candidate | Dropped:
        """A benchmark's question of fewer words than a run is found where it is the whole problem."""
        question = candidate.question
        hits = Counter(owner for run in runs_of(words_of(question), self.n) for owner in self._owners.get(run, ()))
        for owner, n_hits in hits.most_common(8):
            share = n_hits / self._sizes[owner]
            if share >= self.overlap:
                shown = candidate.but(question="", reference="", options=()) if self._private[owner] else candidate
                return Dropped(shown, "in a benchmark", f"{self._names[owner]}: {share:.0%} of its runs of {self.n} words")
        return candidate
