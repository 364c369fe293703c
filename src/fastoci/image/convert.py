"""Schema 2 becomes OCI, and OCI becomes schema 2: other types of the same blobs, in a document of its own. Pure.

Layers and configs stay byte for byte, so image ids stay. What the other form cannot hold is refused when the image
would be another without it, and said when it would not: annotations, a subject. How a layer is compressed is a part of
its type; what is said of a layer that was compressed anew is here, too.
Spec: image-spec v1.1 manifest.md, image-index.md, media-types.md; Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

import msgspec
from msgspec.structs import replace

from fastoci.arguments import expect, one_of
from fastoci.errors import UnsupportedError
from fastoci.image import index as indexes
from fastoci.image import manifest as manifests
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.index import Index, has_platform
from fastoci.image.manifest import Manifest

Format = Literal["oci", "v2s2"]


Recompression = Literal["gzip", "zstd"]  # what a layer can be compressed with
# A thread that compresses has a state beside the budget of memory: at zstd's levels 3 and 19 of 1.3 and 18 MB.
_LEVELS: Final[dict[Recompression, range]] = {"gzip": range(4), "zstd": range(1, 20)}


class Kind(msgspec.Struct, frozen=True):
    """What the type of a layer says."""

    form: Format
    compression: mediatype.Compression
    is_foreign: bool = False


_KINDS: Final[Mapping[str, Kind]] = {
    each: Kind("oci" if ".oci." in each else "v2s2", compression, each in mediatype.FOREIGN)
    for each, compression in mediatype.COMPRESSIONS.items()
}
_TYPES: Final = {kind: media_type for media_type, kind in _KINDS.items()}
_MANIFESTS: Final[Mapping[Format, str]] = {"oci": mediatype.OCI_MANIFEST, "v2s2": mediatype.DOCKER_MANIFEST}
_CONFIGS: Final[Mapping[Format, str]] = {"oci": mediatype.OCI_CONFIG, "v2s2": mediatype.DOCKER_CONFIG}
_INDEXES: Final[Mapping[Format, str]] = {"oci": mediatype.OCI_INDEX, "v2s2": mediatype.DOCKER_LIST}


class Converted(msgspec.Struct, frozen=True):
    """A document in another form, and what of the first one the form cannot hold."""

    data: bytes
    media_type: str
    lost: tuple[str, ...] = ()

    @property
    def descriptor(self) -> Descriptor:
        """What names it."""
        return Descriptor.of(self.data, self.media_type)


class Recipe(msgspec.Struct, frozen=True):
    """How layers are compressed: with what, and how hard; None is the usual level.

    Raises:
        ValueError: the compression has no such level.
    """

    compression: Recompression
    level: int | None = None

    def __post_init__(self) -> None:
        one_of(get_args(Recompression), self.compression, "compression")
        levels = _LEVELS[self.compression]
        if self.level is not None and expect(int, self.level, "level") not in levels:
            raise ValueError(f"{self.compression} has levels {levels[0]} to {levels[-1]}, not {self.level}")

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Read ``gzip``, ``zstd``, or one with ``:LEVEL``.

        Raises:
            ValueError: it is neither.
        """
        name, colon, level = text.partition(":")
        if name not in get_args(Recompression) or (colon and not (level.isascii() and level.isdecimal())):
            raise ValueError(f"{text[:100]!r} is neither gzip nor zstd, nor one of them with :LEVEL")
        return cls("gzip" if name == "gzip" else "zstd", int(level[:9]) if colon else None)


class Conversion(msgspec.Struct, frozen=True):
    """What images become: in which form, None for their own, and how their layers are compressed, None for as they are.

    Raises:
        ValueError: schema 2 has no zstd.
    """

    form: Format | None = None
    recipe: Recipe | None = None

    def __post_init__(self) -> None:
        if self.form is not None:
            one_of(get_args(Format), self.form, "form")
        if self.form == "v2s2" and self.recipe is not None and self.recipe.compression == "zstd":
            raise ValueError("schema 2 has no layers in zstd: choose OCI, or gzip")

    @property
    def changes(self) -> bool:
        """Anything at all."""
        return self.form is not None or self.recipe is not None


