"""The page in Chromium: what a person does there, with keyboard alone and on a phone; axe finds no fault."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from magistral.serve.app import create_app
from magistral.serve.conversations import Conversations
from magistral.serve.runs import runs_routes
from magistral.serve.service import Service
from magistral.serve.site import site_routes
from magistral.serve.store import open_store
from tests.serve.fakes import Scripted, running, served
from tests.serve.test_accounts import accounts
from tests.serve.test_app import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = next((path for path in ("/usr/lib/chromium/chromium", shutil.which("chromium") or "") if Path(path).is_file()), "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs the package playwright"),
]
THOUGHT = "<think>\nThey ask for \\(17 \\times 23\\).\n\n17 * 20 = 340 and 17 * 3 = 52.\n\nSo it is 391.\n</think>\n"
SAID = (
    "## Result\n\nThe product is\n\n\\[\n17 \\times 23\n= \\boxed{391}\n\\]\n\n```python\nprint(17 * 23)\n```\n\n"
    "<img src=x onerror=alert(1)> [no](javascript:alert(1)) ![p](https://example.com/p.png) It costs $5 and $6."
)


def say(prompt: str) -> str:
    return SAID if prompt.endswith("</think>\n") else THOUGHT + SAID


@pytest.fixture(scope="module")
def engine() -> Scripted:
    return Scripted(say, n_slots=8)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("server") / "runs"


@pytest.fixture(scope="module")
def url(engine: Scripted, runs: Path) -> Iterator[str]:
    folder, run = runs.parent, runs / "nano"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"stage": "rl", "state": "running", "started": 1.0}))
    lines = [json.dumps({"step": i, "time": i, "values": {"reward/mean": i / 10}}) for i in range(1, 9)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    store = open_store(folder)
    gate = accounts(store, folder, keys_needed=False)
    pages = [*site_routes(gate, Conversations(store)), *runs_routes(gate, runs)]
    with running(create_app(Service([served(engine, max_tokens=2000)]), gate=gate, extra_routes=pages)) as address:
        yield address
    store.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    """A new profile; no error in the console and nothing from elsewhere, at the end."""
    context = browser.new_context(viewport={"width": 1200, "height": 850}, locale="en-US")
    opened, faults = context.new_page(), list[str]()
    opened.on("pageerror", lambda e: faults.append(str(e)))
    opened.on("console", lambda m: faults.append(m.text) if m.type == "error" else None)
    opened.on("request", lambda r: None if r.url.startswith((url, "blob:")) else faults.append(r.url))
    opened.goto(url)
    opened.wait_for_selector("#question:focus")
    yield opened
    context.close()
    assert faults == []


def ask(page: Page, text: str) -> None:
    page.fill("#question", text)
    page.keyboard.press("Enter")
    holds(page, "document.querySelector('#status').textContent !== '' && !document.querySelector('#send').hidden")


def holds(page: Page, condition: str) -> None:
    """Wait for it; Playwright's own way would need `eval`, which the page forbids."""
    until(lambda: page.evaluate(condition))


def faults(page: Page) -> list[tuple[str, str]]:
    import axe_playwright_python

    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found: Any = page.evaluate(
        "async () => (await axe.run()).violations.map(v => [v.id, v.nodes.map(n => n.html).join().slice(0, 300)])"
    )
    return [(fault, where) for fault, where in found]


def test_a_question_is_answered_with_the_thinking_folded_and_nothing_runs_or_loads(page: Page) -> None:
    ask(page, "What is 17 * 23?")
    assert page.inner_text(".assistant h2") == "Result"
    assert page.locator(".assistant .display .katex").count() == 1
    assert page.locator("code .hljs-built_in").count() == 1
    assert page.locator(".assistant img").count() == 0
    assert "$5 and $6" in page.inner_text(".assistant > .md")
    assert page.locator("a[href^=javascript]").count() == 0
    fold = page.locator(".thinking")
    assert fold.get_attribute("open") is None
    page.click(".thinking > summary")
    assert "17 * 20 = 340" in (fold.text_content() or "")
    assert "tokens" in page.inner_text(".thinking > summary")


