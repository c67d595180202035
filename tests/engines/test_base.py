from __future__ import annotations

from collections.abc import Hashable

from magistral.engines.base import Request, Written, finished_groups


def test_a_group_is_given_back_once_it_is_whole_in_order_of_index() -> None:
    requests = {key: Request(prompt=(1,), seeds=(0,) * n, max_tokens=4, key=key) for key, n in {"a": 2, "b": 1}.items()}
    a0, a1, b0 = (Written(request=requests[key], index=i) for key, i in (("a", 0), ("a", 1), ("b", 0)))
    waiting: dict[Hashable, list[Written]] = {}
    assert finished_groups([a1], waiting) == []
    assert finished_groups([b0], waiting) == [[b0]]
    assert list(waiting) == ["a"]
    assert [[w.index for w in group] for group in finished_groups([a0], waiting)] == [[0, 1]]
    assert waiting == {}
