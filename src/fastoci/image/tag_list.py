"""The list of a repository's tags, as a registry gives it page by page. No I/O.

Spec: distribution-spec v1.1, listing tags.
"""

from __future__ import annotations

import msgspec

from fastoci.image import document


class _Form(msgspec.Struct, frozen=True):
    tags: list[str] | None = None  # null: what some registries say of a repository without tags


def parse(data: bytes) -> list[str]:
    """Read one page of tags.

    Raises:
        FormatError: not strict JSON, or not a list of texts.
    """
    return document.decode(data, _Form, what="list of tags").tags or []