def test_stop_and_answer_now(page: Page, engine: Scripted) -> None:
    engine.step_s = 0.01
    try:
        page.fill("#question", "stop this")
        page.keyboard.press("Enter")
        page.wait_for_selector(".thinking[open]")
        page.click("#answer-now")
        page.wait_for_selector("text=the answer was asked for")
        page.keyboard.press("Escape")
        page.fill("#question", "and this")
        page.keyboard.press("Enter")
        page.wait_for_selector("li:nth-child(4) .thinking[open]")
        page.keyboard.press("Escape")
        page.wait_for_selector("li:nth-child(4) >> text=Stopped.")
        label = page.inner_text("li:nth-child(4) .thinking > summary")
        assert re.fullmatch(r"Thought for [0-9.]*[1-9][0-9]* s", label), "how long, and no count of tokens: it never came"
    finally:
        engine.step_s = 0.0
    assert engine.cancelled


def test_a_reload_amid_the_answer_keeps_the_question_and_what_had_come(page: Page, engine: Scripted) -> None:
    engine.step_s = 0.1
    try:
        page.fill("#question", "reloaded amid it")
        page.keyboard.press("Enter")
        page.wait_for_selector("#conversations .open >> text=reloaded amid it")  # while it is still being written
        assert page.is_hidden("#send")
        said = "They ask for"
        page.wait_for_selector(f".thinking >> text={said}")
        holds(
            page, f"fetch('/api/conversations?q={said}').then(r => r.json()).then(r => r.data[0]?.title === 'reloaded amid it')"
        )
        page.reload()
    finally:
        engine.step_s = 0.0
    page.click("#conversations .open >> text=reloaded amid it")
    assert "reloaded amid it" in page.inner_text(".user")
    assert "Stopped." in page.inner_text(".assistant")
    assert said in (page.locator(".thinking").text_content() or "")
    page.click("text=Write anew")
    page.wait_for_selector(".assistant h2")
    holds(page, "!document.querySelector('#send').hidden")
    assert "Stopped." not in page.inner_text(".assistant")


def test_a_conversation_deleted_amid_its_answer_does_not_come_back(page: Page, engine: Scripted) -> None:
    engine.step_s = 0.05
    try:
        page.fill("#question", "deleted amid it")
        page.keyboard.press("Enter")
        page.wait_for_selector(".thinking[open]")
        page.click("[aria-label='Delete: deleted amid it']")
        page.wait_for_selector(".welcome")
        holds(page, "!document.querySelector('#send').hidden")
    finally:
        engine.step_s = 0.0
    ask(page, "another")  # saved after whatever the first would have saved
    holds(page, "[...document.querySelectorAll('#conversations .open')].some(e => e.textContent === 'another')")
    assert "deleted amid it" not in page.inner_text("#conversations")


def test_votes_and_checks_are_shown(page: Page) -> None:
    page.select_option("#votes", "3")
    page.check("#checks")
    ask(page, "vote")
    assert "agree" in page.inner_text(".assistant")
    assert page.locator(".checks .right").count() == 1
    assert page.locator(".checks .wrong").count() == 1
    margins = page.locator(".thinking .block:has-text('17 * 20 = 340') .margin > span")
    assert [margins.nth(i).text_content() for i in range(margins.count())] == ["✓", "✗"]


def test_flash_answers_at_once_and_can_be_thought_about(page: Page) -> None:
    page.check("#flash")
    ask(page, "quick")
    assert page.locator(".thinking:visible").count() == 0
    assert "tokens/s" in page.inner_text(".assistant")
    page.click("text=Think about it")
    page.wait_for_selector(".thinking:visible")
    page.wait_for_selector("#send:visible")
    assert "2 of 2" in page.inner_text(".assistant .tools")


def test_an_edited_question_is_a_branch_and_a_reload_finds_it_by_words_of_the_thinking(page: Page, url: str) -> None:
    ask(page, "first wording")
    page.click(".user >> text=Edit")
    page.fill("textarea.edit", "second wording")
    page.click(".user >> text=Send")
    page.wait_for_selector(".user >> text=2 of 2")
    page.wait_for_selector("#send:visible")
    page.click(".user [aria-label='Branch before']")
    assert "first wording" in page.inner_text("#log")
    page.reload()
    page.fill("#search", "they ask")
    page.wait_for_selector("#conversations .found")
    page.fill("#search", "second wording")
    holds(page, "document.querySelectorAll('#conversations li').length === 1")
    page.click("#conversations .open")
    holds(page, "document.querySelector('#log').textContent.includes('first wording')")  # the branch that was looked at


