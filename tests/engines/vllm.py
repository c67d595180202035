"""What the vllm engine's tests share: short requests, new weights, and patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from magistral.engines.base import Request
from magistral.engines.vllm import VllmEngine
from tests.engines.contract import PATIENCE_S

Make = Callable[..., VllmEngine]


def ask(key: str = "k", **changes: Any) -> Request:
    return Request(**{"prompt": (5, 9, 2), "seeds": (1, 2), "max_tokens": 6, "key": key, **changes})


def until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.001)


def weights(version: int) -> dict[str, torch.Tensor]:
    return {"norm.weight": torch.full((2,), float(version))}


def sent(engine: VllmEngine, version: int) -> VllmEngine:
    engine.load(weights(version), version)
    return engine
