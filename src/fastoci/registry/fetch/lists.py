"""What a registry lists of one repository, page by page: its tags, and the referrers of a document.

A page says where the next one is; that is the server's word, and its query is all that is taken of it.

Spec: distribution-spec v1.1, "Listing Tags", "Listing Referrers".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Final, Generic, TypeVar
from urllib.parse import urlencode

import msgspec

from fastoci.errors import FormatError, RegistryError, UnsupportedError
from fastoci.image import mediatype, tag_list
from fastoci.image.attachments import parse_referrers
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.registry.fetch.failover import Candidate, Failover
from fastoci.registry.fetch.session import RepositorySession
from fastoci.registry.http.content_encoding import SLACK, codings, content_type, document
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.link_header import next_page

_PAGE: Final = 1000  # tags
_PAGES: Final = 10_000  # of one list: some registries give 50 tags at most, and a hostile one gives one
_TAGS: Final = 1_000_000  # of one repository: a list that goes on for ever is not held
_REFERRERS: Final = 10_000  # of one document
# What registries say that know no referrers: they look at the path, the method or the media type first.
_UNKNOWN: Final = frozenset({400, 404, 405, 406, 501})

T = TypeVar("T")
Query = Mapping[str, str]


class _List(msgspec.Struct, Generic[T], frozen=True):
    """One list: where it is, what is asked of its first page, how a page is read, and what makes entries the same.

    ``unknown`` are the statuses of a registry that has no such list, and ``label`` the only type of one that has it.
    """

    what: str
    path: str
    query: Query
    accept: str
    most: int
    parse: Callable[[bytes], Sequence[T]]
    key: Callable[[T], Hashable]
    unknown: frozenset[int] = frozenset()
    label: str = ""


class Lists:
    """The lists of one repository.

    Args:
        page_size: bytes of one page.
    """

    def __init__(self, session: RepositorySession, page_size: int) -> None:
        self._session = session
        self._page_size = page_size

    async def tags(self) -> tuple[str, ...]:
        """All tags of the repository, in the registry's order, each once.

        Raises:
            FormatError: an answer is not a list of tags, is too large, or the list does not end.
            NotFoundError, RegistryError, TransportError: it cannot be had.
        """
        query, accept = {"n": str(_PAGE)}, "application/json"
        return await self._all(_List("tags", "tags/list", query, accept, _TAGS, tag_list.parse, str)) or ()

    async def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...] | None:
        """What the registry lists as hanging on a document, each once; None where it keeps no such lists.

        Args:
            artifact_type: of this type alone, where the registry can choose.
        Raises:
            FormatError: an answer is not a list of referrers, is too large, or the list does not end.
            RegistryError, TransportError: it cannot be had.
        """
        query = {"artifactType": artifact_type} if artifact_type else {}
        return await self._all(
            _List(
                "referrers",
                f"referrers/{subject}",
                query,
                mediatype.OCI_INDEX,
                _REFERRERS,
                parse_referrers,
                lambda entry: entry.digest,
                unknown=_UNKNOWN,
                label=mediatype.OCI_INDEX,
            )
        )

    async def _all(self, wanted: _List[T]) -> tuple[T, ...] | None:
        """All entries in the order of the pages; None where there is no such list."""
        found: dict[Hashable, T] = {}
        query: Query = wanted.query
        for _ in range(_PAGES):
            failover = self._session.failover(tag=True, manifest=False)
            page = await failover.run(partial(self._page, wanted, query, failover))
            if page is None:
                return None
            entries, following = page
            before = len(found)
            for entry in entries:
                found.setdefault(wanted.key(entry), entry)
            if len(found) > wanted.most:
                break
            if following is None:
                return tuple(found.values())
            if len(found) == before:
                break
            query = {**wanted.query, **following}
        raise FormatError(f"{self._session.reference.name}: the list of {wanted.what} does not end after {len(found)}")

    async def _page(
        self, wanted: _List[T], query: Query, failover: Failover, candidate: Candidate
    ) -> tuple[Sequence[T], Query | None] | None:
        """One page, and the query of the next; None as the query when it is the last."""
        path = f"{wanted.path}?{urlencode(query)}" if query else wanted.path
        try:
            reply = await self._session.ask(candidate, path, {"Accept": wanted.accept}, patience=failover.patience)
        except RegistryError as error:  # where credentials were looked for, because it hides from strangers
            if error.status in wanted.unknown:
                return None
            raise
        try:
            if reply.status in wanted.unknown:
                return None
            if reply.status != 200:
                raise await error_of(reply)
            if wanted.label and content_type(reply) != wanted.label:
                return None
            longest = self._page_size + SLACK if codings(reply) else self._page_size
            data = document(reply, await reply.read(longest, partial(failover.slow, candidate)), self._page_size)
            if len(data) > self._page_size:
                raise FormatError(f"{reply.url}: a page of {wanted.what} is larger than {self._page_size} bytes")
            try:
                entries = wanted.parse(data)
            except (FormatError, UnsupportedError) as error:
                raise type(error)(f"{reply.url}: {error}") from error
            try:
                return entries, next_page(reply.header("Link"))
            except ValueError as error:
                raise FormatError(f"{reply.url}: the next page of {wanted.what} has no address: {error}") from error
        finally:
            reply.close()
