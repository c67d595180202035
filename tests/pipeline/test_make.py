"""What each role's workers are sent."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from tests.pipeline import tiny_run


@pytest.mark.parametrize(
    ("changes", "without_weights"),
    [((), False), (('engine.kind="vllm"',), True), (('engine.kind="vllm"', "rl.lora={rank=2,alpha=4}"), False)],
    ids=["native", "vllm, which is sent every weight", "vllm, which is sent the trained ones"],
)
def test_a_generator_is_sent_the_model_where_it_needs_it(changes: tuple[str, ...], without_weights: bool, tmp_path: Path) -> None:
    parts = tiny_run.ingredients(tmp_path, *changes)
    sent = parts.to_write()
    assert all(weight.is_meta == without_weights for weight in sent.model.parameters())
    assert {n: w.shape for n, w in sent.model.named_parameters()} == {n: w.shape for n, w in parts.model.named_parameters()}
    assert (len(pickle.dumps(sent)) < parts.n_bytes) == without_weights


def test_a_verifier_is_sent_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra `ray`")
    from magistral.pipeline import runtime_ray
    from magistral.pipeline.crew import Crew
    from magistral.pipeline.waits import Waits

    parts = tiny_run.ingredients(tmp_path)
    monkeypatch.setattr(ray, "put", lambda value: value)
    crew = Crew(parts.recipe.runtime, Waits())
    runtime_ray._hire(crew, parts)
    sent = {worker.name: worker._arguments[0] for worker in crew.workers}
    assert sent == {"generator-0": parts, "verifier-0": parts.make_scorer, "trainer": [parts]}
