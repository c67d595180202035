"""The trainer's step: what it starts from, what may not change it, and that it can be taken up again."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from magistral.engines.base import Request
from magistral.engines.native.engine import NativeEngine
from magistral.errors import RunFolderError, TrainingFailed
from magistral.models.transformer import Masked, Transformer
from magistral.recipe_train import Lora, Rl, Sft
from magistral.trainer.collate import Item, collate
from magistral.trainer.trainer import Trainer

Tiny = Callable[..., Transformer]
LORA = Lora(rank=4, alpha=8.0, last_layers=1)


def rl(**changes: Any) -> Rl:
    values: dict[str, Any] = {
        "lr": 1e-3, "steps": 4, "group_size": 2, "n_batch": 4, "n_minibatch": 4, "n_async": 4, "eps_low": 0.2, "eps_high": 0.28,
        "temperature": 1.0, "max_tokens": 16,
    }  # fmt: skip
    return Rl(**(values | changes))


def sft(**changes: Any) -> Sft:
    return Sft(**({"lr": 1e-3, "n_traces": 4, "n_batch": 4} | changes))


def written(model: Transformer, temperature: float = 1.0) -> list[Item]:
    """Two groups of two by the generator, with advantages."""
    engine = NativeEngine(model, 63, n_slots=4, window=64)
    for key, prompt in enumerate(((5, 9, 2), (30, 31))):
        engine.submit(Request(prompt=prompt, seeds=(2 * key, 2 * key + 1), max_tokens=8 + key, temperature=temperature, key=key))
    done = []
    while not engine.idle:
        done += engine.step()
    done.sort(key=lambda w: (int(str(w.request.key)), w.index))
    return [
        Item(
            prompt=w.request.prompt, tokens=tuple(w.tokens), weight=1 / 34, advantage=(-1.0) ** w.index,
            logprobs=tuple(w.logprobs),
        )
        for w in done
    ]  # fmt: skip


def state(model: Transformer) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
@pytest.mark.parametrize("lora", [None, LORA], ids=["every weight", "additions"])
def test_before_the_first_update_trainer_and_generator_agree(temperature: float, lora: Lora | None, tiny: Tiny) -> None:
    model = tiny()
    items = written(model, temperature)
    trainer = Trainer(model, rl(lora=lora), seed=0, temperature=temperature)
    (micro,) = collate(items, 1024)
    assert (trainer.logprobs(micro) - micro.sampled_logp_N).abs().max() <= 1e-4
    values = trainer.step(items)
    assert values["ratio_mean"] == pytest.approx(1.0, abs=1e-4)
    assert values["clip_share"] == 0
    assert values["kl_to_sampled"] == pytest.approx(0.0, abs=1e-6)
    # at ratio 1 the loss is minus the weighted sum of the advantages
    assert values["loss"] == pytest.approx(-sum(i.advantage * len(i.tokens) / 34 for i in items), abs=1e-4)


def test_a_generator_that_loads_the_changed_weights_agrees_again(tiny: Tiny) -> None:
    for lora in (None, LORA):
        model = tiny()
        engine = NativeEngine(model, 63, n_slots=4, window=64)
        trainer = Trainer(model, rl(lora=lora, lr=1e-2), seed=0)
        trainer.step(written(tiny()))
        agrees = []
        for _ in range(2):
            engine.submit(Request(prompt=(5, 9), seeds=(0,), max_tokens=8))
            while not engine.idle:
                done = engine.step()
            (micro,) = collate([Item(prompt=(5, 9), tokens=tuple(done[0].tokens), weight=1.0)], 64)
            agrees.append(trainer.logprobs(micro).tolist() == pytest.approx(done[0].logprobs, abs=1e-4))
            engine.load(trainer.changed_weights(), version=1)
        assert agrees == [False, True]


@pytest.mark.parametrize("limit", [1, 15, 30])
def test_the_size_of_micro_batches_changes_nothing(limit: int, tiny: Tiny) -> None:
    results = []
    items = written(tiny(seed=7))
    assert len(collate(items, limit)) > 1 == len(collate(items, 1024))
    for micro_batch_tokens in (1024, limit):
        model = tiny()
        trainer = Trainer(model, rl(micro_batch_tokens=micro_batch_tokens), seed=0)
        values = trainer.step(items)
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((values, gradients, state(model)))
    (values, gradients, weights), (values_2, gradients_2, weights_2) = results
    names = values.keys() - {"n_inputs"}  # a beginning shared across micro-batches is computed in each
    assert {n: values[n] for n in names} == pytest.approx({n: values_2[n] for n in names}, abs=1e-5)
    assert max(float((gradients[n] - gradients_2[n]).abs().max()) for n in gradients) < 1e-6
    assert max(float((weights[n] - weights_2[n]).abs().max()) for n in weights) < 1e-6


def test_one_step_makes_the_better_completion_likelier_and_the_worse_less_likely(tiny: Tiny) -> None:
    model = tiny()
    items = written(model)[:2]
    trainer = Trainer(model, rl(), seed=0)
    trainer.step(items)
    better, worse = (trainer.logprobs(collate([i], 64)[0]).sum() - sum(i.logprobs or ()) for i in items)
    assert better > 0 > worse


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_no_number_fails_the_run_and_leaves_the_weights(broken: float, tiny: Tiny) -> None:
    model = tiny()
    items = written(model)
    trainer = Trainer(model, rl(), seed=0)
    trainer.step(items)
    before, moments = state(model), copy.deepcopy(trainer.optimizer.state_dict()["state"])
    bad = Item(prompt=(1,), tokens=(2,), weight=1.0, advantage=broken, logprobs=(-1.0,))
    with pytest.raises(TrainingFailed, match="step 2"):
        trainer.step([*items, bad])
    assert equal(state(model), before)
    for i, kept in moments.items():
        assert equal(kept, trainer.optimizer.state_dict()["state"][i])
    assert trainer.n_steps == 1


@pytest.mark.parametrize("lora", [None, LORA], ids=["every weight", "additions"])
def test_a_restored_trainer_goes_on_bit_for_bit(lora: Lora | None, tiny: Tiny, tmp_path: Path) -> None:
    items = written(tiny())
    training = rl(lora=lora, warmup_steps=3)
    model = tiny()
    whole = Trainer(model, training, seed=0)
    whole.step(items)
    whole.save(tmp_path)
    values = whole.step(items)
    again = tiny()
    resumed = Trainer(again, training, seed=0)
    resumed.restore(tmp_path)
    assert resumed.step(items) == values
    assert equal(state(again), state(model))
    assert resumed.n_steps == 2


def test_a_state_of_another_recipe_or_a_broken_one_is_refused_and_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    for name in ("lora", "broken", "half", "no"):
        (tmp_path / name).mkdir()
    Trainer(tiny(), rl(lora=LORA), seed=0).save(tmp_path / "lora")
    (tmp_path / "broken" / "trainer-0-of-1.safetensors").write_bytes(b"not a state")
    Trainer(tiny(), rl(), seed=0).save(tmp_path / "half")
    (tmp_path / "half" / "trainer-0-of-1.safetensors").rename(tmp_path / "half" / "trainer-0-of-2.safetensors")
    model = tiny(seed=3)
    trainer, before = Trainer(model, rl(), seed=0), state(model)
    for name, message in (
        ("lora", "another recipe"),
        ("broken", "cannot be read"),
        ("half", "no whole state"),
        ("no", "no whole state"),
    ):
        with pytest.raises(RunFolderError, match=message):
            trainer.restore(tmp_path / name)
    assert equal(state(model), before)


def test_the_learning_rate_rises_over_the_warm_up(tiny: Tiny) -> None:
    trainer = Trainer(tiny(), rl(warmup_steps=3, lr=1e-4), seed=0)
    items = written(tiny())
    assert [trainer.step(items)["lr"] for _ in range(5)] == pytest.approx([0.25e-4, 0.5e-4, 0.75e-4, 1e-4, 1e-4])


def test_the_gradient_is_clipped_to_its_norm_and_the_norm_before_is_reported(tiny: Tiny) -> None:
    items = written(tiny())
    model = tiny()
    free = Trainer(tiny(), rl(max_grad_norm=1e9), seed=0).step(items)["grad_norm"]
    assert Trainer(model, rl(max_grad_norm=free / 4), seed=0).step(items)["grad_norm"] == pytest.approx(free)
    norm = math.sqrt(sum(float((p.grad**2).sum()) for p in model.parameters() if p.grad is not None))
    assert norm == pytest.approx(free / 4, rel=1e-4)


def test_supervised_steps_lower_the_held_out_loss_of_what_they_learn(tiny: Tiny) -> None:
    model = tiny()
    items = [Item(prompt=(1, 2), tokens=(3, 4, 5), weight=1 / 5), Item(prompt=(6,), tokens=(7, 8), weight=1 / 5)]
    trainer = Trainer(model, sft(), seed=0)
    by_hand = 0.0
    with torch.no_grad():
        for item in items:
            tokens = torch.tensor([[*item.prompt, *item.tokens]])
            logp = model.lm_head(model(tokens, torch.arange(tokens.shape[1])[None], Masked()))[0].log_softmax(-1)
            by_hand -= sum(float(logp[len(item.prompt) - 1 + t, token]) for t, token in enumerate(item.tokens)) / 5
    assert trainer.held_out_loss(items) == pytest.approx(by_hand, abs=1e-5)
    values = trainer.step(items)
    assert values["loss"] == pytest.approx(by_hand, abs=1e-5)
    assert (values["n_tokens"], values["n_inputs"]) == (5, 6)  # of each, the last token is only predicted
    assert trainer.held_out_loss(items) < by_hand


@pytest.mark.parametrize("lora", [None, LORA], ids=["every weight", "additions"])
def test_computing_activations_again_changes_no_bit(lora: Lora | None, tiny: Tiny) -> None:
    items = written(tiny())
    kept, again = tiny(), tiny()
    assert Trainer(kept, rl(lora=lora), seed=0).step(items) == Trainer(again, rl(lora=lora, recompute=True), seed=0).step(items)
    assert equal(state(kept), state(again))


def test_logits_in_parts_give_the_step_of_logits_at_once(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    items = written(tiny())
    whole, parts = Trainer(tiny(), rl(), seed=0), Trainer(tiny(), rl(), seed=0)
    values = whole.step(items)
    monkeypatch.setattr("magistral.trainer.logprobs.HEAD_ROWS", 5)
    assert parts.step(items) == pytest.approx(values, rel=1e-4, abs=1e-6)
    micro = collate(items, 64)[0]
    assert parts.logprobs(micro).tolist() == pytest.approx(whole.logprobs(micro).tolist(), abs=1e-4)
