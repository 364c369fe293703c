"""Which form a list has, and what it says: the one door to the parsers of this folder."""

from __future__ import annotations

import re
from typing import Final

from fastoci.arguments import expect
from fastoci.lists import plain
from fastoci.lists.findings import Findings
from fastoci.lists.request import ImageList

_SIZE: Final = 64 << 20  # bytes of YAML or JSON, which takes more memory than lines do
_BOM: Final = b"\xef\xbb\xbf"
# A document, a directive, an item, or a key: what no line of a plain list begins with. redis:7 is
# no key, and [::1]:5000/redis no sequence.
_YAML: Final = re.compile(
    r"""\{|\[(?![0-9A-Fa-f:]+\](:[0-9]+)?/)|---(\s|$)|%YAML|%TAG|-(\s|$)|("[^"]*"|'[^']*'|[^\s#"'{\[][^\s]*):(\s|$)|\?(\s|$)"""
)

_FORMS: Final = "neither Kubernetes, compose nor skopeo sync; a plain list has an image a line"
_JSON: Final = re.compile(rb"""\s*[{[]\s*(?:"|[{\[\]}]|$)""")


def parse_list(data: bytes, name: str) -> ImageList:
    """Read a list of any form: plain lines, skopeo-sync YAML, Kubernetes manifests, or a compose file.

    What is wrong with a part of it is in ``problems``; the rest counts. Nothing is asked, and no file is read.

    Args:
        data: UTF-8.
        name: of the list, for the origin ``NAME:LINE`` of each part.
    """
    found = Findings(expect(str, name, "name"))
    text = expect(bytes, data, "data").removeprefix(_BOM)
    if (problem := _unreadable(text)) is not None:
        found.problem(*problem)
        return found.image_list()
    _, first = next(plain.lines(text), (0, ""))
    if _YAML.match(first):
        _read_documents(text, found)
    else:
        plain.read(text, found)
    return found.image_list()


def _read_documents(text: bytes, found: Findings) -> None:
    """Find what YAML or JSON says."""
    # Here, so that a plain list costs no import of YAML.
    from fastoci.lists import compose, json_documents, kubernetes, skopeo_sync, yaml_documents
    from fastoci.lists.node import Mapping, Scalar

    if len(text) > _SIZE:
        found.problem(1, f"{len(text)} bytes, at most {_SIZE} are allowed of YAML or JSON")
        return
    # A flow mapping of YAML begins as JSON does; only JSON begins with a quoted key or an object in it.
    form = json_documents if _JSON.match(text) else yaml_documents
    for document in form.documents(text, found):
        if isinstance(document, Mapping) and compose.is_compose(document):
            compose.read(document, found)
        elif isinstance(document, Mapping) and skopeo_sync.is_skopeo_sync(document):
            skopeo_sync.read(document, found)
        elif not kubernetes.read(document, found) and not (isinstance(document, Scalar) and document.is_null):
            found.problem(document.line, f"this is no list of images: {_FORMS}")


def _unreadable(text: bytes) -> tuple[int, str] | None:
    """The line at which the bytes are not a list, and why."""
    try:
        text.decode()
        bad, why = text.find(0), "a zero byte: this is not text"
    except UnicodeDecodeError as error:
        bad, why = error.start, "this is not UTF-8 text"
    return None if bad < 0 else (text.count(b"\n", 0, bad) + 1, why)
