"""What every ``BlobSource`` holds to: the bytes in order, from any offset, and never one too many."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

from fastoci import _core
from fastoci.errors import FastociError, IntegrityError, RegistryError, StoreError, TransportError
from fastoci.image.descriptor import Descriptor
from fastoci.interfaces import BlobSource, CorruptionAwareSource
from fastoci.testing.suites.filling import NOWHERE, blob_of, collect, finish, raises
from fastoci.transfer.buffers import Buffers

_MIB: Final = 1 << 20
_REFUSALS: Final = (IntegrityError, TransportError, RegistryError, StoreError)


class BlobSourceSuite:
    """Subclass it and define ``open``. ``one_blob``: the source is made for one blob and ignores others."""

    one_blob = False

    def open(self, blobs: Mapping[Descriptor, bytes]) -> AbstractAsyncContextManager[BlobSource]:
        """Open a source that has these blobs: what it sends for a descriptor are these bytes, right or wrong."""
        raise NotImplementedError

    def test_a_blob_comes_whole_and_in_order(self) -> None:
        async def run() -> None:
            for size in (1, 4095, _MIB, 3 * _MIB + 5):
                blob, data = blob_of(size)
                buffers = Buffers(_core.Pool(4 * _MIB, poison=True))
                async with self.open({blob: data}) as source:
                    assert source.name, "a source has a name for messages"
                    assert await collect(source.fetch(blob, 0, buffers)) == data, f"of {size} bytes"
                assert buffers.pool.in_use == 0, "a buffer was kept"

        finish(run())

    def test_a_blob_comes_from_an_offset_on(self) -> None:
        async def run() -> None:
            blob, data = blob_of(3 * _MIB)
            buffers = Buffers(_core.Pool(4 * _MIB, poison=True))
            async with self.open({blob: data}) as source:
                for offset in (1, _MIB, 2 * _MIB + 7, 3 * _MIB - 1):
                    assert await collect(source.fetch(blob, offset, buffers)) == data[offset:], f"from {offset} on"

        finish(run())

    def test_a_transfer_that_is_ended_early_gives_its_buffers_back_and_another_can_begin(self) -> None:
        async def run() -> None:
            blob, data = blob_of(6 * _MIB)
            buffers = Buffers(_core.Pool(4 * _MIB, poison=True))
            async with self.open({blob: data}) as source:
                for _ in range(3):
                    assert data.startswith(await collect(source.fetch(blob, 0, buffers), until=_MIB))
                    assert buffers.pool.in_use == 0, "a transfer that ended has a buffer"
                assert await collect(source.fetch(blob, 0, buffers)) == data

        finish(run())

    def test_bytes_that_are_too_few_or_too_many_are_an_error_and_none_is_beyond_the_size(self) -> None:
        async def run() -> None:
            blob, data = blob_of(2 * _MIB)
            for sent in (data[:-1], data[: _MIB // 2], data + b"x", data + data):
                buffers = Buffers(_core.Pool(4 * _MIB, poison=True))
                async with self.open({blob: sent}) as source:
                    size = 0
                    with raises(_REFUSALS, f"{len(sent)} of {blob.size} bytes"):
                        stream = source.fetch(blob, 0, buffers)
                        try:
                            async for buffer in stream:
                                size += len(buffer)
                                buffer.release()
                        finally:
                            await stream.aclose()
                    assert size <= blob.size, "bytes beyond the size"
                assert buffers.pool.in_use == 0

        finish(run())

    def test_a_blob_that_is_not_there_is_an_error(self) -> None:
        async def run() -> None:
            blob, data = blob_of(1000)
            buffers = Buffers(_core.Pool(4 * _MIB, poison=True))
            async with self.open({blob: data}) as source:
                with raises(FastociError, "a blob that nobody has"):
                    await collect(source.fetch(Descriptor(blob.media_type, NOWHERE, 10), 0, buffers))
                assert await collect(source.fetch(blob, 0, buffers)) == data

        if not self.one_blob:
            finish(run())

    def test_blobs_come_side_by_side(self) -> None:
        async def run() -> None:
            blobs = dict(blob_of(_MIB + seed, seed) for seed in range(1 if self.one_blob else 4))
            buffers = Buffers(_core.Pool(16 * _MIB, poison=True))
            async with self.open(blobs) as source:
                fetches = (collect(source.fetch(blob, 0, buffers)) for blob in blobs)
                assert await asyncio.gather(*fetches) == list(blobs.values())
            assert buffers.pool.in_use == 0

        finish(run())

    def test_a_source_that_knows_its_servers_names_who_sent_a_blob(self) -> None:
        async def run() -> None:
            blob, data = blob_of(1000)
            buffers = Buffers(_core.Pool(4 * _MIB, poison=True))
            async with self.open({blob: data}) as source:
                if isinstance(source, CorruptionAwareSource):
                    assert source.served_by(blob) == ()
                    await collect(source.fetch(blob, 0, buffers))
                    assert source.served_by(blob), "nobody sent it"
                    source.report_corrupt(blob, ["not a server of this source"])
                    source.report_corrupt(blob, source.served_by(blob))
                    assert await collect(source.fetch(blob, 0, buffers)) == data, "the last one there is stays asked"

        finish(run())
