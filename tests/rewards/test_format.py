"""The format: one pair of marks at the start, and an answer in its form."""

from __future__ import annotations

import pytest

from magistral.rewards.format import format_fault
from magistral.text.trace import parse


@pytest.mark.parametrize(
    ("text", "kind", "fault"),
    [
        (r"<think>a</think>\boxed{5}", "math", ""),
        (r"<think></think>\boxed{5}", "math", ""),
        (r"<think>a</think>\boxed{}", "math", ""),
        (r"<think>\boxed{5}</think>5", "math", "no \\boxed{} after the closing mark"),
        (r"<think>a</think>\boxed{5", "math", "no \\boxed{} after the closing mark"),
        (r"\boxed{5}", "math", "no opening mark"),
        (r"<think>a \boxed{5}", "math", "no closing mark"),
        (r"Well, <think>a</think>\boxed{5}", "math", "text before the opening mark"),
        (r"<think>a</think><think>b</think>\boxed{5}", "math", "more than one pair of marks"),
        ("<think>a</think>\n```python\npass\n```", "code", ""),
        ("<think>\n```python\npass\n```\n</think>done", "code", "no code block with a language after the closing mark"),
        ("<think>a</think>\n```\npass\n```", "code", "no code block with a language after the closing mark"),
        ("<think>a</think>C", "choice", ""),
    ],
    ids=[
        *(
            "math",
            "thinking may be empty",
            "an empty box is a box",
            "box in the thinking only",
            "unclosed box",
            "no marks",
            "no end",
        ),
        *("text before", "two pairs", "code", "code in the thinking only", "code without language", "a kind without a form"),
    ],
)
def test_the_format_is_kept_or_the_fault_is_named(text: str, kind: str, fault: str) -> None:
    assert format_fault(parse(text), kind) == fault
