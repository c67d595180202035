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
from magistral.engines.ask import Asker
from magistral.errors import RecipeError
from magistral.recipe_data import Asked, Curation, Translation
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
    stages = [Stage("format", form), Stage("duplicates", Duplicates(settings.near))]
    if settings.benchmarks:
        known = benchmark_questions(settings.benchmarks, Path(settings.data))
        stages.append(Stage("benchmarks", Contamination(known, n=settings.n_gram, overlap=settings.overlap)))
    if writer := settings.tests.writer:
        stages.append(Stage(WriteInputs.name, WriteInputs(lambda: hands.asker(writer), answers / WriteInputs.name)))
    stages.append(Stage(Agreement.name, Agreement(lambda: cast(CodeVerifier, hands.judges().verifier("code")), settings.tests)))
    if settings.difficulty:
        stages += _passes(settings.difficulty, folder, hands, n_before=len(stages))
    if settings.translation:
        stages += _translation(settings.translation, settings.difficulty, answers, hands)
    return stages


def _passes(d: Passes, folder: Path, hands: Hands, *, n_before: int) -> list[Stage]:
    def grader(asker: Callable[[], Asker]) -> Callable[[], Grader]:
        return lambda: Grader(asker(), hands.judges(), n=d.n_completions)

    def one(name: str, asker: Callable[[], Asker], majority: float | None) -> Difficulty:
        return Difficulty(name, grader(asker), folder / "answers" / name, too_easy=d.too_easy, majority=majority)

    if d.grader is None:
        return [Stage("difficulty", one("difficulty", lambda: hands.asker(d.first), d.majority))]
    second = d.grader
    kept = folder / "stages" / f"{n_before + 1:02}-first-pass" / "kept.jsonl"
    asker = (lambda: hands.trained(second, kept)) if second.model == "rl" else (lambda: hands.asker(second))
    return [
        Stage("first-pass", one("first-pass", lambda: hands.asker(d.first), None)),
        Stage("second-pass", one("second-pass", asker, d.majority), reads=Agreement.name),  # the whole set again
    ]


def _translation(t: Translation, d: Passes | None, answers: Path, hands: Hands) -> list[Stage]:
    translate = Translate(lambda: hands.asker(t.translator), answers / Translate.name, share=t.share)
    stages = [Stage(Translate.name, translate)]
    if t.n_checks:
        solver = d.first if d else t.translator
        check = CheckAnswers(lambda: Grader(hands.asker(solver), hands.judges(), n=t.n_checks), answers / CheckAnswers.name)
        stages.append(Stage(CheckAnswers.name, check))
    return stages
