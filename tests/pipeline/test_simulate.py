"""The loop in virtual time, against settings whose outcome can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from magistral.pipeline.forecast import Speeds
from magistral.pipeline.roles import Pace
from magistral.pipeline.simulate import Setting, bottleneck, log_normal, simulate

FREE = Speeds(decode_s=1.0, row_s=0.0, cached_s=0.0, token_s=0.0, verify_s=0.0)


def setting(speeds: Speeds = FREE, *, in_flight: int = 2, per_batch: int = 2, n_tokens: int = 10) -> Setting:
    pace = Pace(groups_per_batch=per_batch, groups_in_flight=in_flight, last_version=6, max_skipped=1000)
    return Setting(
        speeds=speeds, lengths=lambda _: n_tokens, n_prompt=2, n_generators=1, n_slots=8, n_ranks=2, n_verifiers=1, group_size=2,
        micro_batch_tokens=12, dropped=0.0, pace=pace,
    )  # fmt: skip


def test_in_lockstep_a_step_is_writing_then_judging_then_training_then_sending() -> None:
    found = simulate(setting(replace(FREE, token_s=0.25, verify_s=0.5, broadcast_s=2.0)))
    # 10 tokens; two groups of two, one verifier, 0.5 s a completion; 4 micro-batches of 12 on two ranks; 2 s on the way
    assert found.step_s == pytest.approx(10 + 2 + 2 * 12 * 0.25 + 2)
    assert found.tokens_per_s == pytest.approx(40 / 20)
    assert found.staleness == 0
    assert found.generator_idle == pytest.approx(0.5)
    assert found.trainer_idle == pytest.approx(0.7)
    assert found.verifier_idle == pytest.approx(0.9)
    assert found.padding == 0


def test_with_twice_as_many_in_flight_writing_goes_on_while_the_trainer_trains() -> None:
    slow_trainer = replace(FREE, token_s=0.25)
    in_turn, at_once = simulate(setting(slow_trainer)), simulate(setting(slow_trainer, in_flight=4))
    assert in_turn.step_s == pytest.approx(16)
    assert at_once.step_s < in_turn.step_s
    assert 0 < at_once.staleness <= 2


def test_a_step_takes_longer_with_more_completions_and_more_tokens_in_the_cache() -> None:
    assert simulate(setting(replace(FREE, row_s=0.5))).step_s == pytest.approx(10 * (1 + 4 * 0.5))
    one, ten = (simulate(setting(replace(FREE, cached_s=0.01), n_tokens=n)).step_s for n in (1, 10))
    # four completions, whose prompts are of two tokens; of what is written half is there in the mean
    assert one == pytest.approx(1 + 0.01 * 4 * 2.5)
    assert ten == pytest.approx(10 + 0.01 * 4 * 10 * (2 + 5))


def test_ranks_wait_for_the_largest_micro_batch_of_their_turn() -> None:
    lengths = iter([10, 10, 4, 4] * 100)
    uneven = replace(setting(replace(FREE, token_s=1.0)), lengths=lambda _: next(lengths))
    # micro-batches of 12, 12 and 6 + 6 tokens: a second turn of one, for which the other rank has nothing
    assert simulate(uneven).padding == pytest.approx(1 - 36 / 48)


def test_the_bottleneck_is_what_would_help_most() -> None:
    _, what, gains = bottleneck(setting(replace(FREE, token_s=2.0)))
    assert what == "training"
    assert gains["training"] == pytest.approx((10 + 48) / (10 + 24))
    assert gains["broadcast"] == pytest.approx(1)


def test_the_same_seed_gives_the_same_forecast() -> None:
    tailed = replace(setting(in_flight=4), lengths=log_normal(20, 0.7, 100), dropped=0.3)
    assert simulate(tailed) == simulate(tailed)
