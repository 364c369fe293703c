"""Manifests of Docker's schema 1 made to order, signed by nobody's key."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

from fastoci.image.digest import Digest

EMPTY = Digest.parse("sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4")  # what docker wrote


def v1_id(number: int) -> str:
    """The id of a v1 image."""
    return f"{number:064x}"


def payload_of(blobs: Sequence[Digest | None], **newest: object) -> bytes:
    """A manifest of steps, the oldest first; None is one that is thrown away.

    Args:
        newest: more fields of the newest v1 image.
    """
    steps: list[dict[str, object]] = []
    for number, blob in enumerate(blobs, 1):
        parent = {"parent": v1_id(number - 1)} if number > 1 else {}
        step = {
            "id": v1_id(number),
            **parent,
            "created": f"2016-06-23T23:23:{number:02}.120Z",
            "container_config": {"Cmd": ["/bin/sh", "-c", f"step <{number}>"]},
            **({"throwaway": True} if blob is None else {}),
        }
        steps.append(step)
    steps[-1] |= {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Healthcheck": {}}} | newest
    form = {
        "schemaVersion": 1,
        "name": "a/image",
        "tag": "1",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": str(blob or EMPTY)} for blob in reversed(blobs)],
        "history": [{"v1Compatibility": json.dumps(step)} for step in reversed(steps)],
    }
    return json.dumps(form, indent=3).encode()


def protected_of(length: object, tail: bytes) -> str:
    """What a signature says that it is of."""
    return _base64(json.dumps({"formatLength": length, "formatTail": _base64(tail), "time": "now"}).encode())


def signed(payload: bytes, *protected: str) -> bytes:
    """The manifest with signatures in it: of itself, or of what is said."""
    head, tail = payload[: payload.rindex(b"\n}")], b"\n}"
    said = protected or (protected_of(len(head), tail),)
    signatures = [{"header": {"alg": "ES256"}, "signature": "AAAA", "protected": each} for each in said]
    return head + b',\n   "signatures": ' + json.dumps(signatures).encode() + tail


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
