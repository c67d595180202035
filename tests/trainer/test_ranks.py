"""Several ranks take the step that one would, and go on from each other's checkpoints. Real processes, over gloo."""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magistral.errors import TrainingFailed
from magistral.models.transformer import Transformer
from magistral.recipe_train import Lora, Rl
from magistral.trainer.collate import Item, collate
from magistral.trainer.ranks import ALONE, Ranks, free_address, joined
from magistral.trainer.trainer import Trainer

Arrays = dict[str, Any]
Act = Callable[..., Any]
MOST = 4
LENGTHS = (3, 4, 5, 6, 7, 3, 4)
ITEMS = [
    Item(prompt=(5, 9, 2), tokens=tuple(range(k, k + n)), weight=1 / 32, advantage=(-1.0) ** k, logprobs=(-4.0,) * n)
    for k, n in enumerate(LENGTHS)
]
LORA = Lora(rank=4, alpha=8.0, last_layers=1)


def rl(**changes: Any) -> Rl:
    values: dict[str, Any] = {
        "lr": 1e-3, "steps": 4, "group_size": 2, "n_batch": 4, "n_minibatch": 4, "n_async": 4, "eps_low": 0.2, "eps_high": 0.28,
        "temperature": 1.0, "max_tokens": 16, "micro_batch_tokens": 12, "max_grad_norm": 0.1,
    }  # fmt: skip
    return Rl(**(values | changes))


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("forkserver")  # torch is imported once, and the processes are forked from there
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(MOST, mp_context=context) as processes:
        yield processes


@pytest.fixture
def on(pool: ProcessPoolExecutor, tiny: Callable[..., Transformer], tmp_path: Path) -> Callable[..., list[Any]]:
    """`on(n, act)`: what each of `n` ranks answers; a single one is this process, without a group."""

    def run(n: int, act: Act, items: Sequence[Item] = ITEMS, **changes: Any) -> list[Any]:
        given = (tiny(), items, rl(**changes), tmp_path)
        if n == 1:
            return [act(*given, ALONE)]
        address = free_address()
        return [f.result() for f in [pool.submit(in_rank, rank, n, address, act, *given) for rank in range(n)]]

    return run


def in_rank(rank: int, n: int, address: str, act: Act, model: Transformer, *given: Any) -> Any:
    torch.set_num_threads(1)
    with joined(rank, n, address=address, limit_s=60) as ranks:
        return act(copy.deepcopy(model), *given, ranks)  # the given one may be shared memory


def trained(trainer: Trainer, items: Sequence[Item]) -> tuple[dict[str, float], Arrays]:
    values = trainer.step(items)
    return values, {name: tensor.clone().numpy() for name, tensor in trainer.all_weights()}


def two_steps(model: Transformer, items: Sequence[Item], training: Rl, folder: Path, ranks: Ranks) -> Any:
    trainer = Trainer(model, training, seed=0, ranks=ranks)
    trainer.step(items)
    trainer.save(folder)
    return (trainer.held_out_loss(items), sorted(trainer.changed_weights()), *trained(trainer, items))


def go_on(model: Transformer, items: Sequence[Item], training: Rl, folder: Path, ranks: Ranks) -> Any:
    trainer = Trainer(model, training, seed=0, ranks=ranks)
    trainer.restore(folder)
    return (trainer.n_steps, *trained(trainer, items))


def fail(model: Transformer, items: Sequence[Item], training: Rl, folder: Path, ranks: Ranks) -> Any:
    trainer = Trainer(model, training, seed=0, ranks=ranks)
    before = {name: tensor.clone() for name, tensor in trainer.all_weights()}
    with pytest.raises(TrainingFailed):
        trainer.step(items)
    return all(torch.equal(tensor, before[name]) for name, tensor in trainer.all_weights())


def near(one: Arrays, other: Arrays) -> bool:
    return one.keys() == other.keys() and all(np.allclose(one[name], other[name], rtol=0, atol=1e-5) for name in one)


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("lora", [None, LORA], ids=["every weight", "additions"])
def test_several_ranks_take_the_steps_that_one_takes(n: int, lora: Lora | None, on: Callable[..., list[Any]]) -> None:
    loss, names, values, weights = on(1, two_steps, lora=lora)[0]
    first, *others = on(n, two_steps, lora=lora)
    assert first[0] == pytest.approx(loss, abs=1e-5)
    assert first[1] == names
    assert first[2] == pytest.approx(values, abs=1e-5, rel=1e-4)
    assert near(first[3], weights)
    assert [other[2] for other in others] == [first[2]] * (n - 1)
    assert [(len(other[1]), other[3]) for other in others] == [(0, {})] * (n - 1)  # the first rank alone hands weights out


@pytest.mark.parametrize(("n_before", "n_after"), [(2, 1), (1, 2), (2, 4)])
def test_a_checkpoint_goes_on_at_another_number_of_ranks(n_before: int, n_after: int, on: Callable[..., list[Any]]) -> None:
    _, _, values, weights = on(n_before, two_steps)[0]
    n_steps, values_after, weights_after = on(n_after, go_on)[0]
    assert n_steps == 1
    assert values_after == pytest.approx(values, abs=1e-5, rel=1e-4)
    assert near(weights_after, weights)


def test_a_loss_that_is_no_number_on_one_rank_fails_the_step_of_all_and_changes_nothing(on: Callable[..., list[Any]]) -> None:
    broken = [replace(ITEMS[0], advantage=float("nan")), *ITEMS[1:]]
    assert on(2, fail, broken) == [True, True]


def test_ranks_have_equal_work_and_together_all_of_it() -> None:
    alone = collate(ITEMS, 12)
    shares = [collate(ITEMS, 12, share=(rank, 4)) for rank in range(4)]
    assert {len(share) for share in shares} == {-(-len(alone) // 4)}
    dealt = sorted(micro.target_N.tolist() for share in shares for micro in share if len(micro.target_N))
    assert dealt == sorted(micro.target_N.tolist() for micro in alone)
    assert len(alone) % 4  # so that some rank has a micro-batch of nothing
    assert sum(len(micro.target_N) == 0 for share in shares for micro in share) == -len(alone) % 4
