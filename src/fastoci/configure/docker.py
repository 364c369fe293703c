"""How docker is told to keep images in containerd, where this program's differ unpacks them.

``daemon.json`` has no comments, and docker takes no key that it does not know. So what it was before is kept in a file
beside it, for the way back.

Spec: docs.docker.com "containerd image store"; dockerd(8), "Daemon configuration file".
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, Final

from fastoci.configure.edits import Edit
from fastoci.configure.plan import ConfigurationPlan, Read
from fastoci.errors import ConfigError

_FEATURES: Final = "features"
_STORE: Final = "containerd-snapshotter"
_INDENT: Final = re.compile(r"\n([ \t]+)\"")
_CLASSIC: Final = "images in docker's own store are not shown while this is so; they are there again after --undo"


def kept_path(path: str) -> str:
    """The file that keeps what ``daemon.json`` was."""
    return f"{os.path.dirname(path)}/daemon.json.fastoci"


def plan(path: str, read: Read) -> ConfigurationPlan:
    """What makes docker keep images in containerd.

    Raises:
        ConfigError: ``daemon.json`` is not what it should be; it is left as it is.
    """
    before = read(path)
    document = _document(before, path)
    features = document.get(_FEATURES, {})
    if not isinstance(features, dict):
        raise ConfigError(f"{path}: {_FEATURES} is not an object")
    if features.get(_STORE) is True:
        return ConfigurationPlan(edits=(Edit(path, before, before),), restart=("docker",))
    after = _encoded({**document, _FEATURES: {**features, _STORE: True}}, before)
    kept = kept_path(path)
    record = {"before": None if before is None else before.decode(), "after": after.decode()}
    return ConfigurationPlan(
        (Edit(kept, read(kept), json.dumps(record).encode() + b"\n"), Edit(path, before, after)),
        (_CLASSIC,),
        ("docker",),
    )


def undo(path: str, read: Read) -> ConfigurationPlan:
    """What takes away what ``plan`` made; nothing when it made nothing.

    Raises:
        ConfigError: a file is not what it should be.
    """
    kept = kept_path(path)
    record_bytes, now = read(kept), read(path)
    if record_bytes is None:
        return ConfigurationPlan(restart=("docker",))
    record = _document(record_bytes, kept)
    before, after = record.get("before"), record.get("after")
    if not isinstance(after, str) or not isinstance(before, str | None):
        raise ConfigError(f"{kept} is not of `fastoci configure docker`: it is left as it is")
    if now is not None and now.decode(errors="replace") == after:
        rest = None if before is None else before.encode()
    else:
        rest = now if now is None else _without(now, path, _document((before or "{}").encode(), kept))
    return ConfigurationPlan((Edit(path, now, rest), Edit(kept, record_bytes, None)), restart=("docker",))


def _without(now: bytes, path: str, before: dict[str, Any]) -> bytes:
    """The file that somebody has changed since, with the feature as it was."""
    document = _document(now, path)
    features = document.get(_FEATURES)
    if not isinstance(features, dict) or features.get(_STORE) is not True:
        return now
    old = before.get(_FEATURES, {})
    left = {key: value for key, value in features.items() if key != _STORE}
    left |= {_STORE: old[_STORE]} if _STORE in old else {}
    if left or _FEATURES in before:
        return _encoded({**document, _FEATURES: left}, now)
    return _encoded({key: value for key, value in document.items() if key != _FEATURES}, now)


def _document(data: bytes | None, path: str) -> dict[str, Any]:
    try:
        document = json.loads((data or b"").strip() or b"{}", object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _encoded(document: dict[str, Any], like: bytes | None) -> bytes:
    """The document, indented as the file was."""
    match = _INDENT.search((like or b"").decode(errors="replace"))
    return json.dumps(document, indent=match[1] if match else 4, ensure_ascii=False).encode() + b"\n"
