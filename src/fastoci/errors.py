"""Every error fastoci raises, in one tree.

::

    FastociError
      FormatError                 these bytes are not what their type says
        ReferenceSyntaxError        a reference does not parse
          AmbiguousReferenceError     several images of the store are meant   .candidates
          EndSyntaxError              it names no end, or none that images can come from or go to
        ConfigError                 a file that configures this, or what a variable says, cannot be used
      UnsupportedError            well formed, but nothing here can act on it
        PlatformError               the index holds no such platform
      CredentialError             credentials cannot be had, or not kept    .program
      RegistryError               the registry answered no        .status .code .url .retry_after_s
        NotFoundError               404: no such manifest or blob
        UnauthorizedError           401 after authentication was tried
        DeniedError                 403
        RateLimitedError            429
        UnavailableError            5xx
      TransportError              the bytes did not arrive        .url .received
        ConnectError                no connection: refused, unknown host, TLS
          ProxyError                  the proxy cannot be reached, or refuses   .status
        TimedOutError               a deadline passed
        TruncatedError              the body ended early
      IntegrityError              the bytes are not the promised ones   .subject .expected .actual
        DigestMismatchError
        SizeMismatchError
      StoreError                  the disk refused                .path
        BlobNotFoundError
          EndNotFoundError            no such layout, archive or directory, or no such image or blob there
        StoreBusyError              another process holds it        .pids
        StoreFullError              no space, no inodes or no quota left    .requirements
        MountError                  nothing can be mounted there, or be taken away
      UnpackError                 the layer cannot become files   .path .layer
        UnsafePathError             an entry would leave the root
        UnsupportedEntryError       an entry of a kind that is refused
        LimitError                  it asks for more than a bound allows
      PackError                   the tree cannot become a layer  .path
      ImagePathError              nothing in the image can be read at this path   .path
      ContainerdError             a call to containerd failed     .code .path
      PolicyError                 the policy of trust refuses the image   .policy .where

A class exists when a caller would act differently. Facts are attributes, nobody parses a message. ``image`` and
``blob`` are set by the engine when it knows them. Whether the same call may succeed later is ``retryable`` of each
instance: the client tries such a thing again, and nothing else. Exit codes and what may be tried again are documented
in ``docs/exit-codes.md``. Errors pickle and copy with all their attributes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, NamedTuple

_PROXY_STATUSES: Final = frozenset({*range(520, 528), 529, 530, 598, 599})  # Cloudflare's, and of other proxies
RETRYABLE_STATUSES: Final = frozenset({408, 421, 425, 429, 500, 502, 503, 504}) | _PROXY_STATUSES
# What a signed address says that is not valid any more: whoever redirected to it may name a new one.
EXPIRED_STATUSES: Final = frozenset({400, 401, 403, 404, 410})

_CAUSE_SIZE: Final = 200  # characters


class FastociError(Exception):
    """The root of everything that fastoci raises on purpose."""

    exit_code: ClassVar[int] = 1

    retryable: bool = False  # the same call may succeed later
    image: str | None = None  # the reference that was asked for
    blob: str | None = None  # the digest at fault
    tries: int = 0  # requests that one server was sent without success before this was raised; 0: no server's error
    elapsed_s: float = 0.0  # seconds from the first of them to the last
    others: tuple[str, ...] = ()  # what the other servers said: https://mirror.local/v2: 404 Not Found

    def __str__(self) -> str:
        message = self.message
        where = " ".join(p for p in (self.image, self.blob) if p and p not in message)
        return f"{where}: {message}" if where else message

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, self.__dict__)

    @property
    def message(self) -> str:
        """The bare sentence, without the image and blob it concerns."""
        where, text = self._parts()
        if self.tries > 1:
            elapsed = f"{self.elapsed_s:.{1 if self.elapsed_s < 10 else 0}f}"
            text = f"{self.tries} tries in {elapsed} s, last: {text}"
        others = f" (also asked: {'; '.join(self.others)})" if self.others else ""
        return f"{where}{text}{others}"

    @property
    def cause(self) -> str:
        """What went wrong, in a few words: ``503 Service Unavailable``, ``connection refused by 127.0.0.1:5000``."""
        where, text = self._parts()
        return (text.partition(": ")[0] if where else text)[:_CAUSE_SIZE]

    def _parts(self) -> tuple[str, str]:
        """The beginning of the sentence that says where, and the rest."""
        text = str(self.args[0]) if self.args else type(self).__name__
        url = self.__dict__.get("url")
        before, found, rest = text.partition(f"{url}: ") if url else (text, "", "")
        return (f"{before}{found}", rest) if found else ("", text)


def _restored(kind: type[FastociError], args: tuple[object, ...], facts: dict[str, object]) -> FastociError:
    """An error as it was, from ``copy`` or ``pickle``: ``__init__`` is not run again."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


class FormatError(FastociError):
    """These bytes are not what their type says."""

    exit_code = 7


class ReferenceSyntaxError(FormatError):
    """A reference, digest or platform does not parse."""

    exit_code = 2


class EndSyntaxError(ReferenceSyntaxError):
    """A text names no end, or not one image of it, or one that images cannot go to. The message says what can be."""


