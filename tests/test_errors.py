"""Errors cross processes and end at the command line."""

from __future__ import annotations

import pickle

import pytest

from magistral import errors

ALL = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, errors.MagistralError)]


@pytest.mark.parametrize("error", ALL, ids=lambda e: e.__name__)
def test_an_error_survives_the_way_to_another_process(error: type[errors.MagistralError]) -> None:
    copy = pickle.loads(pickle.dumps(error("n_batch=7: make it 8")))
    assert type(copy) is error
    assert str(copy) == "n_batch=7: make it 8"


@pytest.mark.parametrize("error", ALL, ids=lambda e: e.__name__)
def test_what_cannot_be_done_as_asked_leaves_with_2_and_a_failed_run_with_1(error: type[errors.MagistralError]) -> None:
    assert error.exit_code == (2 if issubclass(error, errors.UserError) else 1)
