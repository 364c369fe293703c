"""Which images a pattern of the kubelet means. No I/O.

A pattern is ``host[:port][/path]``. The host is compared label by label, each of which may have ``*``, ``?`` and
``[a-z]``; a wildcard never matches a dot. The port must be the very same, or absent in both. The path is a prefix.

Spec: kubelet.config.k8s.io/v1 CredentialProvider.matchImages.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Final

_PATTERN: Final = re.compile(r"(?:https?://)?([^/\s\\:]+|\[[0-9a-fA-F:]+\])(?::([0-9]+))?(/[^\s]*)?")
_SETS: Final = re.compile(r"[^\[\]]*(?:\[\^?[^\[\]]+\][^\[\]]*)*")  # brackets come in pairs, and are not empty


def matches(pattern: str, image: str) -> bool:
    """Whether ``pattern`` means ``image``, which is ``domain/path``.

    Raises:
        ValueError: it is not a pattern.
    """
    host, port, path = _split(pattern)
    target_host, target_port, target_path = _split(image)
    labels, target_labels = host.split("."), target_host.split(".")
    if port != target_port or len(labels) != len(target_labels) or not target_path.startswith(path):
        return False
    return all(
        label == target or fnmatch.fnmatchcase(target, label.replace("[^", "[!"))
        for label, target in zip(labels, target_labels, strict=True)
    )


def best(patterns: Iterable[str], image: str) -> str | None:
    """The longest of the keys of an answer that mean ``image``; those that are not patterns are passed over.

    The old spellings of a host, ``https://host/v1/`` and ``/v2/``, mean all of it; Docker Hub has two names.
    """
    found = []
    for pattern in patterns:
        try:
            if matches(_modern(pattern), image):
                found.append(pattern)
        except ValueError:
            continue
    return max(found, key=lambda pattern: (len(pattern), pattern), default=None)


def _split(text: str) -> tuple[str, str, str]:
    match = _PATTERN.fullmatch(text)
    if match is None or not (text.startswith("[") or _SETS.fullmatch(match[1])):
        raise ValueError("not a pattern of images")
    return match[1].lower(), match[2] or "", match[3] or ""


def _modern(pattern: str) -> str:
    host, slash, path = re.sub(r"^https?://", "", pattern).partition("/")
    path = slash + path
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return ("docker.io" if host == "index.docker.io" else host) + ("" if path == "/" else path)
