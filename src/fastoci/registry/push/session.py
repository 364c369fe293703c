"""A session that may write, and what its answers must look like.

Spec: distribution-spec v1.1, "Pushing blobs", "Pushing manifests", "Checking if content exists in the registry".
"""

from __future__ import annotations

from typing import ClassVar, Final

import msgspec
from yarl import URL

from fastoci.errors import DigestMismatchError, FormatError, IntegrityError, SizeMismatchError
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.registry.fetch.failover import Candidate
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.first_byte import Patience
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.throughput import drips
from fastoci.registry.http.urls import parse_url, quoted

_ACCEPT: Final = ", ".join(mediatype.ACCEPT)
_WORDS: Final = 4096  # bytes of an answer that says yes


class Held(msgspec.Struct, frozen=True):
    """What a registry says that it has under a name: a digest, which may be empty, and a length."""

    url: str
    digest: str
    size: int | None

    def difference(self, descriptor: Descriptor) -> IntegrityError | None:
        """Why it is something else than a descriptor's; None where it may be that."""
        said, wanted = self.digest, str(descriptor.digest)
        if said and said != wanted and said.partition(":")[0] == descriptor.digest.algorithm:
            text = f"{self.url}: the registry has {said[:200]!r} in place of {wanted}"
            return DigestMismatchError(text, subject=wanted, expected=wanted, actual=said[:200])
        if self.size is not None and self.size != descriptor.size:
            text = f"{self.url}: the registry has {self.size} bytes of {wanted}, which is {descriptor.size}"
            return SizeMismatchError(text, subject=wanted, expected=descriptor.size, actual=self.size)
        return None


class PushSession(RepositorySession):
    """A session that may write."""

    actions: ClassVar[str] = "pull,push"

    async def head(self, candidate: Candidate, path: str, patience: Patience | None) -> Held | None:
        """What a registry has at a path; None when that is nothing.

        Raises:
            RegistryError, TransportError: it does not say.
        """
        reply = await self.ask(candidate, path, {"Accept": _ACCEPT}, method="HEAD", patience=patience)
        try:
            if reply.status == 404:
                return None
            if reply.status != 200:
                raise await error_of(reply, hint=self.hint(reply))
            coded = bool(reply.header("Content-Encoding"))
            return Held(reply.url, reply.header("Docker-Content-Digest"), None if coded else reply.length)
        finally:
            reply.close()

    async def demand(self, reply: Reply, *statuses: int) -> Reply:
        """Read an answer that has one of these statuses to its end.

        Raises:
            RegistryError: it has another.
        """
        if reply.status not in statuses:
            raise await error_of(reply, hint=self.hint(reply))
        try:
            await reply.read(_WORDS, drips)
        finally:
            reply.close()
        return reply

    def hint(self, reply: Reply) -> str:
        """What to say of a refusal beside the registry's own words."""
        if reply.status == 403:
            return f"these credentials may not do that to {self.reference.name}"
        return ""


class DeleteSession(PushSession):
    """A session that may delete."""

    actions: ClassVar[str] = "pull,push,delete"


def check_digest(reply: Reply, descriptor: Descriptor) -> None:
    """Refuse an answer that is about something else.

    Raises:
        FormatError: it says so.
    """
    said = reply.header("Docker-Content-Digest")
    if said and said != str(descriptor.digest) and said.partition(":")[0] == descriptor.digest.algorithm:
        raise FormatError(f"{reply.url}: the registry says that it took {said[:200]!r} in place of {descriptor.digest}")


def location(reply: Reply) -> URL:
    """Where an upload goes on: what the registry answers, byte for byte.

    Raises:
        FormatError: it does not say, or names what is no address.
    """
    try:
        if not (named := reply.header("Location")):
            raise ValueError("no address")
        return parse_url(quoted(named), base=parse_url(reply.url))
    except ValueError as error:
        raise FormatError(f"{reply.url}: the registry does not say where to upload to: {error}") from error
