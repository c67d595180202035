from __future__ import annotations

from collections.abc import Iterator

import pytest

from magistral.verifiers.judges import Judges


@pytest.fixture(scope="module")
def judges() -> Iterator[Judges]:
    with Judges() as made:
        yield made
