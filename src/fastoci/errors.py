"""Every error fastoci raises, in one tree.

::

    FastociError
      FormatError                 these bytes are not what their type says
        ReferenceSyntaxError        a reference does not parse
      UnsupportedError            well formed, but nothing here can act on it
        PlatformError               the index holds no such platform
      CredentialError             credentials cannot be had, or not kept    .program
      RegistryError               the registry answered no        .status .code .url .retry_after_s
        NotFoundError               404: no such manifest or blob
        UnauthorizedError           401 after authentication was tried
        DeniedError                 403
        RateLimitedError            429
        UnavailableError            5xx
      TransportError              the bytes did not arrive        .url .received .final
        ConnectError                no connection: refused, unknown host, TLS
        TimedOutError               a deadline passed
        TruncatedError              the body ended early
      IntegrityError              the bytes are not the promised ones   .subject .expected .actual
        DigestMismatchError
        SizeMismatchError
      StoreError                  the disk refused                .path
        BlobNotFoundError
        StoreBusyError              another process holds it
        StoreFullError              no space, no inodes or no quota left    .rooms
      UnpackError                 the layer cannot become files   .path .layer
        UnsafePathError             an entry would leave the root
        UnsupportedEntryError       an entry of a kind that is refused

A class exists when a caller would act differently. Facts are attributes, nobody parses a message. ``image`` and
``blob`` are set by the engine when it knows them. Exit codes are documented in ``docs/exit-codes.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class FastociError(Exception):
    """The root of everything that fastoci raises on purpose."""

    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    image: str | None = None  # the reference that was asked for
    blob: str | None = None  # the digest at fault

    def __str__(self) -> str:
        where = " ".join(p for p in (self.image, self.blob) if p and p not in self.message)
        return f"{where}: {self.message}" if where else self.message

    @property
    def message(self) -> str:
        """The bare sentence, without the image and blob it concerns."""
        return str(self.args[0]) if self.args else type(self).__name__


class FormatError(FastociError):
    """These bytes are not what their type says."""

    exit_code = 7


class ReferenceSyntaxError(FormatError):
    """A reference, digest or platform does not parse."""

    exit_code = 2


class UnsupportedError(FastociError):
    """Well formed, but nothing here can act on it."""

    exit_code = 7


class PlatformError(UnsupportedError):
    """The index holds no manifest for the platform; ``available`` lists those it holds."""

    exit_code = 3

    def __init__(self, message: str, *, available: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.available = available


class CredentialError(FastociError):
    """Credentials cannot be had from, or kept in, the place that the user named. ``program`` is the one that failed."""

    exit_code = 4

    def __init__(self, message: str, *, program: str = "") -> None:
        super().__init__(message)
        self.program = program


class RegistryError(FastociError):
    """The registry answered no. ``status`` is HTTP's, ``code`` the distribution-spec's (may be empty).

    ``retry_after_s`` is the wait that it asked for, None when it did not.
    """

    exit_code = 5

    def __init__(
        self, message: str, *, url: str, status: int = 0, code: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.url = url
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class NotFoundError(RegistryError):
    """404: no such repository, manifest or blob."""

    exit_code = 3


class UnauthorizedError(RegistryError):
    """401 after authentication was tried, or with nothing to try."""

    exit_code = 4


class DeniedError(RegistryError):
    """403: these credentials may not read this."""

    exit_code = 4


class RateLimitedError(RegistryError):
    """429, or requests for which the registry is known to have no room: come back in ``retry_after_s``."""

    retryable = True


class UnavailableError(RegistryError):
    """5xx: the registry is in trouble."""

    retryable = True


class TransportError(FastociError):
    """The bytes did not arrive. ``received`` counts the body bytes that did.

    ``final``: the same request to the same place would fail the same way.
    """

    retryable = True
    exit_code = 5

    def __init__(self, message: str, *, url: str, received: int = 0, final: bool = False) -> None:
        super().__init__(message)
        self.url = url
        self.received = received
        self.final = final


class ConnectError(TransportError):
    """No connection: refused, unknown host, or TLS failed."""


class TimedOutError(TransportError):
    """A deadline passed."""


class TruncatedError(TransportError):
    """The body ended before its announced end."""


class IntegrityError(FastociError):
    """The bytes are not the promised ones. ``subject`` is the digest or diff_id that was promised."""

    exit_code = 6

    def __init__(self, message: str, *, subject: str, expected: str | int, actual: str | int) -> None:
        super().__init__(message)
        self.subject = subject
        self.expected = expected
        self.actual = actual


class DigestMismatchError(IntegrityError):
    """The right number of bytes, but other ones."""


class SizeMismatchError(IntegrityError):
    """More or fewer bytes than the descriptor says."""


class StoreError(FastociError):
    """The disk refused. ``path`` is the file or directory concerned."""

    exit_code = 8

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class BlobNotFoundError(StoreError):
    """The store does not hold this blob or reference."""

    exit_code = 3


class StoreBusyError(StoreError):
    """Another process holds what is needed here."""

    retryable = True


@dataclass(frozen=True, slots=True)
class Room:
    """How much of ``what``, bytes or inodes, is ``needed`` at ``path``, and how much is ``free``."""

    what: str
    path: str
    needed: int
    free: int


class StoreFullError(StoreError):
    """No space, no inodes or no quota left. ``rooms`` are known when that was found out beforehand."""

    def __init__(self, message: str, *, path: str, rooms: tuple[Room, ...] = ()) -> None:
        super().__init__(message, path=path)
        self.rooms = rooms


class UnpackError(FastociError):
    """The layer cannot become files. ``path`` is the entry, ``layer`` the diff_id or file, ``offset`` in the tar."""

    exit_code = 7

    def __init__(self, message: str, *, path: str = "", layer: str = "", offset: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.layer = layer
        self.offset = offset


class UnsafePathError(UnpackError):
    """An entry names something outside the root, or replaces the root itself."""


class UnsupportedEntryError(UnpackError):
    """An entry of a kind that is refused."""
