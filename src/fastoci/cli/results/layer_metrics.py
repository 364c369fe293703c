"""What Prometheus is told of a differ: calls by what became of them, and the bytes, files and seconds of layers.

Labels are bounded. Spec: https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from fastoci.server.differ import Differ
    from fastoci.server.served import Served


class LayerMetrics(Collector):
    """The metrics of a differ, as they are when somebody asks; from any thread."""

    def __init__(self, differ: Differ) -> None:
        self._differ = differ
        self._calls: Counter[tuple[str, str]] = Counter()
        self._sums: Counter[str] = Counter()
        self._seconds = 0.0
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def count(self, served: Served) -> None:
        """A call has ended."""
        self._calls[served.method, served.outcome] += 1
        self._seconds += served.elapsed_s
        self._sums.update(layer=served.size, tar=served.tar_size, entries=served.entries)

    def collect(self) -> Iterator[Metric]:
        """Each family."""
        calls = CounterMetricFamily("fastoci_differ_calls", "Calls that have ended.", labels=["method", "outcome"])
        for labels, count in sorted(dict(self._calls).items()):  # at once: the event loop goes on meanwhile
            calls.add_metric(labels, count)
        yield calls
        yield GaugeMetricFamily("fastoci_differ_calls_under_way", "Calls that have not ended.", self._differ.under_way)
        yield CounterMetricFamily(
            "fastoci_differ_layer_bytes", "Bytes of layers, as they are kept.", self._sums["layer"]
        )
        yield CounterMetricFamily("fastoci_differ_tar_bytes", "Bytes of their tars.", self._sums["tar"])
        yield CounterMetricFamily("fastoci_differ_entries", "Entries of layers.", self._sums["entries"])
        yield CounterMetricFamily("fastoci_differ_seconds", "Seconds from calls to their answers.", self._seconds)
