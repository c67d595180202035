"""Ray's processes: those of a cluster that is there, or some on this machine for as long as we need them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def cluster(n_cpus: int, *, address: str | None = None, store_bytes: int = 2**28) -> Iterator[None]:
    """`address`: of a cluster that is there; else one of our own, whatever others run, with so many cores and so much memory."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 would let any other process of the machine go first
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # whoever waits for several hears of the first, which is enough
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address:
        ray.init(address=address, **quiet)
    else:
        ray.init("local", num_cpus=n_cpus, include_dashboard=False, object_store_memory=store_bytes, **quiet)
    try:
        yield
    finally:
        ray.shutdown()
