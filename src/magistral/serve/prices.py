"""What the same tokens would have cost at Mistral's API. Dated: a price holds from its day on."""

from __future__ import annotations

from dataclasses import dataclass

from magistral.serve.events import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    model: str
    since: str
    """ISO date."""
    prompt: float
    """US dollars a million tokens."""
    completion: float
    """Thinking is a part of the completion, and billed as such."""


PRICES = (
    Price(model="magistral-small", since="2025-06-10", prompt=0.5, completion=1.5),
    Price(model="magistral-medium", since="2025-06-10", prompt=2.0, completion=5.0),
)
"""From the models' cards at docs.mistral.ai, for 2506 to 2509."""


def price_of(model: str, day: str) -> Price:
    """The newest that held on that day; the first one before there was any."""
    prices = sorted((p for p in PRICES if p.model == model), key=lambda p: p.since)
    assert prices, f"no price of {model}"
    return next((p for p in reversed(prices) if p.since <= day), prices[0])


def cost(usage: Usage, price: Price) -> float:
    """US dollars."""
    return (usage.prompt * price.prompt + usage.completion * price.completion) / 1e6
