"""The namespaces of containerd: each has images, content and snapshots of its own, and defaults for what is done in it.

Spec: containerd API v1, ``services.namespaces.v1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import field

from fastoci.containerd.codec import Message


class Namespace(Message, frozen=True):
    """A namespace."""

    name: Annotated[str, 1] = ""
    labels: Annotated[Mapping[str, str], 2] = field(default_factory=dict)


class ListNamespacesResponse(Message, frozen=True):
    """All namespaces."""

    namespaces: Annotated[tuple[Namespace, ...], 1] = ()
