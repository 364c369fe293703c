"""What a tar of images has: its members with where their bytes are, and which tars are refused.

The headers are read by the parser that layers are read by. Bodies pass by, and are seen by whoever has them. A reader
of archives never makes a file that a member names, so a name is a key and nothing else; those that others would take
for another place, or for two things, are refused all the same. Spec: POSIX pax; docs/archives.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Final

import msgspec

from fastoci import _extract
from fastoci.errors import FormatError, UnsupportedError
from fastoci.image.digest import Digest
from fastoci.limits import Limits

BLOCK: Final = 512
_ZEROS: Final = bytes(BLOCK)
_NAME: Final = 4096  # bytes of the name of a member, as of a path
_NAMES: Final = 16 << 20  # bytes of all of them
_KINDS: Final = {"p": "a FIFO", "c": "a device", "b": "a device"}


class Member(msgspec.Struct, frozen=True):
    """A file, or a link to one: the bytes of a file are in an open one, ``size`` of them from ``offset`` on.

    ``digest`` and ``hash_state``, the hasher's at the end, are of one that was hashed while it passed by. ``alone``:
    it is all that its file has, and the file has no name.
    """

    name: str
    size: int
    fd: int
    offset: int
    link: str | None = None
    digest: Digest | None = None
    hash_state: bytes = b""
    alone: bool = False


class Members:
    """The members of one archive by their names. ``archive`` names it in messages."""

    def __init__(self, archive: str, limits: Limits) -> None:
        self.archive = archive
        self._limits = limits
        self._members: dict[str, Member] = {}
        self._entries = self._names = 0

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def files(self) -> Mapping[str, Member]:
        """All of them."""
        return self._members

    def check(self, entry: _extract.TarEntry) -> str | None:
        """The name of an entry that may be a member; None for a directory.

        Raises:
            FormatError: it could be taken for something else; there are too many.
            UnsupportedError: it is nothing that an archive of images has.
        """
        self._entries += 1
        self._names += len(entry.path) + len(entry.link)
        if self._entries > self._limits.archive_members or self._names > _NAMES:
            raise FormatError(f"{self.archive} has more than {self._limits.archive_members} members, or {_NAMES} bytes")
        name = self._name(entry.path)
        if entry.type == "d":
            return None
        if entry.type in _KINDS:
            raise UnsupportedError(f"{self.archive}: the member {name!r} is {_KINDS[entry.type]}")
        if entry.sparse:
            raise UnsupportedError(f"{self.archive}: the member {name!r} is a sparse file")
        if name in self._members:
            raise FormatError(f"{self.archive} has two members that are called {name!r}")
        return name

    def add(self, member: Member) -> None:
        """One more that was checked."""
        self._members[member.name] = member

    def find(self, name: str, *, follow: bool = False) -> Member:
        """A file by the name that a document has for it.

        Args:
            follow: one link to a file of the archive, as ``docker save`` has made of a layer that is there already.
        Raises:
            FormatError: it is not there, or is a link that is not to be followed.
        """
        found = self._members.get(posixpath.normpath(name)) if name else None
        if found is None:
            what = f"has no member {name[:200]!r}" if self._members else "has no members: it is no archive of images"
            raise FormatError(f"{self.archive} {what}")
        if found.link is None:
            return found
        target = self._members.get(found.link) if follow else None
        if target is None or target.link is not None:
            text = f"{self.archive}: the member {found.name!r} is a link to {found.link[:200]!r}"
            raise FormatError(f"{text}, which is not a file of the archive" if follow else text)
        return target

    def target(self, entry: _extract.TarEntry, name: str) -> str | None:
        """Where a link leads to, as the name of a member; None for a file.

        Raises:
            FormatError: out of the archive.
        """
        if entry.type not in ("l", "h"):
            return None
        link = entry.link.decode(errors="surrogateescape")
        # a hard link's target is a name in the archive, a symbolic link's begins where the link is
        joined = link if entry.type == "h" else posixpath.join(posixpath.dirname(name), link)
        target = posixpath.normpath(joined) if link else ""
        if not link or link.startswith("/") or target.startswith("../") or target == "..":
            raise FormatError(f"{self.archive}: the member {name!r} is a link out of the archive, to {link[:200]!r}")
        return target

    def _name(self, path: bytes) -> str:
        text = path.decode(errors="surrogateescape")
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if len(path) > _NAME or text.startswith("/") or ".." in parts:
            raise FormatError(
                f"{self.archive}: the name of a member leads out of the archive, or is too long: {text[:200]!r}"
            )
        return "/".join(parts)


class Headers:
    """The headers of one archive, piece by piece: ``wanted`` bytes go to ``feed``, and bodies are passed over.

    Args:
        members: checks what is found.
    """

    def __init__(self, members: Members) -> None:
        self.position = 0
        self._members = members
        self._tar = _extract.TarReader()
        self._zeros = 0  # blocks of zeros in a row: two are the end

    @property
    def wanted(self) -> int:
        """Bytes of headers or padding that come next; 0 when the archive has ended: then comes ``end``."""
        return BLOCK - self.position % BLOCK if self._zeros < 2 else 0

    def feed(self, data: bytes) -> tuple[str | None, _extract.TarEntry, int] | None:
        """Take ``data``, which comes next; the entry that is complete with it: its name, and where its body begins.

        The body is passed over: what is fed next is behind it.

        Raises:
            FormatError, UnsupportedError: the tar is malformed, or ``Members.check`` says so.
        """
        if code := self._tar.feed(data):
            raise self._error(code)
        self._zeros = self._zeros + 1 if data == _ZEROS else 0
        body = self.position + len(data)
        self.position = body + self._tar.skip_body()
        entries = self._tar.entries()
        if not entries:
            return None
        entry = entries[0]
        return self._members.check(entry), entry, body

    def end(self) -> None:
        """No more bytes come.

        Raises:
            FormatError: they should.
        """
        if code := self._tar.finish():
            raise self._error(code)

    def _error(self, code: int) -> FormatError | UnsupportedError:
        kind, sentence = _extract.TAR_CODES[code]
        member = self._tar.path.decode(errors="surrogateescape")
        near = f", member {member[:200]!r}" if member else ""
        text = f"{self._members.archive}: {sentence} (at byte {self._tar.offset}{near})"
        return UnsupportedError(text) if kind == "unsupported" else FormatError(text)
