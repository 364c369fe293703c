"""The content service of a fake containerd: blobs in a directory, as containerd has them, and ingests in memory.

Spec: containerd ``plugins/services/content/contentserver``, ``core/metadata/content.go``.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

import msgspec

from fastoci.containerd import methods
from fastoci.containerd.messages import (
    COMMIT,
    STAT,
    ContentInfo,
    Empty,
    FiltersRequest,
    InfoResponse,
    ListContentResponse,
    ListStatusesResponse,
    NameRequest,
    ReadRequest,
    ReadResponse,
    Resource,
    Status,
    StatusResponse,
    UpdateContentRequest,
    WriteRequest,
    WriteResponse,
)
from fastoci.containerd.rpc import Call, Code, Handler
from fastoci.testing.containerd.state import Ingest, Namespace, State, check_labels, now, unary, updated_labels

_PIECE: Final = 1 << 20
_PAGE: Final = 100


class ContentService:
    """Serves ``state``. ``is_shared``: what one namespace has, another may record by its digest alone."""

    def __init__(self, state: State, *, is_shared: bool) -> None:
        self._state = state
        self._is_shared = is_shared

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By method."""
        return {
            methods.CONTENT_INFO: unary(NameRequest, self._info),
            methods.CONTENT_UPDATE: unary(UpdateContentRequest, self._update),
            methods.CONTENT_DELETE: unary(NameRequest, self._delete),
            methods.CONTENT_STATUS: unary(NameRequest, self._status),
            methods.CONTENT_STATUSES: unary(FiltersRequest, self._statuses),
            methods.CONTENT_ABORT: unary(NameRequest, self._abort),
            methods.CONTENT_LIST: self._list,
            methods.CONTENT_READ: self._read,
            methods.CONTENT_WRITE: self._write,
        }

    def _blob(self, call: Call, digest: str) -> ContentInfo:
        found = self._state.namespace(call).blobs.get(digest)
        if found is None:
            raise call.failure(f"content digest {digest}: not found", Code.NOT_FOUND)
        return found

    def _info(self, call: Call, request: NameRequest) -> InfoResponse:
        return InfoResponse(self._blob(call, request.name))

    def _update(self, call: Call, request: UpdateContentRequest) -> InfoResponse:
        given = request.info or ContentInfo()
        known = self._blob(call, given.digest)
        labels = updated_labels(call, known.labels, given.labels, request.update_mask)
        changed = msgspec.structs.replace(known, labels=labels, updated_at=now())
        self._state.namespace(call).blobs[known.digest] = changed
        return InfoResponse(changed)

    def _delete(self, call: Call, request: NameRequest) -> Empty:
        del self._state.namespace(call).blobs[self._blob(call, request.name).digest]
        return Empty()

    async def _list(self, call: Call) -> AsyncIterator[bytes]:
        FiltersRequest.decode(await call.request())
        found = list(self._state.namespace(call).blobs.values())
        for at in range(0, len(found), _PAGE):
            yield ListContentResponse(tuple(found[at : at + _PAGE])).encode()

    async def _read(self, call: Call) -> AsyncIterator[bytes]:
        request = ReadRequest.decode(await call.request())
        size = self._blob(call, request.digest).size
        if request.offset > size:
            raise call.failure(f"read past object length {size} bytes: out of range", Code.OUT_OF_RANGE)
        end = min(size, request.offset + request.size) if request.size else size
        with self._state.file(request.digest).open("rb") as file:
            file.seek(request.offset)
            while (at := file.tell()) < end:
                yield ReadResponse(at, file.read(min(_PIECE, end - at))).encode()

    # -- ingests --

    def _ingest(self, call: Call, ref: str) -> Ingest:
        found = self._state.namespace(call).ingests.get(ref)
        if found is None:
            raise call.failure(f"reference {ref!r}: not found", Code.NOT_FOUND)
        return found

    def _status(self, call: Call, request: NameRequest) -> StatusResponse:
        return StatusResponse(self._status_of(self._ingest(call, request.name)))

    def _statuses(self, call: Call, request: FiltersRequest) -> ListStatusesResponse:
        return ListStatusesResponse(tuple(map(self._status_of, self._state.namespace(call).ingests.values())))

    def _abort(self, call: Call, request: NameRequest) -> Empty:
        self._forget(self._state.namespace(call), self._ingest(call, request.name))
        return Empty()

    @staticmethod
    def _forget(namespace: Namespace, ingest: Ingest) -> None:
        namespace.ingests.pop(ingest.ref, None)
        for resources in namespace.held.values():
            resources.discard(Resource(ingest.ref, "ingests"))

    def _status_of(self, ingest: Ingest) -> Status:
        return Status(
            ingest.started_at, ingest.started_at, ingest.ref, self._offset(ingest), ingest.total, ingest.shared
        )

    def _offset(self, ingest: Ingest) -> int:
        return self._state.file(ingest.shared).stat().st_size if ingest.shared else len(ingest.data)

    async def _write(self, call: Call) -> AsyncIterator[bytes]:
        first = await self._next(call)
        if first is None or not first.ref:
            raise call.failure("first message must have a reference", Code.INVALID_ARGUMENT)
        ingest = self._opened(call, first)
        try:
            request: WriteRequest | None = first
            while request is not None:
                answer = self._step(call, ingest, request).encode()
                yield answer
                request = None if request.action == COMMIT else await self._next(call)
            yield answer  # once more, as containerd does
        finally:
            ingest.is_open = False

    async def _next(self, call: Call) -> WriteRequest | None:
        data = await call.receive()
        return None if data is None else WriteRequest.decode(data)

    def _opened(self, call: Call, request: WriteRequest) -> Ingest:
        namespace = self._state.namespace(call)
        self._refuse_known(call, namespace, request.expected)
        ingest = namespace.ingests.get(request.ref)
        if ingest is None:
            ingest = Ingest(request.ref, request.total, self._shared(request))
            self._state.hold(call, "ingests", request.ref)
            namespace.ingests[request.ref] = ingest
        elif ingest.is_open:
            raise call.failure(f"ref {request.ref} locked: unavailable", Code.UNAVAILABLE)
        ingest.is_open = True
        return ingest

    def _shared(self, request: WriteRequest) -> str:
        """The digest, when its file is here already, with the expected size."""
        file = self._state.file(request.expected) if request.expected and self._is_shared else None
        if file is None or not file.is_file() or request.total not in (0, file.stat().st_size):
            return ""
        return request.expected

    def _refuse_known(self, call: Call, namespace: Namespace, digest: str) -> None:
        if digest and digest in namespace.blobs:
            self._state.hold(call, "content", digest)
            raise call.failure(f"content {digest}: already exists", Code.ALREADY_EXISTS)

    def _step(self, call: Call, ingest: Ingest, request: WriteRequest) -> WriteResponse:
        namespace = self._state.namespace(call)
        if request.expected and request.expected in namespace.blobs:
            self._forget(namespace, ingest)
            self._refuse_known(call, namespace, request.expected)
        ingest.total = request.total or ingest.total
        if request.action != STAT:
            self._take(call, ingest, request)
        digest = ingest.shared or f"sha256:{hashlib.sha256(ingest.data).hexdigest()}"
        offset = self._offset(ingest)
        if request.action == COMMIT:
            self._commit(call, ingest, request, digest)
        return WriteResponse(request.action, ingest.started_at, now(), offset, ingest.total, digest)

    def _take(self, call: Call, ingest: Ingest, request: WriteRequest) -> None:
        offset = self._offset(ingest)
        if request.offset not in (0, offset):
            text = f"write @{request.offset} must occur at current offset {offset}"
            raise call.failure(text, Code.OUT_OF_RANGE)
        if request.offset == 0 and offset > 0:
            ingest.data.clear()
            ingest.shared = ""
        if request.data and ingest.shared:
            ingest.data[:] = self._state.file(ingest.shared).read_bytes()
            ingest.shared = ""
        ingest.data += request.data

    def _commit(self, call: Call, ingest: Ingest, request: WriteRequest, digest: str) -> None:
        size = self._offset(ingest)
        if ingest.total not in (0, size):
            text = f"{ingest.ref!r} failed size validation: {ingest.total} != {size}: failed precondition"
            raise call.failure(text, Code.FAILED_PRECONDITION)
        if request.expected not in ("", digest):
            text = f"unexpected commit digest {digest}, expected {request.expected}: failed precondition"
            raise call.failure(text, Code.FAILED_PRECONDITION)
        check_labels(call, request.labels)
        namespace = self._state.namespace(call)
        self._refuse_known(call, namespace, digest)
        if not ingest.shared:
            self._state.blobs.mkdir(parents=True, exist_ok=True)
            file = self._state.file(digest)
            if not file.exists():
                file.write_bytes(ingest.data)
                file.chmod(0o444)
        self._state.hold(call, "content", digest)
        namespace.blobs[digest] = ContentInfo(digest, size, now(), now(), dict(request.labels))
        self._forget(namespace, ingest)
