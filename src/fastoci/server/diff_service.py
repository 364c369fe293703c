"""containerd's diff service, as a proxy plugin: its layers become files, and its trees layers, with this engine.

Numbered rules:
1. A layer is read from its file in the content store; the digest in the answer is of all bytes of its tar. Who asks
   compares it with the config's, and keeps nothing of a layer that is another.
2. Nothing that containerd's own differ takes is refused: what cannot be done here is handed to containerd's own diff
   service. Where its order begins with this differ the same request comes back; it is answered with UNIMPLEMENTED, and
   the next differ of the order has it. Bounds, a wrong size, a path that is none, and what the disk says are final.
3. A call that is cancelled ends at once: containerd removes the snapshot without a wait.
4. All layers under way share threads and memory; as many as ``Limits.layers_at_once`` are read at a time.

Spec: containerd api/services/diff/v1; core/diff/proxy, core/diff/apply.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from fastoci import files
from fastoci.containerd import labels, mounts
from fastoci.containerd.messages import (
    ApplyRequest,
    ApplyResponse,
    Descriptor,
    DiffRequest,
    DiffResponse,
    Mount,
    Timestamp,
)
from fastoci.containerd.mounts import Target
from fastoci.containerd.rpc import Call, Code
from fastoci.errors import (
    ContainerdError,
    FastociError,
    FormatError,
    LimitError,
    PackError,
    StoreError,
    StoreFullError,
    UnpackError,
    UnsupportedError,
)
from fastoci.image import mediatype
from fastoci.image.digest import Digest
from fastoci.jobs.apply import Applied, Applying
from fastoci.jobs.diff import packed_diff
from fastoci.limits import Limits
from fastoci.server.requester import Requester, unnamed_file
from fastoci.server.served import Served
from fastoci.stream.compress import Compressor, Gzip, Plain, Zstd
from fastoci.transfer.layer_reading import OpenLayer
from fastoci.transfer.packer import PackedLayer

_LOG: Final = logging.getLogger(__name__)
_ENCRYPTED: Final = "+encrypted"
_COMPRESSORS: Final[Mapping[str, type[Compressor]]] = {
    mediatype.OCI_LAYER: Plain,
    mediatype.OCI_LAYER_GZIP: Gzip,
    mediatype.OCI_LAYER_ZSTD: Zstd,
}
_PASSED_ON: Final = ("containerd-namespace", "containerd-lease")


class DiffService:
    """Does the calls, on one event loop. ``under_way`` is how many there are.

    Args:
        address: the socket of the containerd that asks.
        observer: is told of each call when it has ended.
    Raises:
        RuntimeError: not even one thread can be started.
    """

    def __init__(self, address: Path, limits: Limits, observer: Callable[[Served], object]) -> None:
        self.under_way = 0
        self._address = address
        self._observe = observer
        self._applying = Applying(limits)
        self._requester = Requester(address, self._applying.workers)
        self._handed: set[tuple[object, ...]] = set()

    async def close(self) -> None:
        """Let go of all; nothing may be under way."""
        await self._requester.close()
        self._applying.close()

    @contextmanager
    def _told(self, served: Served) -> Iterator[None]:
        """One call: tell what became of it, and what of it is a status of gRPC."""
        self.under_way += 1
        begin = time.monotonic()
        try:
            yield
        except asyncio.CancelledError:
            served.outcome = "cancelled"
            raise
        except Exception as error:
            served.reason = served.reason or str(error)
            _LOG.debug("%s of %s", served.method, served.digest, exc_info=error)
            if isinstance(error, ContainerdError) or not isinstance(error, FastociError):
                raise
            raise self._refusal(str(error), _code(error)) from error
        finally:
            self.under_way -= 1
            served.elapsed_s = time.monotonic() - begin
            self._observe(served)

    async def apply(self, call: Call) -> bytes:
        """``Diff.Apply``: a layer becomes files.

        Raises:
            ContainerdError: with the status for who asks.
        """
        data, metadata = await call.request(), _passed_on(call)
        request = self._decoded(data)
        layer = request.diff or Descriptor()
        call_id = (layer.digest, *request.mounts)
        if call_id in self._handed:
            raise self._refusal(f"{layer.digest} was handed to containerd by this differ", Code.UNIMPLEMENTED)
        served = Served("apply", layer.digest, layer.size)
        with self._told(served):
            target: Target | None = None
            try:
                target = self._target(request, layer)
                applied = await self._applied(request, layer, target, metadata)
            except (LimitError, StoreError):
                raise
            except (UnpackError, FormatError, UnsupportedError) as error:
                served.reason = str(error)
                answer = await self._hand_over(data, metadata, call_id, error, target)
                served.outcome = "handed over"
                return answer
            served.outcome = "done"
            served.tar_size, served.entries = applied.tar_size, applied.entries
        return ApplyResponse(Descriptor(mediatype.OCI_LAYER, str(applied.diff_id), applied.tar_size)).encode()

    async def diff(self, call: Call) -> bytes:
        """``Diff.Diff``: what differs between two snapshots becomes a blob. Raises: as ``apply``."""
        request = self._decoded_diff(await call.request())
        served = Served("diff")
        with self._told(served):
            try:
                packed = await self._packed(request, _passed_on(call))
            except (UnsupportedError, PackError) as error:  # the next differ of containerd's order may do it
                raise self._refusal(str(error), Code.UNIMPLEMENTED) from error
            blob = packed.blob
            served.outcome, served.digest, served.size = "done", str(blob.digest), blob.size
            served.tar_size = packed.tar_size
        return DiffResponse(Descriptor(blob.media_type, str(blob.digest), blob.size)).encode()

    async def _packed(self, request: DiffRequest, metadata: Mapping[str, str]) -> PackedLayer:
        """Make the layer, and have it in the content store."""
        left, right = self._shown(request.left), self._shown(request.right)
        kind = _COMPRESSORS.get(request.media_type or mediatype.OCI_LAYER_GZIP)
        if kind is None or not right:
            raise UnsupportedError(f"a layer of type {request.media_type!r} of {len(request.right)} mounts")
        fd = await self._applying.workers.acquire(unnamed_file, files.close)
        try:
            latest_ns = _latest_ns(request.source_date_epoch)
            packed = await packed_diff(self._applying.packer, left, right, kind(), fd, latest_ns=latest_ns)
            marked = {**request.labels, labels.UNCOMPRESSED: str(packed.diff_id)}
            await self._requester.commit(packed.blob, fd, request.ref, marked, metadata)
        finally:
            files.close(fd)
        return packed

    def _shown(self, given: Sequence[Mount]) -> tuple[str, ...]:
        try:
            return mounts.shown(given)
        except FormatError as error:
            raise self._refusal(str(error), Code.INVALID_ARGUMENT) from error

    def _decoded_diff(self, data: bytes) -> DiffRequest:
        try:
            return DiffRequest.decode(data)
        except FormatError as error:
            raise self._refusal(f"not a DiffRequest: {error}", Code.INVALID_ARGUMENT) from error

    def _decoded(self, data: bytes) -> ApplyRequest:
        try:
            return ApplyRequest.decode(data)
        except FormatError as error:
            raise self._refusal(f"not an ApplyRequest: {error}", Code.INVALID_ARGUMENT) from error

    def _target(self, request: ApplyRequest, layer: Descriptor) -> Target:
        if request.payloads or layer.media_type.endswith(_ENCRYPTED):
            raise UnsupportedError(f"{layer.digest} is encrypted ({layer.media_type})")
        try:
            return mounts.parse(request.mounts)
        except FormatError as error:
            raise self._refusal(str(error), Code.INVALID_ARGUMENT) from error

    async def _applied(
        self, request: ApplyRequest, layer: Descriptor, target: Target, metadata: Mapping[str, str]
    ) -> Applied:
        digest = Digest.parse(layer.digest)
        fd = await self._requester.open_blob(digest, layer.size, metadata)
        try:
            return await self._applying.apply(digest, lambda: OpenLayer(os.dup(fd)), target, sync=request.sync_fs)
        finally:
            files.close(fd)

    async def _hand_over(
        self,
        request: bytes,
        metadata: Mapping[str, str],
        call_id: tuple[object, ...],
        error: FastociError,
        target: Target | None,
    ) -> bytes:
        """Let containerd do what cannot be done here for that reason, on a snapshot as it was.

        Raises:
            ContainerdError: it refuses that, too, or cannot be asked.
        """
        if target is not None:
            await self._applying.clear(target)
        self._handed.add(call_id)
        try:
            return await self._requester.apply(request, metadata)
        except ContainerdError as refused:
            is_ours = not isinstance(error, UnsupportedError)
            code = Code.INVALID_ARGUMENT if is_ours else _code_of_both(refused.code)
            raise self._refusal(f"{error}; containerd's own differ: {refused}", code) from error
        finally:
            self._handed.discard(call_id)

    def _refusal(self, text: str, code: int) -> ContainerdError:
        return ContainerdError(text, code=code, path=str(self._address))


def _passed_on(call: Call) -> dict[str, str]:
    """The namespace of a call, and its lease."""
    return {name: value for name, value in call.metadata.items() if name in _PASSED_ON}


def _latest_ns(epoch: Timestamp | None) -> int | None:
    return None if epoch is None else epoch.seconds * 1_000_000_000 + epoch.nanos


def _code_of_both(code: int) -> int:
    """The status when neither this differ nor containerd's own can do something."""
    return Code.UNIMPLEMENTED if code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED) else code


def _code(error: FastociError) -> Code:
    if isinstance(error, (StoreFullError, LimitError)):
        return Code.RESOURCE_EXHAUSTED
    return Code.INTERNAL if isinstance(error, StoreError) else Code.INVALID_ARGUMENT
