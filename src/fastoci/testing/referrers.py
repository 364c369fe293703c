"""The list of referrers that the loopback registry gives. Spec: distribution-spec v1.1, "Listing Referrers"."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from fastoci.image import mediatype
from fastoci.image.digest import Digest
from fastoci.server.http import Request
from fastoci.server.pull_api import Answer, Document

_KIND: Final = "artifactType"


def referrers(request: Request, subject: str, documents: Iterable[Document]) -> Answer:
    """Those of ``documents`` that say that they hang on ``subject``, of the type that is asked for."""
    rows = [row for each in documents if (row := _row(each, subject)) is not None]
    unique = {row["digest"]: row for row in rows}
    wanted = request.query.get(_KIND, [""])[0]
    found = [row for row in unique.values() if wanted in ("", row[_KIND])]
    data = json.dumps({"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": found}).encode()
    headers = {"Content-Type": mediatype.OCI_INDEX, **({"OCI-Filters-Applied": _KIND} if wanted else {})}
    return Answer(200, headers, data, 0, len(data))


def _row(document: Document, subject: str) -> dict[str, Any] | None:
    try:
        body = json.loads(document.data)
        if body["subject"]["digest"] != subject:
            return None
    except (ValueError, KeyError, TypeError):
        return None
    return {
        "mediaType": document.media_type,
        "digest": str(Digest.of(document.data)),
        "size": len(document.data),
        _KIND: body.get(_KIND) or body.get("config", {}).get("mediaType", ""),
        "annotations": body.get("annotations", {}),
    }
