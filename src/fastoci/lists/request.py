"""What a list asks for: images by name, or the tags of a repository that a rule chooses. Pure values."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from fastoci.arguments import expect, one_of, several


class PrefetchRequest(msgspec.Struct, frozen=True):
    """One image that is wanted.

    Args:
        reference: as ``Engine.pull`` takes it.
        platforms: as ``Engine.pull_platforms`` takes them; none is this machine's.
        priority: larger ones come first.
        pinned: gc leaves the image alone from then on.
        rootfs: a directory that gets the files of the image, too; of its first platform.
        origin: where a list says so, as ``images.txt:12``; for messages.
    Raises:
        TypeError: a field is of another type.
    """

    reference: str
    platforms: tuple[str, ...] = ()
    priority: int = 0
    pinned: bool = False
    rootfs: str = ""
    origin: str = ""

    @property
    def subject(self) -> str:
        """What messages call it: its name, and where a list asks for it; a line without a name by its place."""
        named = f"{self.reference} ({self.origin})" if self.origin else self.reference
        return named if self.reference else self.origin

    def __post_init__(self) -> None:
        expect(str, self.reference, "reference")
        several(self.platforms, str)
        expect(int, self.priority, "priority")
        expect(bool, self.pinned, "pinned")
        expect(str, self.rootfs, "rootfs")
        expect(str, self.origin, "origin")


class TagQuery(msgspec.Struct, frozen=True):
    """The tags of a repository that a rule chooses: each becomes a request when the registry has told them.

    Args:
        repository: without tag or digest.
        rule: a regular expression that is searched in a tag, a range of semantic versions, or every tag.
        text: the expression or the range; empty for every tag.
        origin: as of ``PrefetchRequest``.
        platforms, priority, pinned: of each request.
        rootfs: what the directories of all begin with; ``:`` and the tag are behind it.
    Raises:
        TypeError: a field is of another type.
    """

    repository: str
    rule: Literal["regex", "semver", "all"]
    text: str = ""
    origin: str = ""
    platforms: tuple[str, ...] = ()
    priority: int = 0
    pinned: bool = False
    rootfs: str = ""

    def __post_init__(self) -> None:
        expect(str, self.repository, "repository")
        one_of(("regex", "semver", "all"), self.rule, "rule")
        expect(str, self.text, "text")
        several(self.platforms, str)
        expect(int, self.priority, "priority")
        expect(bool, self.pinned, "pinned")
        expect(str, self.rootfs, "rootfs")
        expect(str, self.origin, "origin")

    def request(self, tag: str) -> PrefetchRequest:
        """The request for one of the tags."""
        rootfs = f"{self.rootfs}:{tag}" if self.rootfs else ""
        name = f"{self.repository}:{tag}"
        return PrefetchRequest(name, self.platforms, self.priority, self.pinned, rootfs, self.origin)


class RegistryAccess(msgspec.Struct, frozen=True):
    """How one registry of a list is asked, where the list says it.

    Args:
        registry: ``HOST[:PORT]``.
        username, password: empty when the list has none.
        tls_verify: None where the list says nothing.
        cert_dir: certificates of this registry.
    """

    registry: str
    username: str = ""
    password: str = ""
    tls_verify: bool | None = None
    cert_dir: Path | None = None
    origin: str = ""

    def __repr__(self) -> str:  # a secret belongs into no log
        return f"RegistryAccess({self.registry!r}, origin={self.origin!r})"


class ListProblem(msgspec.Struct, frozen=True):
    """What is wrong with a part of a list; the rest of it counts."""

    origin: str
    message: str


Entry = PrefetchRequest | TagQuery | ListProblem


class ImageList(msgspec.Struct, frozen=True):
    """What one list says, each part in its order."""

    requests: tuple[PrefetchRequest, ...] = ()
    queries: tuple[TagQuery, ...] = ()
    access: tuple[RegistryAccess, ...] = ()
    problems: tuple[ListProblem, ...] = ()

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that a job is given: what it brings, and what it can only tell of."""
        return (*self.requests, *self.queries, *self.problems)