def form_of(media_type: str) -> Format | None:
    """Which form a manifest or index has; None for neither."""
    for types in (_MANIFESTS, _INDEXES):
        for form, each in types.items():
            if each == media_type:
                return form
    return None


def kind_of(layer: Descriptor) -> Kind | None:
    """What the type of a layer says; None when it says nothing."""
    return _KINDS.get(layer.media_type)


def type_of(kind: Kind) -> str:
    """The type that says this of a layer.

    Raises:
        UnsupportedError: there is none.
    """
    try:
        return _TYPES[kind]
    except KeyError:
        raise UnsupportedError(f"{kind.form} has no type for foreign layers in {kind.compression}") from None


def layer_as(layer: Descriptor, form: Format) -> Descriptor:
    """A layer's descriptor in another form.

    Raises:
        UnsupportedError: the form has no such layer.
    """
    kind = kind_of(layer)
    if kind is None:
        raise UnsupportedError(f"layer {layer.digest} is a {layer.media_type}: {form} has no type for it")
    if form == "v2s2" and kind.compression == "zstd":
        raise UnsupportedError(f"layer {layer.digest} is zstd, which schema 2 has not: compress it anew, as gzip")
    return replace(layer, media_type=type_of(msgspec.structs.replace(kind, form=form)))


def manifest_as(manifest: Manifest, form: Format) -> Converted:
    """A manifest in a form; the same bytes when it has it.

    Raises:
        UnsupportedError: it is no container image, or has a layer that the form does not know.
    """
    if form_of(manifest.media_type) == form:
        return Converted(manifest.raw, manifest.media_type)
    if not manifest.is_image:
        raise UnsupportedError(f"{manifest.config.media_type} is not a container image: only images have two forms")
    config = replace(manifest.config, media_type=_CONFIGS[form])
    layers = [layer_as(layer, form) for layer in manifest.layers]
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": _MANIFESTS[form]}
    if form == "oci":
        document |= {"config": encode(config), "layers": list(map(encode, layers))}
        if manifest.annotations:
            document["annotations"] = dict(sorted(manifest.annotations.items()))
        return Converted(_json(document), _MANIFESTS[form])
    document |= {"config": _docker(config), "layers": list(map(_docker, layers))}
    said = {
        "its annotations": manifest.annotations,
        "annotations of its layers": any(layer.annotations for layer in layers),
        "its subject": manifest.subject,
    }
    return Converted(_json(document), _MANIFESTS[form], tuple(what for what, there in said.items() if there))


def index_as(index: Index, form: Format, entries: Sequence[Descriptor]) -> Converted:
    """An index in a form, of entries that have it.

    Args:
        entries: what became of its own, in their order.
    Raises:
        UnsupportedError: the form has no place for an entry.
    """
    if form_of(index.media_type) == form and tuple(entries) == index.manifests:
        return Converted(index.raw, index.media_type)
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": _INDEXES[form]}
    if form == "oci":
        document["manifests"] = list(map(encode, entries))
        if index.annotations:
            document["annotations"] = dict(sorted(index.annotations.items()))
        return Converted(_json(document), _INDEXES[form])
    for entry in entries:
        if entry.media_type != mediatype.DOCKER_MANIFEST or not has_platform(entry):
            text = f"{entry.digest} is a {entry.media_type} for no platform: a manifest list has images for platforms"
            raise UnsupportedError(text)
    document["manifests"] = [_docker(entry) | {"platform": encode(entry)["platform"]} for entry in entries]
    said = {
        "its annotations": index.annotations,
        "annotations of its entries": any(entry.annotations for entry in index.manifests),
    }
    return Converted(_json(document), _INDEXES[form], tuple(what for what, there in said.items() if there))


