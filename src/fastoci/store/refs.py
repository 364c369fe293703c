"""References: which image a name led to, and which of its platforms are here. One small file each, replaced at once.

The truth about names, and the roots of garbage collection. Synchronous, for threads. Knows neither blobs nor the
clock. Spec: docs/store-format.md 6.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Final

import msgspec
from msgspec.structs import replace

from fastoci import files, locks
from fastoci.directory import Directory
from fastoci.errors import BlobNotFoundError, FormatError, StoreError, UnsupportedError
from fastoci.image import document, membership
from fastoci.image.descriptor import Descriptor, DescriptorForm, encode
from fastoci.image.stored_image import StoredImage
from fastoci.store.layout import StoreLayout
from fastoci.threads import Check, go_on

Stamp = tuple[int, int, int]  # inode, mtime and ctime in ns: a file that has another one was written or used since

REF_SIZE: Final = 1 << 20  # bytes of one file
_KEY: Final = re.compile(r"[0-9a-f]{64}")
# Fields of a file that are left out when they say nothing.
_WHEN_SET: Final = ("lists", "is_brought", "layers_only", "signatures")
_TOUCH_S: Final = 3600.0  # last use is known to the hour: a busy node does not write for every start of a container


class _Form(msgspec.Struct, frozen=True):
    """A reference's file."""

    name: str
    descriptor: DescriptorForm
    images: dict[str, DescriptorForm]
    pulled_at: str
    pinned: bool = False
    lists: dict[str, bool] = {}
    is_brought: bool = False
    layers_only: bool = False
    signatures: dict[str, str] = {}


class Refs:
    """The references of a store. Holds nothing, so any thread or process may use one."""

    def __init__(self, paths: StoreLayout) -> None:
        self._paths = paths

    def set(self, ref: StoredImage) -> StoredImage:
        """Record a reference, durable at once; what was stored is the answer.

        Platforms that are held of the same ``descriptor`` stay, a pinned name stays pinned, and lists go on wanting it.

        Raises:
            StoreError: the disk refused.
        """
        prefix, key = self._paths.ref(ref.name)
        with files.translated("record", self._paths.ref_path(ref.name)):
            made = files.make_directory(self._paths.refs, prefix, 0o755)
            with self._locked(prefix) as directory:
                if not made and not directory.has(key):
                    # Who made the directory may have been killed before its name was synced.
                    self._paths.refs.sync()
                before = self._before(directory, key)
                if before is None and directory.has(key):  # nobody knows whose the broken file was
                    ref = replace(ref, is_brought=False)
                ref = membership.merged(before, ref)
                files.replace(directory, key, _encode(ref, directory.at(key)), temporary=".new")
        return ref

    def get(self, name: str) -> StoredImage:
        """The reference of this canonical name.

        Raises:
            BlobNotFoundError: there is none.
            StoreError: its file is broken, or the disk refused.
        """
        prefix, key = self._paths.ref(name)
        ref = None
        checking = files.translated("stat", self._paths.ref_path(name))
        with checking, suppress(FileNotFoundError), self._paths.enter(self._paths.refs, prefix) as directory:
            ref = self.load(directory, key)
        if ref is None:
            raise self._absent(name)
        return ref

    def list(self, *, check: Check = go_on) -> tuple[tuple[StoredImage, ...], tuple[StoreError, ...]]:
        """All references by name, with their last use, and what is wrong with the files that are none.

        Args:
            check: called now and then.
        """
        refs: dict[str, StoredImage] = {}
        broken = []
        for directory, key in ref_files(self._paths):
            check()
            try:
                ref = self.load(directory, key)
            except StoreError as error:
                broken.append(error)
            else:
                if ref is not None:
                    refs[ref.name] = replace(ref, used_at=_used_at(directory, key))
        return tuple(refs[name] for name in sorted(refs)), tuple(broken)

    def more_than(self, count: int) -> bool:
        """Whether there are more references than this, by names of files alone."""
        return any(number >= count for number, _ in enumerate(ref_files(self._paths)))

    def touch(self, name: str) -> None:
        """Note that the image was used now, to the hour. Says nothing when the store cannot be written.

        Raises:
            BlobNotFoundError: there is no such reference.
        """
        prefix, key = self._paths.ref(name)
        now = time.time()
        try:
            with self._paths.enter(self._paths.refs, prefix) as directory:
                if not 0 <= now - directory.stat(key).st_mtime < _TOUCH_S:
                    directory.touch(key)
        except FileNotFoundError as cause:
            raise self._absent(name) from cause
        except OSError:
            # A read-only store, or a store of another user: who may not write there has no say in what is kept.
            return

    def invalidate(self, name: str) -> None:
        """Change the stamp and nothing else, so that a collection that was planned before reads the reference again.

        Raises:
            StoreError: the disk refused.
        """
        prefix, key = self._paths.ref(name)
        with self._changing(name), suppress(FileNotFoundError), self._locked(prefix) as directory:
            directory.retouch(key)

    def remove(self, name: str, *, stamp: Stamp | None = None) -> bool:
        """Forget a reference, durably; its blobs stay until gc. Whether it was there.

        Args:
            stamp: leave it alone when it was written or used since it had this stamp.
        Raises:
            StoreError: the disk refused.
        """
        prefix, key = self._paths.ref(name)
        with self._changing(name), suppress(FileNotFoundError), self._locked(prefix) as directory:
            if stamp is None or stamp_of(directory.stat(key)) == stamp:
                directory.unlink(key)
                directory.sync()
                return True
        return False

    def pin(self, name: str, pinned: bool) -> StoredImage:
        """Keep a reference from gc's retention, or let it go again.

        Raises:
            BlobNotFoundError: there is none.
            StoreError: its file is broken, or the disk refused.
        """
        ref = self.change(name, lambda ref: membership.pinned(ref, pinned))
        assert ref is not None
        return ref

    def change(self, name: str, how: Callable[[StoredImage], StoredImage | None]) -> StoredImage | None:
        """Change a reference, or remove it when ``how`` says None; durable at once. That is no use of the image.

        Raises:
            BlobNotFoundError: there is none.
            StoreError: its file is broken, or the disk refused.
        """
        prefix, key = self._paths.ref(name)
        with self._changing(name), suppress(FileNotFoundError), self._locked(prefix) as directory:
            ref = self.load(directory, key)
            if ref is not None:
                changed, info = how(ref), directory.stat(key)
                if changed is None:
                    directory.unlink(key)
                    directory.sync()
                elif changed != ref:
                    files.replace(directory, key, _encode(changed, directory.at(key)), temporary=".new")
                    os.utime(key, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=directory.fd, follow_symlinks=False)
                return changed
        raise self._absent(name)

    def scan(self) -> Iterator[tuple[Directory, str, os.stat_result]]:
        """All files of references, in no order: where it is, and its state, taken before ``load`` can read it.

        The directory is open until the next one is asked for.
        """
        for directory, key in ref_files(self._paths):
            with files.translated("stat", directory.at(key)), suppress(FileNotFoundError):
                yield directory, key, directory.stat(key)

    def load(self, directory: Directory, key: str) -> StoredImage | None:
        """The reference in a file that ``scan`` found; None when it is gone.

        Raises:
            StoreError: its file is broken, or the disk refused.
        """
        data = files.read(directory, key, REF_SIZE)
        if data is None:
            return None
        path = directory.at(key)
        try:
            form = document.peek(data, _Form, what="reference")
            images = {platform: image.value(platform) for platform, image in form.images.items()}
            top = form.descriptor.value("descriptor")
            rest = {name: getattr(form, name) for name in ("pulled_at", "pinned", *_WHEN_SET)}
            ref = StoredImage(form.name, top, images, **rest)
        except (FormatError, UnsupportedError) as error:
            raise StoreError(f"{path} is not a reference: {error}", path=path) from error
        if "/".join(self._paths.ref(ref.name)) != f"{os.path.basename(directory.path)}/{key}":
            raise StoreError(f"{path} is the file of another reference than {ref.name}", path=path)
        return ref

    def _changing(self, name: str) -> AbstractContextManager[None]:
        return files.translated("change", self._paths.ref_path(name))

    @contextmanager
    def _locked(self, prefix: str) -> Iterator[Directory]:
        """Be the only one to change references in a directory.

        Raises:
            FileNotFoundError: it is absent, so there are none.
        """
        with self._paths.enter(self._paths.refs, prefix) as directory:
            held = locks.acquire(directory, ".lock", wait=True)
            assert held is not None
            try:
                yield directory
            finally:
                os.close(held)

    def _before(self, directory: Directory, key: str) -> StoredImage | None:
        with suppress(StoreError):  # a broken file is replaced whole
            return self.load(directory, key)
        return None

    def _absent(self, name: str) -> BlobNotFoundError:
        return BlobNotFoundError(f"the store has no reference {name}", path=self._paths.ref_path(name))


