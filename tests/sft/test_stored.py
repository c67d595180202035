"""Traces from files: the marks are the version's own, general instructions are mixed in, what is no trace is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from magistral.errors import RecipeError, UserError
from magistral.recipe import Recipe, load_recipe
from magistral.sft.stored import mixed, stored_traces
from magistral.text.tokens import byte_tokenizer

NANO = Path(__file__).parents[2] / "recipes" / "nano.toml"
TOKENIZER = byte_tokenizer()


def row(i: int, thinking: str = "so") -> str:
    return json.dumps({"question": f"{i} = ?", "thinking": thinking, "summary": f"\\boxed{{{i}}}", "n_tokens": 9}) + "\n"


def recipe(traces: Path, *more: str) -> Recipe:
    return load_recipe(NANO, (f'sft.traces=["{traces}"]', "sft.n_traces=30", *more))


def test_a_trace_is_its_problem_and_thinking_between_the_marks(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text(row(7))
    for named in (tmp_path, tmp_path / "traces.jsonl"):
        [trace] = stored_traces(recipe(named), TOKENIZER)
        assert TOKENIZER.decode(trace.tokens[:-1]) == "<think>\nso\n</think>\n\\boxed{7}"
        assert trace.tokens[-1] == TOKENIZER.eos
        assert "7 = ?" in TOKENIZER.decode(trace.prompt)


def test_the_system_prompt_stands_before_each_problem(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text(row(7))
    [trace] = stored_traces(recipe(tmp_path, "prompt.system='Think.'"), TOKENIZER)
    assert TOKENIZER.decode(trace.prompt).index("Think.") < TOKENIZER.decode(trace.prompt).index("7 = ?")


def test_no_more_than_asked_for_and_none_that_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text("".join(row(i, thinking="so " * (100 * (i % 2))) for i in range(100)))
    traces = stored_traces(recipe(tmp_path), TOKENIZER)
    assert len(traces) == 30
    assert len({trace.prompt for trace in traces}) == 30
    assert all(len(trace.prompt) + len(trace.tokens) <= 96 for trace in traces)


def test_a_tenth_of_all_is_general(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text("".join(row(i) for i in range(27)))
    conversation = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]}
    (tmp_path / "general.jsonl").write_text((json.dumps(conversation) + "\n") * 5)
    r = recipe(tmp_path, f'sft.general=["{tmp_path / "general.jsonl"}"]')
    traces = mixed(r, TOKENIZER, stored_traces(r, TOKENIZER))
    general = [t for t in traces if TOKENIZER.decode(t.tokens[:-1]) == "good day"]
    assert (len(traces), len(general)) == (30, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no trace in .* fits in model.window=96"),
        (row(1) + '{"question": "2 = ?"}\n', "traces.jsonl:2: no trace: 'thinking' is missing"),
        (row(1) + "{\n", "traces.jsonl:2: no JSON"),
        ("[]\n", "traces.jsonl:1: a line holds an object"),
    ],
    ids=["nothing", "no thinking", "no JSON", "a list"],
)
def test_what_is_no_trace_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "traces.jsonl").write_text(text)
    with pytest.raises(UserError, match=said):
        stored_traces(recipe(tmp_path), TOKENIZER)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"messages": []}', "general.jsonl:1: a conversation is"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "general.jsonl:1: a conversation is"),
        ('{"prompt": "a"}', "general.jsonl:1: a conversation is"),
    ],
    ids=["empty", "no user", "another form"],
)
def test_what_is_no_conversation_is_named(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "traces.jsonl").write_text("".join(row(i) for i in range(27)))
    (tmp_path / "general.jsonl").write_text(line + "\n")
    r = recipe(tmp_path, f'sft.general=["{tmp_path / "general.jsonl"}"]')
    with pytest.raises(UserError, match=said):
        mixed(r, TOKENIZER, stored_traces(r, TOKENIZER))


def test_too_few_conversations_are_counted(tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_text("".join(row(i) for i in range(27)))
    (tmp_path / "general.jsonl").write_text("")
    r = recipe(tmp_path, f'sft.general=["{tmp_path / "general.jsonl"}"]')
    with pytest.raises(RecipeError, match="holds 0 conversations that fit, 3 are needed for general_share"):
        mixed(r, TOKENIZER, stored_traces(r, TOKENIZER))
