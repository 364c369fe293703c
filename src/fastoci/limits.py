"""Every bound of an engine, as one frozen value; what follows from the bounds together. Enforces none of them."""

from __future__ import annotations

import math
import os
import sys
from typing import Final, Literal

import msgspec

from fastoci.arguments import at_least, expect

LAYER_MEMORY: Final = 6 << 20  # bytes of ``memory`` for a layer being unpacked: three buffers, five when it is teed
_LEAST_MEMORY: Final = 4 << 20  # a layer that is inflated needs two buffers, a teed one four
_SHARED: Final = ("connections", "total_connections", "bandwidth")  # of a job, by its processes

Level = Literal["commit", "blobs", "batch", "none"]  # of durability
_REGISTRIES: Final = 4  # whose blobs are in flight in full number
_SHARE: Final = 64 << 10  # bytes a second: servers give a client up that takes nothing for 60 s or less
DOCUMENT: Final = 4 << 20  # bytes of one manifest, index or config


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class Limits(msgspec.Struct, frozen=True):
    """The bounds of an engine. Sizes are bytes, times seconds.

    Raises:
        ValueError: memory or a count is too small to do any work, or one too large.
    """

    memory: int = 64 << 20  # bytes in buffers (received, being hashed, inflated or written), and large zstd windows
    connections: int = 8  # to one host; also blobs in flight from one registry
    total_connections: int = 0  # to all hosts; 0: what ``flights`` says, for blobs alone
    bandwidth: int = 0  # bytes a second of all bodies together; 0 is no limit
    request_rate: float = 0.0  # requests a second to one host; 0 is no limit
    workers: int = msgspec.field(default_factory=_cores)  # threads that hash, write and unpack
    buffer_queue: int = 8  # buffers that one blob may hold before its connection is paused
    manifest_size: int = DOCUMENT  # bytes of one manifest, index or config
    layers: int = 512  # layers of one image
    index_depth: int = 4  # nested indexes
    index_entries: int = 10_000  # what one index names
    documents: int = 64  # indexes and manifests that one name may have a pull read
    documents_size: int = 16 << 20  # bytes of them together
    attachments: int = 1_000  # documents that hang on one image and on each other, of ``documents_size`` together
    archive_members: int = 65_536  # files, directories and links of one archive of images
    unpacked_size: int = 100 << 30  # bytes of files, xattrs and long names that one image may unpack to
    unpacked_entries: int = 10_000_000  # files, directories and links of one image
    layer_directories: int = 1_000_000  # that one layer makes or reaches, at about 130 bytes of memory each
    # What is synced before it has its name: blobs and trees ("commit"), blobs, large blobs and the others once a job
    # ("batch"), nothing.
    durability: Level = "blobs"
    store_size: int = 0  # bytes that the store may hold for a pull to begin; 0 is no limit
    checkpoint: int = 8 << 20  # bytes that a killed fetch may lose
    connect_s: float = 10.0
    read_s: float = 30.0  # silence on a connection
    first_byte_s: float | None = None  # before an answer; None: 5 min at a server that has answered before, else read_s
    max_wait_s: float = 60.0  # the longest wait that a registry may ask for; beyond, it is an error
    holder_s: float = 1800.0  # without progress of another process that fetches a blob: longer than any wait of it

    @property
    def flights(self) -> int:
        """Blobs in flight at once, over all registries: so many that a few dead ones do not hold all of them.

        Four times as many as from one, as far as ``memory`` has a buffer for each beside the layers that are unpacked.
        And no more than have a share of ``bandwidth`` that no server takes for a client which is gone.
        """
        buffers = (self.memory - self.layers_at_once * LAYER_MEMORY) >> 20
        usual = max(self.connections, min(_REGISTRIES * self.connections, buffers))
        return min(self.total_connections or usual, self._most)

    @property
    def _most(self) -> int:
        """Blobs in flight that the other bounds allow."""
        total = self.total_connections or sys.maxsize
        return min(total, max(1, self.bandwidth // _SHARE)) if self.bandwidth else total

    @property
    def layers_at_once(self) -> int:
        """Layers that are unpacked at a time, over all images; 0 when none may hold its buffers for long.

        Twice as many as threads, so that their hashes share lanes. And while a layer's tee is full its flight has a
        connection: one is left, for what its reader needs.
        """
        return min(2 * self.workers, min(self.connections, self._most) - 1, self.memory // LAYER_MEMORY)

    @property
    def ahead(self) -> int:
        """Bytes of ``memory`` that fetches may hold ahead of their use.

        The rest is for what must go on meanwhile: a buffer for each connection to one host, and the layers that are
        unpacked. ``Buffers.streams`` takes those of more hosts out of it.
        """
        return max(0, self.memory - (self.connections << 20) - self.layers_at_once * LAYER_MEMORY)

    def divided(self, parts: int) -> tuple[Limits, ...]:
        """The limits of ``parts`` processes that fetch for one job, beside the process of the job, which unpacks.

        All that they have together is no more than what there is. They are fewer where one could do no work.
        """
        memory = self.memory - self.layers_at_once * LAYER_MEMORY
        shared = {name: value for name in _SHARED if (value := getattr(self, name))}  # 0 is no limit
        parts = max(1, min(parts, self.connections, self._most, memory // _LEAST_MEMORY))
        shared |= {"memory": memory, "workers": max(self.workers, parts)}
        share = msgspec.structs.replace(self, request_rate=self.request_rate / parts)
        return tuple(
            msgspec.structs.replace(share, **{name: (value + number) // parts for name, value in shared.items()})
            for number in range(parts)
        )

    def __post_init__(self) -> None:
        for name in ("connections", "workers", "buffer_queue"):
            at_least(1, getattr(self, name), name)
        for name in ("total_connections", "bandwidth"):
            at_least(0, getattr(self, name), name)
        if not 0 <= self.request_rate < math.inf:
            raise ValueError(f"request_rate: {self.request_rate} is no number of requests a second")
        expect(int, self.memory, "memory")
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, int) and value > sys.maxsize:
                raise ValueError(f"{name}: {value} is too large, {sys.maxsize} is the most")
        if self.memory < _LEAST_MEMORY:
            raise ValueError(f"memory: {self.memory} bytes are too few, 4 MiB are the least")
        if self.memory > 1 << 40:  # the pool has a place for each buffer that there may be
            raise ValueError(f"memory: {self.memory} bytes are too many, 1 TiB is the most")
