"""Docker's schema 1: manifests from before configs and diff_ids, read, checked, and made into schema 2. Pure.

The digest of a signed manifest is that of its payload: the document as it was before signatures were put into it. Only
the payload is read. Its signatures are by whatever key the document itself names, so they prove nothing, and nobody
verifies them. Each step of the history, the newest first, has a v1 image as JSON inside a string; the newest is the
config but for the history and the diff_ids. A step that is ``throwaway`` changed no files.
Config and manifest are those of docker and skopeo, byte for byte: image ids stay.
Spec: Docker image manifest version 2, schema 1; Docker image specification v1.0; libtrust, "JSON Signatures".
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from fastoci.errors import FormatError
from fastoci.image import document, mediatype
from fastoci.image import manifest as manifests
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.image.platform import Platform

_WHAT: Final = "schema 1"
_REFUSED: Final = frozenset({"config", "layers", "manifests"})
_OF_V1: Final = frozenset({"id", "parent", "Size", "parent_id", "layer_id", "throwaway"})  # what no config has
_NO_TIME: Final = "0001-01-01T00:00:00Z"
_ID: Final = re.compile(r"[0-9a-f]{64}")
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
_SPACE: Final = re.compile(r'("(?:[^"\\]++|\\.)*+")|[ \t\r\n]++')
_ESCAPED: Final = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"})


class Step(msgspec.Struct, frozen=True):
    """One step of an image's history: what it says, and the layer that it made; None when it changed no files."""

    created: str
    author: str
    created_by: str
    comment: str
    layer: Digest | None


class Schema1(msgspec.Struct, frozen=True):
    """A manifest of schema 1: its steps with the oldest first, and the newest v1 image as text by its keys.

    ``raw`` is the payload, which its digest covers.
    """

    steps: tuple[Step, ...]
    newest: Mapping[str, str]
    platform: Platform
    raw: bytes

    @property
    def descriptor(self) -> Descriptor:
        """What it is called where it is."""
        return Descriptor.of(self.raw, mediatype.DOCKER_SCHEMA1)

    @property
    def layers(self) -> tuple[Digest, ...]:
        """The blobs of its layers, the lowest first."""
        return tuple(step.layer for step in self.steps if step.layer is not None)

    def outline(self, sizes: Mapping[Digest, int]) -> Manifest:
        """The manifest as far as it is known before its layers were read: it is its own config.

        Args:
            sizes: of the layers, which it does not say.
        """
        layers = tuple(Descriptor(mediatype.DOCKER_LAYER_GZIP, each, sizes[each]) for each in self.layers)
        return Manifest(mediatype.DOCKER_SCHEMA1, self.descriptor, layers, {}, None, "", self.raw)

    def config(self, diff_ids: Sequence[Digest]) -> bytes:
        """The config of schema 2.

        Args:
            diff_ids: of ``layers``.
        """
        keys = {key: text for key, text in self.newest.items() if key not in _OF_V1}
        keys["rootfs"] = _json({"type": "layers", "diff_ids": list(map(str, diff_ids))})
        keys["history"] = f"[{','.join(map(_history, self.steps))}]"
        return ("{" + ",".join(f"{_json(key)}:{keys[key]}" for key in sorted(keys)) + "}").encode()


def payload_of(data: bytes) -> bytes:
    """The bytes that the digest covers: of a signed manifest those without its signatures.

    Raises:
        FormatError: it is not JSON, or its signatures do not say, or do not agree on, what they sign.
    """
    form = document.decode(data, _Signed, what=_WHAT)
    if form.signatures is msgspec.UNSET:
        return data
    signed = {_payload(data, each.protected) for each in form.signatures}
    if len(signed) != 1:
        raise FormatError(f"{_WHAT}: {len(form.signatures)} signatures, of {len(signed)} documents")
    return signed.pop()


def parse(payload: bytes) -> Schema1:
    """Parse a manifest, without its signatures.

    Raises:
        FormatError: not strict JSON, a field is absent or of another type, it could be taken for something else, or its
            steps are not one on top of the other.
        UnsupportedError: a digest's algorithm is not supported.
    """
    manifests.check_kind(payload, mediatype.DOCKER_SCHEMA1, what=_WHAT, refused=_REFUSED | {"signatures"})
    form = document.decode(payload, _Form, what=_WHAT)
    if not form.history or len(form.history) != len(form.fs_layers):
        raise FormatError(f"{_WHAT}: {len(form.fs_layers)} layers, and {len(form.history)} steps of a history")
    images = [_image(each.v1, number) for number, each in enumerate(form.history)]
    blobs = [
        document.digest(each.blob_sum, what=f"{_WHAT}: fsLayers[{number}]")
        for number, each in enumerate(form.fs_layers)
    ]
    kept = _in_order(images, blobs)
    newest = _keys(form.history[kept[0]].v1)
    steps = [_step(images[number], blobs[number]) for number in reversed(kept)]
    first = images[kept[0]]
    platform = Platform(first.os or "linux", first.architecture or form.architecture or "amd64", first.variant or "")
    return Schema1(tuple(steps), newest, platform, payload)