def test_a_conversation_is_exported_and_deleted(page: Page) -> None:
    ask(page, "to be exported")
    with page.expect_download() as download:
        page.click("#export")
    assert "<details>" in Path(download.value.path()).read_text(encoding="utf-8")
    page.click("[aria-label='Delete: to be exported']")
    holds(page, "![...document.querySelectorAll('#conversations .open')].some(e => e.textContent === 'to be exported')")


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    ask(page, "keys")
    page.keyboard.press("Shift+Tab")
    seen = set()
    for _ in range(30):
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 20)"))
        page.keyboard.press("Tab")
    assert {"send", "flash", "votes", "export"} <= seen


@pytest.mark.parametrize("language", ["en", "ar"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, language: str, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.select_option("#language", language)
    page.check("#checks")
    ask(page, "look")
    page.click(".thinking > summary")
    assert page.get_attribute("html", "dir") == ("rtl" if language == "ar" else "ltr")
    assert faults(page) == []


def test_runs_have_curves_and_axe_finds_nothing(page: Page) -> None:
    page.click("#tab-runs")
    page.wait_for_selector(".curve canvas")
    assert "killed" in page.inner_text("#run-state"), "nobody holds its lock"
    assert faults(page) == []


SIGNPOSTS: dict[str, tuple[str, list[str]]] = {
    "English": (
        "They ask.\n\nFirst, \\(x\\) * 1 is 2.\n\nSo on.\n\nWait, **no**.\n\nButter isn't.\n\nLet me check.\nWait, amid it.",
        ["First, x * 1 is 2.", "Wait, no.", "Let me check."],
    ),
    "numbers and headings": ("## Plan\n\n1. Add.\n\n2) Halve.\n\n391 it is.", ["Plan", "1. Add.", "2) Halve."]),
    "too few": ("Wait.\n\nBut no.", []),
    "long": ("Wait, " + "no " * 40 + "\n\nThen 1.\n\nThen 2.", ["Wait, " + "no " * 20 + "no…", "Then 1.", "Then 2."]),
    "Chinese": ("等等。\n\n让我检查。\n\n他走了。\n\n所以是5。", ["等等。", "让我检查。", "所以是5。"]),
    "Arabic": ("انتظر\n\nثم نجمع.\n\nلكن كيف؟", ["انتظر", "ثم نجمع.", "لكن كيف؟"]),
}


def test_an_outline_names_the_paragraphs_that_begin_with_a_signpost(page: Page) -> None:
    outline = "async (text) => (await import('./js/outline.js')).outline(text).map(({ at, text: line }) => [at, line])"
    for name, (text, lines) in SIGNPOSTS.items():
        found = page.evaluate(outline, text)
        assert [line for _, line in found] == lines, name
        assert all(at == 0 or text[at - 2 : at] == "\n\n" for at, _ in found)


def test_the_outline_of_a_trace_is_folded_and_leads_to_its_paragraphs_by_the_keyboard(page: Page, engine: Scripted) -> None:
    waits = [f"Wait, {i} + 1 = {i + 1}, since {' '.join(str(i * j) for j in range(20))} are multiples." for i in range(12)]
    trace = "\n\n".join(waits)
    said, engine.say = engine.say, lambda prompt: "yes" if prompt.endswith("</think>\n") else f"<think>\n{trace}\n</think>\nyes"
    page.check("#checks")  # their hidden words scroll with the log
    try:
        ask(page, "outline")
    finally:
        engine.say = said
    page.click(".thinking > summary")
    assert page.get_attribute(".outline", "open") is None
    page.focus(".outline > summary")
    page.keyboard.press("Enter")
    assert "(12)" in page.inner_text(".outline > summary")
    for _ in range(11):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the log scrolls, the page does not"
    assert "Wait, 10 + 1" in page.evaluate("document.activeElement.textContent")
    holds(page, "(r => r.top > 0 && r.bottom < innerHeight)(document.activeElement.getBoundingClientRect())")
    assert faults(page) == []


def kept_completions(run: Path, step: int) -> None:
    row = {
        "group": 0, "question": f"asked at {step}", "reference": "2", "reward_total": 1.0, "reward_reasons": ["box is 2"],
        "outcome": "right", "tokens": [1, 2], "text": "two",
    }  # fmt: skip
    (run / "traces").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row]), run / "traces" / f"step-{step:06d}.parquet")


