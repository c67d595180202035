"""The terminal's summary and the HTML report, of ordinary, empty and hostile runs."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from magistral.errors import RunFolderError
from magistral.show import page, report
from magistral.show.read import Run, read_runs
from magistral.show.report import Shown, chosen, render, write_report
from magistral.show.terminal import show_runs

RunMaker = Callable[..., Path]
Maker = Callable[..., Any]

HOSTILE = "</pre></script><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}[red]\x1b]0;owned\x07\x1b[2J\x00"
SCORES = {
    "pass_at_1": {"value": 0.42, "low": 0.36, "high": 0.48},
    "maj_at_8": {"value": 0.5, "low": 0.4, "high": 0.6},
    "reward": {"value": 0.55, "low": 0.5, "high": 0.6},
    "well_formed": {"value": 0.9, "low": 0.8, "high": 0.95},
    "tokens": {"value": 47.2, "low": 40, "high": 50},
}


def in_terminal(runs: list[Run], width: int = 80) -> str:
    out = io.StringIO()
    show_runs(runs, Console(file=out, width=width, color_system=None))
    return out.getvalue()


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._tag = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self._tag == "script" and data.strip():
            self.scripts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._tag = ""


def test_the_summary_of_a_run_has_its_curve_its_parts_and_two_completions(make_run: RunMaker, scored: Maker) -> None:
    folder = make_run(
        "rl",
        metrics=[{"reward/mean": 0.2}, {"reward/mean": 0.7}],
        kept=[scored("p1"), scored("p2"), scored("p3", right=False)],
        state="done",
    )
    shown = in_terminal(read_runs(folder))
    assert "rl  rl  done  toy" in shown
    assert re.search(r"reward/mean +▁█ +0\.2 +0\.7", shown)
    assert re.search(r"0\.100 +0\.600 +0\.000 +0\.000 +0\.700", shown)  # correctness: two of three at 0.9
    assert ("p1: 1 + 1" in shown, "p2: 1 + 1" in shown, "p3: 1 + 1" in shown) == (True, False, True)


def test_a_folder_of_runs_is_a_table_of_its_evaluations_within_80_columns(
    make_run: RunMaker, tmp_path: Path, scored: Maker
) -> None:
    for i, name in enumerate(("eval-base", "eval-sft", "eval-rl")):
        make_run(name, stage="eval", kept=[scored("p1")], scores=SCORES, started=float(i), state="done", seconds=61)
    shown = in_terminal(read_runs(tmp_path / "runs"))
    for name in ("base", "after SFT", "after RL"):
        assert re.search(rf"^{name} +42\.0 % \(36\.0-48\.0\) +50\.0 % \(40\.0-60\.0\) +0\.55 +90\.0 % +47\.2 *$", shown, re.M)
    assert "1 min 01 s" in shown
    assert shown.count("held-out problem  p1") == 1


@pytest.mark.parametrize("state", ["running", "failed", "done"], ids=["killed", "failed", "done without steps"])
def test_a_run_with_nothing_in_it_is_shown(state: str, make_run: RunMaker) -> None:
    runs = read_runs(make_run("rl", state=state, error="TrainingFailed: the loss is nan"))
    assert "nothing measured yet" in in_terminal(runs)
    assert ("the loss is nan" in in_terminal(runs)) == (state == "failed")
    assert "None kept yet." in render(runs, title="rl")


def test_a_loss_that_is_not_a_number_is_said_and_not_drawn(make_run: RunMaker) -> None:
    runs = read_runs(make_run("sft", stage="sft", metrics=[{"loss": float("nan")}], state="failed"))
    assert "not a finite number" in in_terminal(runs)
    assert "<svg" not in render(runs, title="sft")


@pytest.mark.parametrize(
    "values",
    [(1e308, -1e308), (1e308, 1e308), (5e-324, 0.0), (1e16, 1e16 + 2), (-5e-324, -5e-324)],
    ids=["over the largest difference", "the largest", "under the least", "nearly the same", "least and the same"],
)
def test_any_finite_number_is_drawn(values: tuple[float, ...], make_run: RunMaker) -> None:
    runs = read_runs(make_run("sft", stage="sft", metrics=[{"loss": value} for value in values]))
    assert "loss" in in_terminal(runs)
    assert "<svg" in render(runs, title="sft")


def test_hostile_text_is_inert_in_the_terminal(make_run: RunMaker, scored: Maker) -> None:
    folder = make_run("rl", kept=[scored(HOSTILE, text=HOSTILE)], state=HOSTILE, error=HOSTILE)
    shown = in_terminal(read_runs(folder), width=300)
    assert not set(shown) & set(map(chr, [*range(10), *range(11, 32), 127]))
    assert "[red]␛]0;owned␇␛[2J␀" in shown  # and rich took it for no markup


def test_where_a_stage_began_stands_as_a_line_with_its_name_in_every_curve_and_in_words(make_run: RunMaker) -> None:
    folder = make_run("rl", metrics=[{"reward/mean": 0.1, "loss": 0.5}] * 4)
    note = "stage harder: length plateau <b>"
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 5, "time": 1.0, "values": {"reward/mean": 0.2}, "note": note}) + "\n")
        file.write(json.dumps({"step": 6, "time": 1.0, "values": {"reward/mean": 0.2, "loss": 0.4}}) + "\n")
    runs = read_runs(folder)
    page = render(runs, title="rl")
    assert page.count('<g class="mark"><title>after step 5: stage harder: length plateau &lt;b&gt;</title>') == 2
    assert page.count(">stage harder</text>") == 2
    assert "<b>" not in page
    assert f"after step 5: {note}" in in_terminal(runs)


def test_hostile_text_is_inert_in_the_report(make_run: RunMaker, scored: Maker) -> None:
    folder = make_run("rl", kept=[scored(HOSTILE, text=HOSTILE, family=HOSTILE)], error=HOSTILE)
    page = render(read_runs(folder), title=HOSTILE)
    elements = Elements(page)
    tags = [tag for tag, _ in elements.found]
    assert (tags.count("script"), tags.count("img"), len(elements.scripts)) == (1, 0, 1)
    assert "alert" not in elements.scripts[0]
    assert not [
        name for _, attributes in elements.found for name in attributes if name.startswith("on") or name in ("src", "href")
    ]
    assert not set(page) & set(map(chr, [*range(9), *range(11, 32), 127]))
    assert "{{ 7 * 7 }}" in page


def test_the_report_forbids_every_load_and_every_script_but_its_own(make_run: RunMaker, scored: Maker) -> None:
    page = render(read_runs(make_run("rl", kept=[scored()])), title="rl")
    elements = Elements(page)
    [policy] = [a["content"] or "" for tag, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(elements.scripts[0].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert f"script-src 'sha256-{digest}';" in policy
    assert not [a for _, a in elements.found if "style" in a]  # the policy would drop it
    assert not re.search(r"https?://|url\(|@import", page)


def test_the_report_says_all_of_a_completion(make_run: RunMaker, scored: Maker) -> None:
    page = render(read_runs(make_run("rl", kept=[scored(right=False)])), title="rl")
    assert 'data-step="1" data-outcome="wrong" data-family="chain_sum"' in page
    for said in (
        "3 is not 2",
        "format: one pair of marks",
        "3 tokens, ended by stop",
        "versions 3 to 4",
        "not trained on",
        "+0.100",
    ):
        assert said in page


def test_the_report_of_several_runs_has_scores_and_both_answers(make_run: RunMaker, tmp_path: Path, scored: Maker) -> None:
    for i, name in enumerate(("eval-base", "eval-rl")):
        make_run(name, stage="eval", kept=[scored("p1", text=f"answer of {name}")], scores=SCORES, started=float(i))
    page = render(read_runs(tmp_path / "runs"), title="runs")
    assert page.count("42.0 % (36.0-48.0)") == 4  # two evaluations, over all and by family
    assert "maj@8" in page
    before_and_after = page[page.index("Before and after") : page.index("<h2>Completions")]
    assert "answer of eval-base" in before_and_after
    assert "answer of eval-rl" in before_and_after


def test_the_report_keeps_a_bounded_number_of_completions_evenly(
    make_run: RunMaker, monkeypatch: pytest.MonkeyPatch, scored: Maker
) -> None:
    [run] = read_runs(make_run("rl", kept=[scored(f"p{i}") for i in range(10)]))
    monkeypatch.setattr(report, "MAX_COMPLETIONS", 4)
    shown, left_out = chosen([Shown(run="rl", kept=k) for k in run.kept])
    assert ([s.kept.problem_id for s in shown], left_out) == (["p0", "p2", "p5", "p7"], 6)
    assert "6 more are left out" in render([run], title="rl")


def test_a_text_without_end_is_cut(make_run: RunMaker, monkeypatch: pytest.MonkeyPatch, scored: Maker) -> None:
    monkeypatch.setattr(page, "MAX_CHARACTERS", 5)
    runs = read_runs(make_run("rl", kept=[scored(text="abcdefgh", family="ijklmnop")]))
    shown = render(runs, title="rl")
    assert "abcde\n… (3 more characters)" in shown
    assert "ijklmnop" not in shown
    long = scored("p\n" * 1000, text="x\n" * 1000)
    assert len(in_terminal(read_runs(make_run("long", kept=[long]))).splitlines()) < 110


def test_a_report_that_cannot_be_written_says_so(make_run: RunMaker, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="--report"):
        write_report(read_runs(make_run("rl")), tmp_path / "absent" / "report.html", title="rl")
