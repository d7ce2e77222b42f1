"""What the server tells Prometheus. Every instance has a registry of its own."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from speech_server import contract
from speech_server.records import Outcome

# Each counter would bring a second series with the time at which it was made.
disable_created_metrics()

_FIRST_AUDIO_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2, 5, 10, 30)


class Metrics:
    """The counters and gauges by what they count; `render` is the exposition."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            contract.REQUESTS_METRIC,
            "Speech requests, by how they ended",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in Outcome:
            self.requests.labels(outcome)
        self.first_audio_seconds = Histogram(
            contract.FIRST_AUDIO_METRIC,
            "From the arrival of a request to its first sample on the way out",
            buckets=_FIRST_AUDIO_BUCKETS,
            registry=self.registry,
        )
        self.synthesis_seconds = Counter(
            contract.SYNTHESIS_SECONDS_METRIC,
            "Time that the engine worked",
            registry=self.registry,
        )
        self.audio_seconds = Counter(
            contract.AUDIO_SECONDS_METRIC,
            "Audio that the engine made, in seconds of playing time",
            registry=self.registry,
        )
        self.characters = Counter(
            contract.CHARACTERS_METRIC,
            "Characters of text accepted for synthesis",
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            contract.QUEUE_DEPTH_METRIC, "Requests waiting for a turn", registry=self.registry
        )
        self.running = Gauge(contract.RUNNING_METRIC, "Texts in synthesis", registry=self.registry)
        self.unread_audio_bytes = Gauge(
            contract.UNREAD_AUDIO_METRIC,
            "Audio made that clients have not taken yet",
            registry=self.registry,
        )
        self.ready = Gauge(
            contract.READY_METRIC, "1 while warm and not draining", registry=self.registry
        )

    def render(self) -> bytes:
        return generate_latest(self.registry)
