"""What ``inspect`` and ``diff`` print for people: summaries, trees and lines. Texts of images are made harmless."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from fastoci import Comparison, FieldChange, FileChange, InspectedImage, InspectedLayer, Inspection
from fastoci.cli.formatting import Branch, plain, plural, size, table, tree
from fastoci.cli.inspection import DocumentTree, document_tree

_HEX: Final = 12  # digits of a digest
_STEP: Final = 100  # characters of a step of the history
_NOTHING: Final = re.compile(r"/bin/sh -c #\(nop\) +")  # what docker writes before a step that runs nothing
_TITLE: Final = "org.opencontainers.image.title"
_KINDS: Final = {
    "application/vnd.oci.image.index.v1+json": "index",
    "application/vnd.docker.distribution.manifest.list.v2+json": "index",
    "application/vnd.oci.image.manifest.v1+json": "manifest",
    "application/vnd.docker.distribution.manifest.v2+json": "manifest",
}
_MARKS: Final = {"added": "+", "removed": "-", "changed": "~"}

Rows = list[tuple[str, str]]


def summary(inspection: Inspection) -> Iterator[str]:
    """What a name leads to, and each image that was looked at."""
    yield plain(inspection.name)
    platforms = dict.fromkeys(entry.platform for entry in inspection.entries if entry.platform)
    yield from _table(
        [("digest", inspection.digest), ("type", inspection.media_type), *_row("platforms", ", ".join(platforms))]
    )
    for image in inspection.images:
        yield ""
        yield from _table(_image(image, inspection.digest))
        yield ""
        yield from _layers(image)
        for problem in image.problems:
            yield f"  problem: {plain(problem)}"


def tree_lines(inspection: Inspection) -> list[str]:
    """What a name leads to, as a tree down to the layers."""
    return tree(Branch(plain(inspection.name), [_branch(document_tree(inspection))]))


def field_lines(comparison: Comparison) -> Iterator[str]:
    """The fields that differ: of lists what one has and the other has not."""
    for field in comparison.fields:
        yield plain(field.path)
        for mark, values in zip("-+", _sides(field), strict=True):
            yield from (f"  {mark} {_shown(value)}" for value in values)


def layer_lines(comparison: Comparison) -> Iterator[str]:
    """The layers of both, and of each alone, with their sizes."""
    both = [pair.left for pair in comparison.layers if pair.left is not None and pair.right is not None]
    yield f"{plural(len(both), 'layer')} shared, {size(sum(layer.size for layer in both))}" + (
        ", in another order" if comparison.is_reordered else ""
    )
    alone = [(pair.left, pair.right) for pair in comparison.layers if pair.left is None or pair.right is None]
    rows = [
        (f"{'+' if left is None else '-'} {_short(layer.digest)}", size(layer.size), _step(layer))
        for left, right in alone
        if (layer := left or right) is not None
    ]
    if rows:
        yield from table(rows)


def file_line(change: FileChange) -> str:
    """A file that differs, and in what."""
    size_of = change.right if change.left is None else change.left if change.right is None else None
    if size_of is not None:
        facts = size(size_of.size) if size_of.kind == "file" else size_of.kind
    else:
        facts = ", ".join(map(_facet, change.facets, [change] * len(change.facets)))
    return f"{_MARKS[change.change]} {plain(change.path)}  ({facts})"


def _facet(name: str, change: FileChange) -> str:
    """``mode 0644 -> 0755``."""
    left, right = change.left, change.right
    assert left is not None
    assert right is not None
    values = {
        "kind": (left.kind, right.kind),
        "mode": (f"{left.mode:04o}", f"{right.mode:04o}"),
        "owner": (f"{left.uid}:{left.gid}", f"{right.uid}:{right.gid}"),
        "size": (str(left.size), str(right.size)),
        "link": (plain(left.link), plain(right.link)),
        "device": ("{}, {}".format(*left.device), "{}, {}".format(*right.device)),
    }
    return f"{name} {' -> '.join(values[name])}" if name in values else name


def _image(image: InspectedImage, top: str) -> Rows:
    run = image.config
    layers = plural(len(image.layers), "layer")
    return [
        *_row("platform", image.platform),
        *_row("manifest", "" if image.manifest.digest == top else image.manifest.digest),
        *_row("artifact", image.artifact_type),
        *_row("subject", image.subject),
        *_row("created", image.created),
        *_row("author", image.author),
        ("size", f"{size(image.size)} in {layers}"),
        *_row("user", run.get("User")),
        *_row("entrypoint", _command(run.get("Entrypoint"))),
        *_row("cmd", _command(run.get("Cmd"))),
        *_row("directory", run.get("WorkingDir")),
        *_row("stop signal", run.get("StopSignal")),
        *_many("ports", _keys(run.get("ExposedPorts"))),
        *_many("volumes", _keys(run.get("Volumes"))),
        *_many("env", _items(run.get("Env"))),
        *_many("labels", _pairs(run.get("Labels"))),
        *_many("annotations", _pairs(image.annotations)),
    ]


def _layers(image: InspectedImage) -> list[str]:
    counted = any(layer.entries is not None for layer in image.layers)
    rows = [
        ("  LAYER", "SIZE", *(["ENTRIES"] if counted else []), "CREATED BY" if not image.artifact_type else "TITLE")
    ]
    for layer in image.layers:
        count = ["-" if layer.entries is None else str(layer.entries)] if counted else []
        rows.append((f"  {_short(layer.digest)}", size(layer.size), *count, _step(layer)))
    return table(rows) if image.layers else []


def _branch(node: DocumentTree) -> Branch:
    kind = _KINDS.get(node.media_type, node.media_type)
    words = [node.platform, kind, node.digest, size(node.size), node.artifact_type]
    below = [_branch(each) for each in node.entries]
    if node.image is not None:
        config = node.image.config_blob
        below += [Branch(f"config {plain(config.digest)} {size(config.size)}"), *map(_leaf, node.image.layers)]
    return Branch(plain(" ".join(filter(None, words))), below)


def _leaf(layer: InspectedLayer) -> Branch:
    count = "" if layer.entries is None else f", {plural(layer.entries, 'entry')}"
    return Branch(f"layer {plain(layer.digest)} {size(layer.size)}{count}  {_step(layer)}".rstrip())


def _sides(field: FieldChange) -> tuple[list[object], list[object]]:
    """The values to be shown of both sides."""
    left, right = field.left, field.right
    if isinstance(left, list | None) and isinstance(right, list | None):
        mine, others = left or [], right or []
        only = [each for each in mine if each not in others], [each for each in others if each not in mine]
        if any(only):
            return only
    return [left] if left is not None else [], [right] if right is not None else []


def _shown(value: object) -> str:
    return plain(value) if isinstance(value, str) else json.dumps(value)


def _step(layer: InspectedLayer) -> str:
    """The step that made a layer, on one line; the file that it is, of an artifact."""
    text = " ".join(_NOTHING.sub("", layer.created_by, count=1).split()) or layer.annotations.get(_TITLE, "")
    return plain(text if len(text) <= _STEP else f"{text[: _STEP - 3]}...")


def _short(digest: str) -> str:
    return plain(digest.partition(":")[2][:_HEX])


def _command(value: object) -> str:
    return shlex.join(map(str, value)) if isinstance(value, list) else str(value or "")


def _keys(value: object) -> Iterable[str]:
    return value if isinstance(value, dict) else ()


def _items(value: object) -> Iterable[str]:
    return map(str, value) if isinstance(value, list) else ()


def _pairs(value: object) -> Iterable[str]:
    return (f"{name}={text}" for name, text in value.items()) if isinstance(value, Mapping) else ()


def _row(name: str, value: object) -> Rows:
    return [(name, value)] if value and isinstance(value, str) else []


def _many(name: str, values: Iterable[str]) -> Rows:
    return [(name if number == 0 else "", value) for number, value in enumerate(values)]


def _table(rows: Rows) -> list[str]:
    return table([(f"  {name}", plain(value)) for name, value in rows])
