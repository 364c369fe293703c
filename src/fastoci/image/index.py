"""Indexes: manifests by platform, the ``index.json`` of a layout, and the choice of the manifest for a machine.

An index may point at indexes; how deep is not decided here.

Spec: image-spec v1.1 image-index.md; Docker image manifest version 2, schema 2, "manifest list".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

import msgspec

from fastoci.errors import FormatError, UnsupportedError
from fastoci.image import document, mediatype
from fastoci.image.descriptor import AnnotationsForm, Descriptor, DescriptorForm, annotations_of, encode
from fastoci.image.digest import Digest
from fastoci.image.manifest import check_kind
from fastoci.image.platform import Platform

_WHAT: Final = "index"
_UNDERSTOOD: Final = {"windows": frozenset({"win32k"})}  # features that every machine has, by operating system


class Index(msgspec.Struct, frozen=True):
    """Descriptors in the order of the document. ``raw`` are the bytes that its digest covers.

    ``unread`` says what is wrong with entries that are left out.
    """

    media_type: str
    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str]
    raw: bytes
    unread: tuple[str, ...] = ()


class _Form(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    schema_version: Literal[2] | None = None
    media_type: str | None = None
    annotations: AnnotationsForm = None
    # Named so that other spellings of them are refused; ``check_kind`` refuses these themselves.
    config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    layers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    fs_layers: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Sound(_Form, frozen=True, kw_only=True):
    manifests: tuple[DescriptorForm, ...] | None  # umoci writes null for none


class _Entries(_Form, frozen=True, kw_only=True):
    manifests: tuple[msgspec.Raw, ...] | None


def parse(data: bytes, media_type: str, *, choosing: bool = False) -> Index:
    """Parse an index exactly as its digest covers it.

    Args:
        data: kept, so ``raw`` round-trips.
        media_type: of the descriptor or the Content-Type that the bytes came with, without parameters.
        choosing: one entry is wanted, and those that cannot be read are of others: leave them out, unless all are.
    Raises:
        FormatError: not strict JSON, a required field is absent or of another type, or the body says that it is, or
            could be taken for, something else; one digest with two sizes.
        UnsupportedError: ``media_type`` is not one of ``mediatype.INDEXES``; a digest's algorithm is not supported.
    """
    if media_type not in mediatype.INDEXES:
        raise UnsupportedError(f"{_WHAT}: {media_type[:200]!r} is not a type of index")
    check_kind(data, media_type, what=_WHAT, refused=frozenset({"config", "layers", "fsLayers"}))
    form: _Sound | _Entries
    try:
        form = document.decode(data, _Sound, what=_WHAT)
    except FormatError:  # perhaps of one entry: they are read one by one, which takes two to three times as long
        form = document.decode(data, _Entries, what=_WHAT)
    manifests, errors = _entries(form.manifests or ())
    if errors and not (choosing and manifests):
        raise errors[0]
    unread = tuple(error.message for error in errors)
    return Index(media_type, manifests, annotations_of(form.annotations), raw=data, unread=unread)


def _entries(
    forms: Sequence[DescriptorForm | msgspec.Raw],
) -> tuple[tuple[Descriptor, ...], list[FormatError | UnsupportedError]]:
    """The entries of an index, and what is wrong with the others. Of two sizes of one digest, one is a lie."""
    found: list[Descriptor] = []
    errors: list[FormatError | UnsupportedError] = []
    sizes: dict[Digest, dict[int, None]] = {}
    for position, form in enumerate(forms):
        what = f"{_WHAT}: manifests[{position}]"
        try:
            if isinstance(form, msgspec.Raw):
                form = document.decode(bytes(form), DescriptorForm, what=what)
            entry = form.value(what)
        except (FormatError, UnsupportedError) as error:
            errors.append(error)
        else:
            found.append(entry)
            sizes.setdefault(entry.digest, {})[entry.size] = None
    lies = {digest: " and ".join(map(str, said)) for digest, said in sizes.items() if len(said) > 1}
    errors += [FormatError(f"{_WHAT}: {digest} is said to have {said} bytes") for digest, said in lies.items()]
    return tuple(entry for entry in found if entry.digest not in lies), errors


def made_of(entries: Sequence[Descriptor], media_type: str, annotations: Mapping[str, str]) -> bytes:
    """Write an index: the same entries give the same bytes."""
    form: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "manifests": [encode(entry) for entry in entries],
    }
    if annotations:
        form["annotations"] = dict(sorted(annotations.items()))
    return msgspec.json.encode(form)


def select(candidates: Sequence[Descriptor], wanted: Platform) -> Descriptor | None:
    """Choose the manifest that runs best on ``wanted``, as ``ranked`` has it."""
    return next(iter(ranked(candidates, wanted)), None)


def ranked(candidates: Sequence[Descriptor], wanted: Platform) -> list[Descriptor]:
    """What runs on ``wanted``, best first, and in the order of the index among equals.

    Entries without a platform never match, nor does ``unknown/unknown``, which marks attestations, nor what demands a
    feature (``os.features``) that ``wanted`` does not name.
    """
    wanted = wanted.normalised()
    order = {row: rank for rank, row in enumerate(wanted.fallbacks())}
    features = _UNDERSTOOD.get(wanted.os, frozenset()) | frozenset(wanted.os_features)
    found: list[tuple[int, Descriptor]] = []
    for candidate in candidates:
        if not has_platform(candidate):
            continue
        assert candidate.platform is not None
        offered = candidate.platform.normalised()
        if offered.os != wanted.os or "unknown" in (offered.os, offered.architecture):
            continue
        if wanted.os_version and not f"{offered.os_version}.".startswith(f"{wanted.os_version}."):
            continue
        rank = order.get((offered.architecture, offered.variant))
        if rank is not None and features.issuperset(offered.os_features):
            found.append((rank, candidate))
    return [candidate for _, candidate in sorted(found, key=lambda each: each[0])]


def has_platform(entry: Descriptor) -> bool:
    """Whether an entry says what it runs on; one without words says nothing."""
    return entry.platform is not None and bool(entry.platform.os or entry.platform.architecture)
