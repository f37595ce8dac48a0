"""What Prometheus scrapes; labels are routes, loaded models and statuses, never what a user sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
#: The media type of what `Metrics.text` returns.
MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one server.

    Attributes:
        requests: Answers by route, status and model.
        seconds: From the first byte to the answer, by route.
        stages: Seconds of a scored request by model and stage: queue, tokenisation, inference.
        pairs: Scored pairs by model.
        tokens: Their tokens, padding aside, by model.
        reloads: Reloads by model and result: loaded, failed.
        in_flight: Requests that are served now.
    """

    def __init__(self) -> None:
        """Make them, in a registry of their own."""
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("manylens_requests", "Answers.", ("route", "status", "model"), registry=registry)
        self.seconds = Histogram(
            "manylens_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS, registry=registry
        )
        self.stages = Histogram(
            "manylens_stage_seconds",
            "Time of a scored request in queue, tokenisation and inference.",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.pairs = Counter("manylens_pairs", "Scored pairs.", ("model",), registry=registry)
        self.tokens = Counter("manylens_tokens", "Their tokens, padding aside.", ("model",), registry=registry)
        self.reloads = Counter("manylens_reloads", "Reloads of a model.", ("model", "result"), registry=registry)
        self.in_flight = Gauge("manylens_requests_in_flight", "Requests that are served now.", registry=registry)
        self._rows = Histogram("manylens_batch_rows", "Pairs of a batch.", ("model",), buckets=_ROWS, registry=registry)
        self._computed = Counter(
            "manylens_batch_tokens", "Tokens of batches, padding included.", ("model",), registry=registry
        )

    def batch(self, model: str, rows: int, width: int) -> None:
        """Count a batch that was scored.

        Args:
            model: The model's name.
            rows: Its pairs.
            width: Tokens of each, padding included.
        """
        self._rows.labels(model).observe(rows)
        self._computed.labels(model).inc(rows * width)

    def scored(self, model: str, pairs: int, tokens: int, stages: Mapping[str, float]) -> None:
        """Count a request that was scored.

        Args:
            model: The model's name.
            pairs: Its pairs.
            tokens: Their tokens, padding aside.
            stages: Seconds by the name of the stage.
        """
        self.pairs.labels(model).inc(pairs)
        self.tokens.labels(model).inc(tokens)
        for stage, seconds in stages.items():
            self.stages.labels(model, stage).observe(seconds)

    def watch_queue(self, waiting: Callable[[], Iterable[tuple[str, int]]]) -> None:
        """Show how many pairs of each model wait or are scored, as `waiting` says when it is asked."""
        self._registry.register(_Queue(waiting))

    def text(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self._registry)


class _Queue(Collector):
    def __init__(self, waiting: Callable[[], Iterable[tuple[str, int]]]) -> None:
        self._waiting = waiting

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily("manylens_queue_pairs", "Pairs that wait or are scored now.", labels=("model",))
        for model, pairs in self._waiting():
            family.add_metric((model,), pairs)
        yield family