def with_blobs(manifest: Manifest, blobs: Mapping[Digest, Descriptor]) -> Manifest:
    """A manifest with other blobs for some of its layers: the same tars, compressed anew.

    What is not of a layer's bytes stays, also what nothing here reads.

    Args:
        blobs: by the digests of those that they replace; their types say how they are compressed.
    Raises:
        UnsupportedError: the manifest's form has no type for one.
    """
    document = json.loads(manifest.raw)
    for layer, form in zip(manifest.layers, document.get("layers") or (), strict=True):
        if (blob := blobs.get(layer.digest)) is not None:
            new = encode(_described(layer, blob, manifest.media_type))
            for name in ("data", "urls", "annotations"):
                form.pop(name, None)
            form |= new
    return manifests.parse(_json(document), manifest.media_type)


def image_as(
    documents: Sequence[tuple[Descriptor, bytes]], form: Format | None, blobs: Mapping[Digest, Descriptor]
) -> tuple[list[tuple[Descriptor, bytes]], list[str]]:
    """All documents of an image in another form, or with other blobs, or both; and what is lost of each.

    Args:
        documents: each behind what it names.
        form: None to leave each in its own.
        blobs: as of ``with_blobs``.
    Raises:
        UnsupportedError: the form cannot hold it. FormatError: one is malformed.
    """
    made: dict[Digest, Descriptor] = {}
    found: list[tuple[Descriptor, bytes]] = []
    lost: list[str] = []
    for descriptor, data in documents:
        if descriptor.media_type in mediatype.INDEXES:
            index = indexes.parse(data, descriptor.media_type)
            entries = [_entry(entry, made) for entry in index.manifests]
            new = index_as(index, form or form_of(index.media_type) or "oci", entries)
        else:
            manifest = manifests.parse(data, descriptor.media_type)
            if not blobs.keys().isdisjoint(layer.digest for layer in manifest.layers):
                manifest = with_blobs(manifest, blobs)
            new = manifest_as(manifest, form or form_of(manifest.media_type) or "oci")
        lost += [f"{descriptor.digest} loses {what}: {new.media_type} has no place for it" for what in new.lost]
        after, named = descriptor, new.descriptor
        if new.data != data:
            after = replace(descriptor, media_type=new.media_type, digest=named.digest, size=named.size, data=None)
        made[descriptor.digest] = after
        found.append((after, new.data))
    return found, lost


def _entry(entry: Descriptor, made: Mapping[Digest, Descriptor]) -> Descriptor:
    """An entry of an index as it is named now; one that is about another one says so by its digest."""
    new = made.get(entry.digest, entry)
    told = dict(entry.annotations)
    subject = told.get(_SUBJECT)
    for digest, each in made.items():
        if subject == str(digest):
            told[_SUBJECT] = str(each.digest)
    return replace(entry, media_type=new.media_type, digest=new.digest, size=new.size, annotations=told, data=None)


_SUBJECT: Final = "vnd.docker.reference.digest"  # of BuildKit's attestations: the manifest that they are about

# What eStargz and zstd:chunked say of a layer: digests and offsets of bytes of the blob.
_OF_BYTES: Final = (
    "containerd.io/snapshot/stargz/",
    "io.containers.estargz.",
    "io.containers.zstd-chunked.",
    "io.github.containers.zstd-chunked.",
)


def _described(layer: Descriptor, blob: Descriptor, media_type: str) -> Descriptor:
    """What is said of a blob in place of another."""
    form, made = form_of(media_type), kind_of(blob)
    assert form is not None and made is not None
    before = kind_of(layer)
    kind = Kind(form, made.compression, before is not None and before.is_foreign)
    told = {name: text for name, text in layer.annotations.items() if not name.startswith(_OF_BYTES)}
    return replace(
        layer, media_type=type_of(kind), digest=blob.digest, size=blob.size, urls=(), annotations=told, data=None
    )


def _docker(descriptor: Descriptor) -> dict[str, object]:
    """A descriptor with the fields that schema 2 has, in its order."""
    form: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "size": descriptor.size,
        "digest": str(descriptor.digest),
    }
    return form | ({"urls": list(descriptor.urls)} if descriptor.urls else {})


def _json(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
