"""The leases and images of a fake containerd.

Spec: containerd ``core/metadata/{leases,images}.go``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from fastoci.containerd import methods
from fastoci.containerd.messages import (
    CreateImageRequest,
    CreateLeaseRequest,
    DeleteImageRequest,
    DeleteLeaseRequest,
    Empty,
    FiltersRequest,
    ImageRecord,
    ImageResponse,
    Lease,
    LeaseResourceRequest,
    LeaseResponse,
    ListImagesResponse,
    ListLeasesResponse,
    ListResourcesResponse,
    NameRequest,
    Resource,
    UpdateImageRequest,
)
from fastoci.containerd.rpc import Call, Code, Handler
from fastoci.testing.containerd.state import State, check_labels, held, now, unary, updated_labels


class RecordService:
    """Serves ``state``; ``collect`` is called where an answer has to come after a collection."""

    def __init__(self, state: State, collect: Callable[[], object]) -> None:
        self._state = state
        self._collect = collect

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By method."""
        return {
            methods.LEASE_CREATE: unary(CreateLeaseRequest, self._create_lease),
            methods.LEASE_DELETE: unary(DeleteLeaseRequest, self._delete_lease),
            methods.LEASE_LIST: unary(FiltersRequest, self._leases),
            methods.LEASE_ADD: unary(LeaseResourceRequest, self._add),
            methods.LEASE_TAKE: unary(LeaseResourceRequest, self._take),
            methods.LEASE_RESOURCES: unary(NameRequest, self._resources),
            methods.IMAGE_GET: unary(NameRequest, lambda call, request: ImageResponse(self._image(call, request.name))),
            methods.IMAGE_LIST: unary(FiltersRequest, self._images),
            methods.IMAGE_CREATE: unary(CreateImageRequest, self._create_image),
            methods.IMAGE_UPDATE: unary(UpdateImageRequest, self._update_image),
            methods.IMAGE_DELETE: unary(DeleteImageRequest, self._delete_image),
        }

    def _create_lease(self, call: Call, request: CreateLeaseRequest) -> LeaseResponse:
        namespace = self._state.namespace(call)
        name = request.id or f"{len(namespace.leases)}-fake"
        if name in namespace.leases:
            raise call.failure(f"lease {name!r}: already exists", Code.ALREADY_EXISTS)
        check_labels(call, request.labels)
        namespace.leases[name] = Lease(name, now(), dict(request.labels))
        namespace.held[name] = set()
        return LeaseResponse(namespace.leases[name])

    def _delete_lease(self, call: Call, request: DeleteLeaseRequest) -> Empty:
        namespace = self._state.namespace(call)
        held(call, namespace, request.id)
        del namespace.leases[request.id], namespace.held[request.id]
        if request.sync:
            self._collect()
        return Empty()

    def _leases(self, call: Call, request: FiltersRequest) -> ListLeasesResponse:
        return ListLeasesResponse(tuple(self._state.namespace(call).leases.values()))

    def _add(self, call: Call, request: LeaseResourceRequest) -> Empty:
        held(call, self._state.namespace(call), request.id).add(request.resource or Resource())
        return Empty()

    def _take(self, call: Call, request: LeaseResourceRequest) -> Empty:
        held(call, self._state.namespace(call), request.id).discard(request.resource or Resource())
        return Empty()

    def _resources(self, call: Call, request: NameRequest) -> ListResourcesResponse:
        return ListResourcesResponse(tuple(held(call, self._state.namespace(call), request.name)))

    # -- images --

    def _image(self, call: Call, name: str) -> ImageRecord:
        found = self._state.namespace(call).images.get(name)
        if found is None:
            raise call.failure(f"image {name!r}: not found", Code.NOT_FOUND)
        return found

    def _images(self, call: Call, request: FiltersRequest) -> ListImagesResponse:
        return ListImagesResponse(tuple(self._state.namespace(call).images.values()))

    def _checked(self, call: Call, image: ImageRecord | None) -> ImageRecord:
        if image is None or not image.name or image.target is None or not image.target.digest:
            raise call.failure("image name and target must not be empty: invalid argument", Code.INVALID_ARGUMENT)
        check_labels(call, image.labels)
        return image

    def _create_image(self, call: Call, request: CreateImageRequest) -> ImageResponse:
        image = self._checked(call, request.image)
        images = self._state.namespace(call).images
        if image.name in images:
            raise call.failure(f"image {image.name!r}: already exists", Code.ALREADY_EXISTS)
        images[image.name] = msgspec.structs.replace(image, created_at=now(), updated_at=now())
        return ImageResponse(images[image.name])

    def _update_image(self, call: Call, request: UpdateImageRequest) -> ImageResponse:
        given = request.image or ImageRecord()
        known = self._image(call, given.name)
        paths = request.update_mask.paths if request.update_mask else ()
        labels = updated_labels(call, known.labels, given.labels, request.update_mask)
        target = given.target if not paths or "target" in paths else known.target
        changed = msgspec.structs.replace(known, labels=labels, target=target, updated_at=now())
        self._state.namespace(call).images[known.name] = self._checked(call, changed)
        return ImageResponse(changed)

    def _delete_image(self, call: Call, request: DeleteImageRequest) -> Empty:
        known = self._image(call, request.name)
        if request.target is not None and known.target is not None and request.target.digest != known.target.digest:
            raise call.failure(f"image {request.name!r} has another target: not found", Code.NOT_FOUND)
        del self._state.namespace(call).images[request.name]
        if request.sync:
            self._collect()
        return Empty()
