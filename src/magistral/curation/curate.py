"""What `magistral curate` does: which stages, in which order, on what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from magistral.curation.agreement import Agreement
from magistral.curation.candidate import benchmark_questions, raw_candidates
from magistral.curation.contamination import Contamination
from magistral.curation.difficulty import Difficulty, Grader
from magistral.curation.duplicates import Duplicates
from magistral.curation.form import form
from magistral.curation.inputs import WriteInputs
from magistral.curation.pools import write_pools
from magistral.curation.stage import Stage, Watch, run_stages
from magistral.curation.translation import CheckAnswers, Translate
from magistral.engines.ask import Asker, Journal
from magistral.errors import RecipeError
from magistral.recipe_data import Asked, Curation
from magistral.recipe_data import Difficulty as Passes
from magistral.verifiers.code import CodeVerifier
from magistral.verifiers.judges import Judges


class Hands(Protocol):
    """What the stages borrow; made when a stage first needs it."""

    def judges(self) -> Judges: ...

    def asker(self, asked: Asked) -> Asker: ...

    def trained(self, asked: Asked, kept: Path) -> Asker:
        """A grader that learned by RL from the candidates of the file `kept`."""


def curate(settings: Curation, folder: Path, hands: Hands, watch: Watch = lambda _n, _i: None) -> dict[str, int]:
    """Problems in `folder`/problems.jsonl, and in pools by difficulty; returns how many are in each."""
    if not settings.files:
        raise RecipeError("curation.files names no file of problems")
    paths = [Path(name) for name in settings.files]
    kept = run_stages(stages_of(settings, folder, hands), raw_candidates(paths), folder, watch)
    return write_pools(kept, folder, settings.pools)


def stages_of(settings: Curation, folder: Path, hands: Hands) -> list[Stage]:
    answers = folder / "answers"
    askers = Askers(settings, answers, hands)
    stages = [Stage("format", form), Stage("duplicates", Duplicates(settings.near))]
    if settings.benchmarks:
        known = benchmark_questions(settings.benchmarks, Path(settings.data))
        stages.append(Stage("benchmarks", Contamination(known, n=settings.n_gram, overlap=settings.overlap)))
    if settings.tests.writer:
        stages.append(Stage(WriteInputs.name, WriteInputs(lambda: askers(WriteInputs.name), answers / WriteInputs.name)))
    stages.append(Stage(Agreement.name, Agreement(lambda: cast(CodeVerifier, hands.judges().verifier("code")), settings.tests)))
    if settings.difficulty:
        stages += _passes(settings.difficulty, folder, askers, n_before=len(stages))
    if t := settings.translation:
        translate = Translate(lambda: askers(Translate.name), answers / Translate.name, share=t.share)
        stages.append(Stage(Translate.name, translate))
        if t.n_checks:
            n, journal = t.n_checks, answers / CheckAnswers.name
            check = CheckAnswers(lambda: Grader(askers(CheckAnswers.name), hands.judges(), n=n), journal)
            stages.append(Stage(CheckAnswers.name, check))
    return stages


class Askers:
    """By a stage's name, made when it begins. What the journals say was spent before, in other stages too, counts against
    the budgets."""

    def __init__(self, settings: Curation, answers: Path, hands: Hands) -> None:
        self.settings, self.answers, self.hands = settings, answers, hands
        self.asked = settings.asked

    def __call__(self, stage: str) -> Asker:
        asked = self.asked[stage]
        spent = self._spent(asked)
        if self.settings.budget is not None:
            left = self.settings.budget - sum(map(self._spent, set(self.asked.values()) - {asked}))
            asked = asked.model_copy(update={"budget": left if asked.budget is None else min(left, asked.budget)})
        asker = self.hands.asker(asked)
        if asker.meter is not None:
            asker.meter.spent = spent
        return asker

    def _spent(self, asked: Asked) -> float:
        """On a model asked in one way: each journal counts on from where that of the stage before ended."""
        folders = (self.answers / name for name, other in self.asked.items() if other == asked)
        return max((Journal(folder).spent for folder in folders if folder.exists()), default=0.0)


def _passes(d: Passes, folder: Path, askers: Askers, *, n_before: int) -> list[Stage]:
    def grader(asker: Callable[[], Asker]) -> Callable[[], Grader]:
        return lambda: Grader(asker(), askers.hands.judges(), n=d.n_completions)

    def one(name: str, asker: Callable[[], Asker], majority: float | None) -> Difficulty:
        return Difficulty(name, grader(asker), folder / "answers" / name, too_easy=d.too_easy, majority=majority)

    if d.grader is None:
        return [Stage("difficulty", one("difficulty", lambda: askers("difficulty"), d.majority))]
    second = d.grader
    kept = folder / "stages" / f"{n_before + 1:02}-first-pass" / "kept.jsonl"
    asker = (lambda: askers.hands.trained(second, kept)) if second.model == "rl" else (lambda: askers("second-pass"))
    return [
        Stage("first-pass", one("first-pass", lambda: askers("first-pass"), None)),
        Stage("second-pass", one("second-pass", asker, d.majority), reads=Agreement.name),  # the whole set again
    ]
