"""Kubernetes manifests: each container's image, wherever a pod is described.

Pods are found by structure, so that a CronJob, a List of ``kubectl get -o json`` and a workload of anybody's own are
read alike. A container is an item of ``containers``, ``initContainers`` or ``ephemeralContainers``; its ``image``
counts, and ``image.reference`` of a volume. The status of a pod, and a CustomResourceDefinition's schema, have no such
lists.

Below the ``spec`` of a resource whose API group is not Kubernetes' own, an operator makes pods of any ``image``. It
counts when it says its registry, its tag or its digest: such fields also hold names of disks and files.

Spec: Kubernetes API v1, PodSpec.
"""

from __future__ import annotations

import re
from typing import Final

from fastoci.lists.findings import Findings
from fastoci.lists.node import Array, Mapping, Node, Scalar
from fastoci.lists.request import PrefetchRequest

_CONTAINERS: Final = frozenset({"containers", "initContainers", "ephemeralContainers"})
_REFERENCE: Final = 1000  # characters, at most
_SAYS_MORE: Final = re.compile(r"(?![^/]*://)(?:[^/\s]*[.:][^/\s]*/\S+|(?:\S+/)?[^/\s:@]+[:@][^/\s]+)")


def read(document: Node, found: Findings) -> bool:
    """Find the images of one document, each once; whether it is one of Kubernetes'."""
    return _Walk(found).walk(document)


def is_object(document: Mapping) -> bool:
    """Whether this is an object of Kubernetes, or a list of some."""
    return bool(document.text("apiVersion") and document.text("kind"))


class _Walk:
    """Looks at each node of a document once: an alias costs nothing, and a circle of them ends."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self._known = {request.reference for request in found.requests}

    def walk(self, document: Node) -> bool:
        """Look at a document; whether an object or a container was in it."""
        before = len(self._known)
        seen: set[tuple[int, bool]] = set()
        waiting = [(document, False)]  # and whether it is below the spec of a resource of others
        while waiting:
            node, custom = waiting.pop()
            if isinstance(node, Scalar) or (id(node), custom) in seen:
                continue
            seen.add((id(node), custom))
            below = [(item, custom) for item in node.items] if isinstance(node, Array) else self._mapping(node, custom)
            waiting.extend(reversed(below))
        return (isinstance(document, Mapping) and is_object(document)) or len(self._known) > before

    def _mapping(self, node: Mapping, custom: bool) -> list[tuple[Node, bool]]:
        """Find the images that a mapping names itself; what is below it."""
        others = is_object(node)
        custom = custom and not others
        others = others and _is_of_others(node.text("apiVersion"))
        for key, value in node.entries.items():
            if key in _CONTAINERS and isinstance(value, Array):
                for container in value.items:
                    self._container(container)
            elif key == "volumes" and isinstance(value, Array):
                for volume in value.items:
                    self._volume(volume)
            elif custom and key == "image" and isinstance(value, Scalar) and _names_more(value.text.strip()):
                self._image(value)
        below = [(value, custom or (others and key == "spec")) for key, value in node.entries.items()]
        return below + [(merged, custom) for merged in node.merged]

    def _container(self, container: Node) -> None:
        image = container.get("image") if isinstance(container, Mapping) else None
        if isinstance(image, Scalar):
            self._image(image)
        elif image is not None:
            self._found.problem(image.line, "the image of a container is not a text")

    def _volume(self, volume: Node) -> None:
        image = volume.get("image") if isinstance(volume, Mapping) else None
        reference = image.get("reference") if isinstance(image, Mapping) else None
        if isinstance(reference, Scalar):
            self._image(reference)

    def _image(self, image: Scalar) -> None:
        reference = image.text.strip()
        if not reference:
            self._found.problem(image.line, "the image of a container is empty")
        elif reference not in self._known:
            self._known.add(reference)
            self._found.requests.append(PrefetchRequest(reference, origin=self._found.origin(image.line)))


def _names_more(image: str) -> bool:
    """Whether a text is an image that names its registry, tag or digest."""
    return len(image) <= _REFERENCE and _SAYS_MORE.fullmatch(image) is not None


def _is_of_others(api_version: str) -> bool:
    """Whether an API group is none of Kubernetes' own: these have no dot, or end in ``.k8s.io``."""
    group, slash, _ = api_version.partition("/")
    return bool(slash) and "." in group and not group.endswith(".k8s.io")
