"""What Prometheus is told of a job: in a file for a textfile collector, or at a port while the job runs.

Names and units follow Prometheus' rules. Labels are bounded: ``cause`` is the class of an error, and of ``registry``
the first hundred are told apart. Spec: https://prometheus.io/docs/practices/naming/, its text format 0.0.4.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from fastoci.cli.results.recorder import Recorder

_REGISTRIES: Final = 100  # with a label of their own
_OTHER: Final = "other"
_RECEIVED: Final = "fastoci_prefetch_received_bytes"
_RETRIES: Final = "fastoci_prefetch_retries"
_SUCCESS_AT: Final = "fastoci_prefetch_last_success_timestamp_seconds"
_SUCCESS_S: Final = "fastoci_prefetch_last_success_duration_seconds"


class Metrics(Collector):
    """The metrics of a recorder, as they are when somebody asks; from any thread."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def text(self) -> bytes:
        """All of them, in the text format."""
        return generate_latest(self.registry)

    def go_on_from(self, text: str) -> None:
        """Let counters and the last success go on from what an earlier process wrote; of another form it is none."""
        values: dict[str, float] = {}
        with suppress(ValueError):
            for family in text_string_to_metric_families(text):
                counted = {_RECEIVED: self._recorder.received, _RETRIES: self._recorder.retries}.get(family.name)
                for sample in family.samples:
                    if counted is not None and sample.value.is_integer() and sample.value > 0:
                        counted[sample.labels.get("registry", "")] += int(sample.value)
                    values[sample.name] = sample.value
        if _SUCCESS_AT in values and _SUCCESS_S in values:
            self._recorder.last_success = (values[_SUCCESS_AT], values[_SUCCESS_S])

    def collect(self) -> Iterator[Metric]:
        """Each family."""
        yield from self._images()
        yield _by_registry(_RECEIVED, "Bytes that came from a registry.", self._recorder.received)
        yield _by_registry(_RETRIES, "Requests that were sent again.", self._recorder.retries)
        if (success := self._recorder.last_success) is not None:
            yield GaugeMetricFamily(_SUCCESS_AT, "When the last run ended that brought all images.", success[0])
            yield GaugeMetricFamily(_SUCCESS_S, "How long that run took.", success[1])
        yield from self._store()

    def _images(self) -> Iterator[Metric]:
        wanted, causes = self._failures()
        present = sum(image.is_there for image in list(self._recorder.images.values()))
        yield GaugeMetricFamily("fastoci_prefetch_images_wanted", "Images that are asked for.", wanted)
        yield GaugeMetricFamily("fastoci_prefetch_images_present", "Images of these that are in the store.", present)
        failed = GaugeMetricFamily(
            "fastoci_prefetch_images_failed", "Images of these that did not come.", labels=["cause"]
        )
        for cause, count in sorted(causes.items()):
            failed.add_metric([cause], count)
        yield failed

    def _failures(self) -> tuple[int, Counter[str]]:
        """How many images are wanted, and why how many of them did not come: by the result, or as known so far."""
        result, ended_by, causes = self._recorder.result, self._recorder.ended_by, Counter[str]()
        if result is not None:
            for outcome in result.failed:
                causes["skipped" if outcome.outcome == "skipped" else type(outcome.error).__name__] += 1
            return len(result.images), causes
        images = list(self._recorder.images.values())  # at once: the event loop goes on meanwhile
        for image in images:
            if image.failure is not None:
                causes[image.failure.kind] += 1
            elif ended_by and not image.is_there:
                causes[ended_by] += 1
        return len(images), causes

    def _store(self) -> Iterator[Metric]:
        if self._recorder.store_size is not None:
            size = self._recorder.store_size
            yield GaugeMetricFamily("fastoci_store_size_bytes", "Bytes of blobs, after the last run.", size)
        with suppress(OSError):
            if self._recorder.store is not None and (found := os.statvfs(self._recorder.store)).f_blocks:
                free = found.f_bavail * found.f_frsize
                yield GaugeMetricFamily("fastoci_store_free_bytes", "Bytes free in the store's file system.", free)


def _by_registry(name: str, text: str, counted: Mapping[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=["registry"])
    counted = dict(counted)  # at once, as above
    own = dict(islice(counted.items(), _REGISTRIES))
    if rest := sum(counted.values()) - sum(own.values()):
        own[_OTHER] = own.get(_OTHER, 0) + rest
    for registry, count in own.items():
        family.add_metric([registry], count)
    return family