def test_the_completions_of_any_step_of_a_run_can_be_chosen_and_the_newest_are_followed(page: Page, runs: Path) -> None:
    for step in (1, 2):
        kept_completions(runs / "nano", step)
    page.click("#tab-runs")
    page.wait_for_selector("#groups >> text=asked at 2")
    kept_completions(runs / "nano", 3)
    page.wait_for_selector("#groups >> text=asked at 3")
    page.select_option("#step", "1")
    page.wait_for_selector("#groups >> text=asked at 1")
    kept_completions(runs / "nano", 4)
    page.wait_for_selector("#step option[value='4']", state="attached")
    assert page.input_value("#step") == "1"
    assert "asked at 1" in page.inner_text("#groups")
    assert faults(page) == []


def test_an_empty_page_says_what_the_choices_do_in_every_language(page: Page) -> None:
    words = set()
    for language in ("en", "fr", "es", "de", "it", "ar", "ru", "zh"):
        page.select_option("#language", language)
        assert page.locator(".welcome dt").count() == page.locator(".welcome dd").count() == 4
        words |= set(page.locator(".welcome dd").all_inner_texts())
        assert page.locator(".welcome dt").all_inner_texts()[:1] == [page.inner_text("[data-t=flash]")]
        assert faults(page) == []
    assert len(words) == 8 * 4


def test_check_steps_with_nothing_to_check_says_why(page: Page, engine: Scripted) -> None:
    said, engine.say = engine.say, lambda prompt: "yes" if prompt.endswith("</think>\n") else "<think>\nhm\n</think>\nyes"
    try:
        page.check("#checks")
        ask(page, "is it?")
        assert "the thinking holds no calculation" in page.inner_text(".assistant")
        page.check("#flash")
        ask(page, "at once")
        assert "there was no thinking" in page.inner_text(".assistant:last-child")
    finally:
        engine.say = said


def test_no_runs_name_the_folder_and_what_to_do(page: Page, url: str, runs: Path) -> None:
    (runs / "nano").rename(runs.parent / "away")
    try:
        page.click("#tab-runs")
        holds(page, "!document.querySelector('#no-runs').hidden")
        assert str(runs) in page.inner_text("#runs-folder")
        assert "magistral rl" in page.inner_text("#no-runs")
        assert faults(page) == []
    finally:
        (runs.parent / "away").rename(runs / "nano")


def test_a_phone_shows_no_sideways_scroll_and_opens_the_list_by_a_button(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    ask(page, "a long question " * 20)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#menu")
    page.click("#conversations li:first-child .open")
    holds(page, "document.querySelector('#menu').getAttribute('aria-expanded') === 'false'")
    assert faults(page) == []


def test_first_paint_is_quick_and_a_long_trace_keeps_few_frames_late(page: Page) -> None:
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert paint < 5000  # on a busy machine; the numbers are taken by benchmarks
    blocks = page.evaluate(
        """async () => {
          const { Growing } = await import('./js/growing.js');
          const root = document.querySelector('#log').appendChild(document.createElement('li'));
          const growing = new Growing(root, 'copy');
          for (let i = 0; i < 2000; i++) growing.push(`step ${i}: 17 * 20 = 340, so we go on and on.\\n\\n`);
          await new Promise(requestAnimationFrame);
          await new Promise(requestAnimationFrame);
          const first = root.firstChild, early = root.children.length;
          growing.push('the end');
          await new Promise((drawn) => { growing.drawn = drawn; growing.finish(); });
          return [early < 2001, root.children.length, first === root.firstChild];
        }"""
    )
    assert blocks == [True, 2001, True], "drawn in slices, and what is finished is not drawn again"
