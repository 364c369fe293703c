"""How much a job may use, as one frozen value."""

from __future__ import annotations

import os
from dataclasses import dataclass, field


def _cores() -> int:
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of an engine. Sizes are bytes, times seconds."""

    memory: int = 64 << 20  # bytes in spans (received, being hashed, inflated or written), and large zstd windows
    connections: int = 8  # blobs in flight at once; also connections per host
    workers: int = field(default_factory=_cores)  # threads that hash, write and unpack
    span_queue: int = 8  # spans that one blob may hold before its connection is paused
    manifest_size: int = 4 << 20  # bytes of one manifest, index or config
    layers: int = 512  # layers of one image
    index_depth: int = 4  # nested indexes
    unpacked_size: int = 100 << 30  # bytes of files that one image may unpack to
    unpacked_entries: int = 10_000_000  # files, directories and links of one image
    store_size: int = 0  # bytes that the store may hold for a pull to begin; 0 is no limit
    checkpoint: int = 8 << 20  # bytes that a killed fetch loses at most
    connect_s: float = 10.0
    read_s: float = 60.0  # silence on a connection

    def __post_init__(self) -> None:
        if self.memory < 4 << 20:  # a layer that is inflated needs two spans, a tapped one four
            raise ValueError(f"memory: {self.memory} bytes are too few, 4 MiB are the least")
        if min(self.connections, self.workers, self.span_queue) < 1:
            raise ValueError("connections, workers and span_queue are at least 1")