class AmbiguousReferenceError(ReferenceSyntaxError):
    """What was asked for could be several images of the store; ``candidates`` are their names or digests."""

    def __init__(self, message: str, *, candidates: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.candidates = candidates


class ConfigError(FormatError):
    """A configuration, auth or certificate file, or what the environment names or says, cannot be used as it is."""

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

    ``retry_after_s`` is the wait that it asked for, None when it did not. ``proxy``: whose answer it may be instead.
    ``expired``: a redirect led to an address that is not valid any more; its registry may name a new one.
    """

    exit_code = 5

    def __init__(
        self,
        message: str,
        *,
        url: str,
        status: int = 0,
        code: str = "",
        retry_after_s: float | None = None,
        redirected: bool = False,
        proxy: str = "",
    ) -> None:
        super().__init__(message)
        self.url = url
        self.proxy = proxy
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s
        self.expired = redirected and status in EXPIRED_STATUSES
        self.retryable = type(self).retryable or self.expired or status in RETRYABLE_STATUSES


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
    """429, or requests that the registry does not want now: come back in ``retry_after_s``."""

    retryable = True


class UnavailableError(RegistryError):
    """5xx: the registry is in trouble."""


class TransportError(FastociError):
    """The bytes did not arrive. ``received`` counts the body bytes that did.

    It is not ``retryable`` when the same request to the same server would fail the same way.
    """

    exit_code = 5

    def __init__(self, message: str, *, url: str, received: int = 0, retryable: bool = True) -> None:
        super().__init__(message)
        self.url = url
        self.received = received
        self.retryable = retryable


class ConnectError(TransportError):
    """No connection: refused, unknown host, or TLS failed."""


class ProxyError(ConnectError):
    """The proxy cannot be reached, or refuses: nobody else was asked. ``status`` is its answer, 0 when it gave none."""

    def __init__(self, message: str, *, url: str, status: int = 0, retryable: bool = True) -> None:
        super().__init__(message, url=url, retryable=retryable)
        self.status = status


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
    """The disk refused. ``path`` is the file or directory, ``errno`` what the system said, where it said anything."""

    exit_code = 8
    errno: int | None = None

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class BlobNotFoundError(StoreError):
    """The store does not hold this blob or reference. ``subject`` is the blob's digest; empty for a reference."""

    exit_code = 3

    def __init__(self, message: str, *, path: str, subject: str = "") -> None:
        super().__init__(message, path=path)
        self.subject = subject


class EndNotFoundError(BlobNotFoundError):
    """There is no such layout, archive or directory at ``path``, or it has no such image or blob."""


class StoreBusyError(StoreError):
    """Another process holds what is needed here; ``pids`` are those that are seen to, as far as that was looked up."""

    retryable = True

    def __init__(self, message: str, *, path: str, pids: tuple[int, ...] = ()) -> None:
        super().__init__(message, path=path)
        self.pids = pids


class SpaceRequirement(NamedTuple):
    """How much of ``what``, bytes or inodes, is ``needed`` at ``path``, and how much is ``free``."""

    what: str
    path: str
    needed: int
    free: int


class StoreFullError(StoreError):
    """No space, no inodes or no quota left. ``requirements`` are known when that was found out beforehand."""

    def __init__(self, message: str, *, path: str, requirements: tuple[SpaceRequirement, ...] = ()) -> None:
        super().__init__(message, path=path)
        self.requirements = requirements


class RootfsOccupiedError(StoreError):
    """Something else is where a tree should be. ``held`` is the manifest digest of the tree that is there, if known."""

    def __init__(self, message: str, *, path: str, held: str = "") -> None:
        super().__init__(message, path=path)
        self.held = held


class MountError(StoreError):
    """Nothing can be mounted at ``path``, or what is mounted there cannot be taken away."""


class OwnerError(StoreError):
    """A file cannot be given to the owner that its layer names, ``uid`` and ``gid``. ``path`` is the entry."""

    def __init__(self, message: str, *, path: str, uid: int, gid: int) -> None:
        super().__init__(message, path=path)
        self.uid = uid
        self.gid = gid


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


class LimitError(UnpackError):
    """The layer asks for more than a bound allows: of bytes, entries, directories, memory or work."""


class ImagePathError(FastociError):
    """Nothing in the image can be read at this path: it is absent, of another kind, or leads in a circle."""

    exit_code = 3

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class PackError(FastociError):
    """The tree cannot become a layer. ``path`` is what is in its way; ``retryable`` when it changed meanwhile."""

    exit_code = 7

    def __init__(self, message: str, *, path: str) -> None:
        super().__init__(message)
        self.path = path


class PolicyError(FastociError):
    """The policy of trust refuses the image, or demands what cannot be verified: ``where`` in the file ``policy``."""

    exit_code = 11

    def __init__(self, message: str, *, policy: str, where: str) -> None:
        super().__init__(message)
        self.policy = policy
        self.where = where


# gRPC's statuses that may pass: DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, UNAVAILABLE.
_PASSING_CODES: Final = frozenset({4, 8, 10, 14})


class ContainerdError(FastociError):
    """A call to containerd failed, or one of its calls is refused. ``path`` is the socket, ``code`` gRPC's status.

    Of a call that did not reach containerd, or had no answer, the code says what its own would: 14 for a socket where
    nobody listens, 4 for silence, 13 for what is not gRPC.
    """

    exit_code = 10

    def __init__(self, message: str, *, code: int, path: str) -> None:
        super().__init__(message)
        self.code = code
        self.path = path
        self.retryable = code in _PASSING_CODES
