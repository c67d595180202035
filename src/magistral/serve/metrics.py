"""What Prometheus reads at /metrics. No label holds anything a client wrote, but for the name of a served model."""

from __future__ import annotations

import time
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from magistral.serve.events import Note
from magistral.serve.service import Service, Ticket

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
N_TOKENS = (10, 30, 100, 300, 1000, 3000, 10_000, 30_000)


class _Queues(Collector):
    def __init__(self, service: Service) -> None:
        self.service = service

    def collect(self) -> Iterable[Metric]:
        waiting = GaugeMetricFamily("magistral_waiting", "Completions that wait for a free row", labels=["model"])
        writing = GaugeMetricFamily("magistral_writing", "Completions that are being written", labels=["model"])
        step = GaugeMetricFamily("magistral_step_seconds", "Moving mean of the seconds of one step", labels=["model"])
        ready = GaugeMetricFamily("magistral_engines_ready", "Engines of the model that can write", labels=["model"])
        for name, pool in self.service.pools.items():
            waiting.add_metric([name], pool.n_waiting)
            writing.add_metric([name], pool.n_writing)
            step.add_metric([name], pool.step_s)
            ready.add_metric([name], pool.n_ready)
        yield from (waiting, writing, step, ready)


def _seconds(name: str, what: str, registry: CollectorRegistry) -> Histogram:
    return Histogram(name, what, ["model"], buckets=SECONDS, registry=registry)


class Metrics:
    def __init__(self, service: Service) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Queues(service))
        on = self.registry
        self.requests = Counter("magistral_requests", "Requests answered", ["dialect", "status"], registry=on)
        self.tokens = Counter("magistral_tokens", "Tokens by phase", ["model", "phase"], registry=on)
        self.ends = Counter("magistral_completions", "Completions by why they ended", ["model", "end"], registry=on)
        self.notes = Counter("magistral_notes", "What the server did or saw in completions", ["kind"], registry=on)
        self.first = _seconds("magistral_first_token_seconds", "From request to first text", on)
        self.whole = _seconds("magistral_request_seconds", "From request to its last token", on)
        what = "Tokens of thinking a completion"
        self.thinking = Histogram("magistral_thinking_tokens", what, ["model"], buckets=N_TOKENS, registry=on)

    def done(self, ticket: Ticket) -> None:
        model, usage = ticket.served.name, ticket.usage
        for phase, n in (("prompt", usage.prompt), ("thinking", usage.thinking), ("answer", usage.answer)):
            self.tokens.labels(model, phase).inc(n)
        for ended in ticket.ends.values():
            self.ends.labels(model, ended.end.value).inc()
            self.thinking.labels(model).observe(ended.usage.thinking)
        if ticket.first_token:
            self.first.labels(model).observe(ticket.first_token - ticket.started)
        self.whole.labels(model).observe(time.monotonic() - ticket.started)

    def note(self, note: Note) -> None:
        self.notes.labels(note.kind).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)