def converted(schema1: Schema1, sizes: Mapping[Digest, int], diff_ids: Sequence[Digest]) -> tuple[Manifest, bytes]:
    """The manifest of schema 2, and its config.

    Args:
        sizes: of the layers. diff_ids: of the layers, in their order.
    """
    config = schema1.config(diff_ids)
    described = Descriptor.of(config, mediatype.DOCKER_CONFIG)
    layers = schema1.outline(sizes).layers
    form = {
        "schemaVersion": 2,
        "mediaType": mediatype.DOCKER_MANIFEST,
        "config": _described(described),
        "layers": list(map(_described, layers)),
    }
    return manifests.parse(_json(form).encode(), mediatype.DOCKER_MANIFEST), config


class _Signature(msgspec.Struct, frozen=True):
    protected: str


class _Signed(msgspec.Struct, frozen=True):
    signatures: tuple[_Signature, ...] | msgspec.UnsetType = msgspec.UNSET


class _Protected(msgspec.Struct, frozen=True, rename="camel"):
    format_length: int
    format_tail: str


class _FsLayer(msgspec.Struct, frozen=True, rename="camel"):
    blob_sum: str


class _History(msgspec.Struct, frozen=True):
    v1: str = msgspec.field(name="v1Compatibility")


class _Form(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: Literal[1]
    fs_layers: tuple[_FsLayer, ...]
    history: tuple[_History, ...]
    architecture: str | None = None


class _Command(msgspec.Struct, frozen=True):
    cmd: tuple[str, ...] | str | None = msgspec.field(default=None, name="Cmd")


class _Image(msgspec.Struct, frozen=True):
    """A v1 image, as far as it has a meaning."""

    id: str
    parent: str | None = None
    created: str | None = None
    author: str | None = None
    comment: str | None = None
    container_config: _Command | None = None
    throwaway: bool | None = None
    os: str | None = None
    architecture: str | None = None
    variant: str | None = None


def _payload(data: bytes, protected: str) -> bytes:
    head = document.decode(_unpadded(protected), _Protected, what=f"{_WHAT}: signature")
    if not 0 < head.format_length <= len(data):
        raise FormatError(f"{_WHAT}: a signature is of {head.format_length} bytes of a document of {len(data)}")
    return data[: head.format_length] + _unpadded(head.format_tail)


def _unpadded(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise FormatError(f"{_WHAT}: a signature is not in base64") from error


def _image(text: str, number: int) -> _Image:
    what = f"{_WHAT}: history[{number}]"
    image = document.decode(text.encode(errors="surrogatepass"), _Image, what=what)
    if not _ID.fullmatch(image.id) or (image.parent and not _ID.fullmatch(image.parent)):
        raise FormatError(f"{what}: an id of a v1 image is 64 hex digits")
    return image


def _in_order(images: Sequence[_Image], blobs: Sequence[Digest]) -> list[int]:
    """The numbers of the steps, the newest first: each once, where old versions of docker wrote one twice.

    Raises:
        FormatError: they are not one on top of the other.
    """
    kept = [len(images) - 1]  # the lowest first
    if images[-1].parent:
        raise FormatError(f"{_WHAT}: the lowest step has a parent, {images[-1].parent}")
    seen = {images[-1].id}
    for number in range(len(images) - 2, -1, -1):
        image, below = images[number], kept[-1]
        if image.id == images[below].id and blobs[number] == blobs[below]:
            continue
        if image.id in seen:
            raise FormatError(f"{_WHAT}: two steps are {image.id}")
        if image.parent != images[below].id:
            raise FormatError(f"{_WHAT}: the step {image.id} is on {images[below].id}, and says that its parent is not")
        seen.add(image.id)
        kept.append(number)
    return kept[::-1]


def _step(image: _Image, blob: Digest) -> Step:
    command = (image.container_config and image.container_config.cmd) or ()
    return Step(
        created=_time(image.created),
        author=image.author or "",
        created_by=command if isinstance(command, str) else " ".join(command),
        comment=image.comment or "",
        layer=None if image.throwaway else blob,
    )


def _time(text: str | None) -> str:
    """A time as Go writes it: without zeros at the end; its own word for none."""
    match = _TIME.fullmatch(text or "")
    if match is None:
        return _NO_TIME
    fraction = (match[2] or "").rstrip("0").rstrip(".")
    return f"{match[1]}{fraction}{match[3]}"


def _history(step: Step) -> str:
    form: dict[str, object] = {
        "created": step.created,
        "author": step.author,
        "created_by": step.created_by,
        "comment": step.comment,
        "empty_layer": step.layer is None,
    }
    return _json({key: value for key, value in form.items() if value})


def _described(blob: Descriptor) -> dict[str, object]:
    """A descriptor in the order of docker's fields."""
    return {"mediaType": blob.media_type, "size": blob.size, "digest": str(blob.digest)}


def _keys(text: str) -> dict[str, str]:
    """The values of an object, as text without spaces, with what Go escapes."""
    values = document.peek(text.encode(), dict[str, msgspec.Raw], what=_WHAT)
    return {key: _SPACE.sub(r"\1", bytes(raw).decode()).translate(_ESCAPED) for key, raw in values.items()}


def _json(value: object) -> str:
    """JSON as Go writes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).translate(_ESCAPED)
