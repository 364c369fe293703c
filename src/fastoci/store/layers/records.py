"""The JSON beside what was made of layers: written with it, read by whoever asks whether it is there.

A record that cannot be read, is of something else, or does not fit the file counts as none: what it is of is absent.
Synchronous, for threads. Spec: docs/store-format.md 9.
"""

from __future__ import annotations

import json
import stat
from contextlib import suppress
from typing import Annotated, Final, TypeVar

import msgspec

from fastoci import files
from fastoci.directory import Directory
from fastoci.errors import FormatError, StoreError, UnsupportedError
from fastoci.image import document
from fastoci.image.digest import Digest
from fastoci.image.layer_file import TREE, Form, LayerDirectory, LayerInfo, MergedInfo

RECORD_SIZE: Final = 1 << 20  # bytes of one record: more than 127 devices, or reasons, take

T = TypeVar("T")


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    diff_id: str
    form: Form
    tar_size: int
    metadata_offset: int
    size: int
    entries: int
    reasons: tuple[str, ...]
    layout: int
    digest: str
    fs_verity: str = ""
    boot_id: str
    synced: bool


class _Merged(msgspec.Struct, frozen=True, kw_only=True):
    manifest: str
    devices: tuple[str, ...]
    size: int
    layout: int
    digest: str
    fs_verity: str = ""
    boot_id: str


class _Tree(msgspec.Struct, frozen=True, kw_only=True):
    chain_id: str
    entries: int
    size: int
    reasons: tuple[str, ...]
    owners: bool
    user_xattrs: bool
    names_root: bool
    boot_id: str
    synced: bool


def layer(directory: Directory, diff_id: Digest, boot_id: str) -> LayerInfo | None:
    """The layer file of a diff_id in a directory; None when it is not there, or a power cut may have damaged it.

    Raises:
        OSError: the disk refused to tell.
    """
    form = _read(directory, f"{diff_id.hex}.json", _Layer)
    name = f"{diff_id.hex}.erofs"
    if form is None or form.diff_id != str(diff_id) or not (form.synced or form.boot_id == boot_id):
        return None
    if not _is_file(directory, name, form.size):
        return None
    fields = {name: getattr(form, name) for name in form.__struct_fields__}
    with suppress(FormatError, UnsupportedError):
        fields |= {"diff_id": diff_id, "digest": document.digest(form.digest, what="digest")}
        return LayerInfo(path=directory.at(name), **fields)
    return None


def merged(directory: Directory, manifest: Digest, boot_id: str) -> MergedInfo | None:
    """The merged metadata of an image; None when it is not there, or is of another boot.

    Raises:
        OSError: the disk refused to tell.
    """
    form = _read(directory, f"{manifest.hex}.json", _Merged)
    name = f"{manifest.hex}.erofs"
    if form is None or form.manifest != str(manifest) or form.boot_id != boot_id:
        return None
    if not _is_file(directory, name, form.size):
        return None
    with suppress(FormatError, UnsupportedError):
        return MergedInfo(
            manifest=manifest,
            path=directory.at(name),
            devices=tuple(document.digest(device, what="device") for device in form.devices),
            size=form.size,
            digest=document.digest(form.digest, what="digest"),
            layout=form.layout,
            fs_verity=form.fs_verity,
            boot_id=form.boot_id,
        )
    return None


class _Root(msgspec.Struct, frozen=True, kw_only=True):
    manifest: str
    size: Annotated[int, msgspec.Meta(ge=0)]


def root_size(directory: Directory, manifest: Digest) -> int | None:
    """The bytes of an image's tree, as its record has them; None when nobody recorded them."""
    form = _read(directory, f"{manifest.hex}.json", _Root)
    return None if form is None or form.manifest != str(manifest) else form.size


def encode_root(manifest: Digest, size: int) -> bytes:
    """The record of an image's tree."""
    return json.dumps({"manifest": str(manifest), "size": size}, indent=1).encode() + b"\n"


def tree(directory: Directory, chain_id: Digest, boot_id: str) -> LayerDirectory | None:
    """The layer directory of layers, in its own; None when it is not whole, or a power cut may have damaged it.

    Raises:
        OSError: the disk refused to tell.
    """
    form = _read(directory, "done", _Tree)
    if form is None or form.chain_id != str(chain_id) or not (form.synced or form.boot_id == boot_id):
        return None
    fields = {name: getattr(form, name) for name in form.__struct_fields__}
    return LayerDirectory(path=directory.at(TREE), **{**fields, "chain_id": chain_id})


def encode(info: LayerInfo | MergedInfo | LayerDirectory) -> bytes:
    """The record of something; ``path`` is where it is found again."""
    fields = {name: _plain(getattr(info, name)) for name in info.__struct_fields__ if name != "path"}
    if isinstance(info, LayerInfo):
        fields["block"] = info.block
    return json.dumps(fields, indent=1).encode() + b"\n"


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Digest) else value


def _read(directory: Directory, name: str, form: type[T]) -> T | None:
    with suppress(StoreError, FormatError):  # of a record that cannot be read is said no more than that it is absent
        data = files.read_small(directory, name, RECORD_SIZE)
        return None if data is None else document.peek(data, form, what="record")
    return None


def _is_file(directory: Directory, name: str, size: int) -> bool:
    with suppress(FileNotFoundError):
        info = directory.stat(name)
        return stat.S_ISREG(info.st_mode) and info.st_size == size
    return False