def ref_files(paths: StoreLayout) -> Iterator[tuple[Directory, str]]:
    """The files of all references, in no order: where and under which key. What has another name is none, and not ours.

    A directory is open until the next one's files are asked for.
    """
    with files.translated("list", f"{paths.root}/refs"):
        for prefix in paths.refs.names():
            with suppress(FileNotFoundError, NotADirectoryError), paths.refs.enter(prefix) as directory:
                for key in filter(_KEY.fullmatch, directory.names()):
                    yield directory, key


def stamp_of(info: os.stat_result) -> Stamp:
    """What changes whenever the file is replaced or touched."""
    return info.st_ino, info.st_mtime_ns, info.st_ctime_ns


def _used_at(directory: Directory, key: str) -> str:
    with suppress(OSError):  # gone since it was read
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(directory.stat(key).st_mtime))
    return ""


def _encode(ref: StoredImage, path: str) -> bytes:
    """The file of a reference, never one that is too large to be read: that would stop gc until somebody deletes it.

    An index may say anything of its manifests. When that is too much, type, digest, size and platform are kept of them,
    and no signatures.

    Raises:
        StoreError: even these are too much.
    """
    data = _document(ref)
    if len(data) > REF_SIZE:
        images = {platform: _essence(image) for platform, image in ref.images.items()}
        data = _document(replace(ref, descriptor=_essence(ref.descriptor), images=images, signatures={}))
    if len(data) > REF_SIZE:
        raise StoreError(f"{path}: the reference would have {len(data)} bytes, more than {REF_SIZE}", path=path)
    return data


def _essence(descriptor: Descriptor) -> Descriptor:
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, platform=descriptor.platform)


def _document(ref: StoredImage) -> bytes:
    optional = {name: getattr(ref, name) for name in _WHEN_SET} | {"lists": dict(sorted(ref.lists.items()))}
    form = {
        "name": ref.name,
        "descriptor": encode(ref.descriptor),
        "images": {platform: encode(image) for platform, image in sorted(ref.images.items())},
        "pinned": ref.pinned,
        "pulled_at": ref.pulled_at,
        **{key: value for key, value in optional.items() if value},
    }
    return json.dumps(form, indent=1).encode() + b"\n"
