"""Problems of which everything is known: what is wrong with each, and how often each model solves it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from magistral.curation.candidate import Candidate
from magistral.engines.ask import Asker
from magistral.engines.base import Request
from magistral.engines.scripted import ScriptedEngine
from magistral.recipe_data import Asked
from magistral.text.tokens import byte_tokenizer
from magistral.verifiers.judges import Judges

_PEOPLE = ("Ada", "Bram", "Chidi", "Dora", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jun", "Kira", "Lev", "Mona", "Nils", "Ola")
_THINGS = ("apples", "bricks", "candles", "drums", "eggs", "flutes", "gloves", "hats", "inks", "jars", "kites", "lamps", "maps")
_PLACES = ("market", "harbour", "school", "library", "museum", "station", "garden", "theatre", "bakery", "workshop", "island")
_DEEDS = ("sells", "buys", "packs", "finds", "loses", "counts", "paints", "repairs", "borrows", "carries", "hides", "sorts")


def story(r: random.Random) -> tuple[str, str]:
    """A question that is like no other, and its answer."""
    a, b, c = r.randint(11, 999), r.randint(11, 999), r.randint(2, 9)
    who, whom = r.sample(_PEOPLE, 2)
    one, two = r.sample(_THINGS, 2)
    text = (
        f"At the {r.choice(_PLACES)} {who} {r.choice(_DEEDS)} {a} {one} and {whom} {r.choice(_DEEDS)} {b} {two} before noon. "
        f"Every day after that {who} {r.choice(_DEEDS)} {c} more {one} near the {r.choice(_PLACES)}. "
        f"How many {one} and {two} were there at noon, if each of {who}'s counted {c} times?"
    )
    return text, str(a * c + b)


@dataclass
class Planted:
    candidates: list[Candidate] = field(default_factory=list)
    truth: dict[str, str] = field(default_factory=dict)
    """By id: the reason for which it must be dropped, or "" where it must stay."""
    answers: dict[str, str] = field(default_factory=dict)
    """By question: the right answer, whatever the reference says."""
    ability: dict[str, dict[str, float]] = field(default_factory=dict)
    """By model and question: how often it is solved."""

    def add(self, why: str, question: str, reference: str, **more: object) -> Candidate:
        candidate = Candidate.model_validate(
            {"id": f"c{len(self.candidates)}", "question": question, "reference": reference, **more}
        )
        self.candidates.append(candidate)
        self.truth[candidate.id] = why
        return candidate

    def shuffled(self, seed: int = 0) -> list[Candidate]:
        """Duplicates after what they are like."""
        late = [c for c in self.candidates if "duplicate" in self.truth[c.id]]
        early = [c for c in self.candidates if "duplicate" not in self.truth[c.id]]
        random.Random(seed).shuffle(early)
        return early + late

    def script(self, model: str) -> Callable[[str, int], str]:
        """The model's completions: right as often as it is able to, else a wrong answer of the seed's own."""

        def write(prompt: str, seed: int) -> str:
            r = random.Random(seed)
            right = r.random() < self.ability[model].get(prompt, 0.0)
            answer = self.answers[prompt] if right else str(r.randint(10_000, 99_999))
            return f"<think>\nhm\n</think>\nIt is \\boxed{{{answer}}}."

        return write


def precision_and_recall(planted: Planted, dropped: dict[str, str], reason: str) -> tuple[float, float]:
    """`dropped`: id to the reason it was dropped for."""
    meant = {name for name, why in planted.truth.items() if why == reason}
    found = {name for name, why in dropped.items() if why == reason}
    return len(meant & found) / max(len(found), 1), len(meant & found) / len(meant)


def asker(engine: ScriptedEngine, *, n_parallel: int = 64) -> Asker:
    def request(question: str, seeds: tuple[int, ...], key: object) -> Request:
        return Request(prompt=tuple(engine.tokenizer.encode(question)), seeds=seeds, max_tokens=200, key=key)

    return Asker(
        engine, request=request, text=lambda w: engine.tokenizer.decode(w.tokens[:-1]),
        seed=lambda name, place: int(re.sub(r"\D", "", name) or 0) * 1000 + place, n_parallel=n_parallel,
    )  # fmt: skip


@dataclass
class PlantedHands:
    planted: Planted
    _judges: Judges
    trained_on: list[Path] = field(default_factory=list)

    def judges(self) -> Judges:
        return self._judges

    def asker(self, asked: Asked) -> Asker:
        return asker(ScriptedEngine(self.planted.script(asked.model), byte_tokenizer(), n_slots=256))

    def trained(self, asked: Asked, kept: Path) -> Asker:
        self.trained_on.append(kept)
        return self.asker(asked)


@contextmanager
def planted_hands(planted: Planted) -> Iterator[PlantedHands]:
    with Judges() as judges:
        yield PlantedHands(planted, judges)
