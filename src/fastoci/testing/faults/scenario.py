"""What a fault scenario is: which requests are answered wrongly, how, and what the right client makes of it.

Values only. ``server`` plays them, ``verdict`` compares the outcome. docs/faults.md explains the words.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

Host = Literal["registry", "cdn", "mirror", "evil", "plain", "metadata"]
What = Literal[
    "any", "api", "bare", "hidden", "head", "reused", "token", "manifest", "config", "layer", "first", "later"
]
Framing = Literal[
    "length", "close", "chunked", "tiny", "unended", "overflow", "negative", "linefeed", "overrun", "both"
]
Expect = Literal["ok", "error", "either"]
End = Literal["keep", "close", "cut", "reset", "stall"]
Flood = Literal["headers", "header", "informational", "trailers"]

ALWAYS = 1 << 30
ENDLESS = 64 << 20  # bytes, where a scenario says "endless": enough to see that a client does not stop


@dataclass(frozen=True, slots=True)
class Tweak:
    """What is done to one answer. The defaults leave it as the registry gave it.

    ``headers``, ``lines``, ``body`` and ``after`` may have ``$registry``, ``$cdn``, ``$evil``, ``$plain`` for origins,
    ``$name`` for the repository, ``$layer`` and ``$small`` for the digests of the big and the other layer, ``$size``
    for the big one's size, ``$target`` for the request's target, ``$userinfo`` for the registry's origin with a user
    and password, ``$token`` for a good token, ``$soon`` for a date two seconds ahead.
    """

    # the answer
    status: int = 0  # 0: the registry's
    headers: tuple[tuple[str, str], ...] = ()  # set, or taken away by an empty value
    lines: tuple[str, ...] = ()  # more header lines, as they are
    body: str | None = None  # instead of the registry's
    image: int = 0  # the manifest of this one of the scenario's images
    whole: bool = False  # the Range header is ignored
    flip: int | None = None  # this byte of the body has one bit changed
    other: bool = False  # a body of the same length, and wrong in every byte
    less: int = 0  # bytes that the body is shorter than it should be
    padding: int = 0  # spaces behind the body, inside Content-Length; never more than ENDLESS are sent
    content_encoding: str = ""  # Content-Encoding: "gzip" encodes once, "gzip, gzip, gzip" thrice, others only say so
    bomb: bool = False  # a body of some MB that gzip decodes to 1 GiB of spaces
    multipart: bool = False  # a part is sent as multipart/byteranges
    # how it is sent
    framing: Framing = "length"
    miscount: int = 0  # added to Content-Length
    flood: Flood | None = None  # what comes without end, around the answer
    part: float = 1.0  # how much of the body is sent before the end
    upto: int = 0  # or so many bytes of it; 0: the part
    unresponsive: bool = False  # nothing at all is sent before the end
    pause_s: float = 0.0  # between single bytes: a trickle
    rate: int = 0  # bytes a second; 0: as fast as it goes
    after: str = ""  # bytes behind the answer
    end: End = "keep"

    def __str__(self) -> str:
        changed = ((each.name, getattr(self, each.name), each.default) for each in fields(self))
        return ", ".join(f"{name}={value!r}" for name, value, default in changed if value != default)


@dataclass(frozen=True, slots=True)
class Rule:
    """The ``first`` to the ``last`` request for ``what`` at ``host`` is answered with ``tweak``.

    ``layer`` is any GET of the image's big layer; ``first`` one without a Range or with one from byte 0; ``later`` one
    from another byte; ``manifest`` and ``config`` are GETs too, ``head`` is any HEAD, ``reused`` any request but the
    first of a connection, ``api`` any request but for a token, ``bare`` one of these without credentials, ``hidden``
    one of those that is not for ``/v2/``. Each rule counts for itself; the first rule that applies wins.
    """

    what: What
    tweak: Tweak
    first: int = 1
    last: int = ALWAYS
    host: Host = "registry"

    def __str__(self) -> str:
        requests = f"{self.first}.." if self.last == ALWAYS else f"{self.first}..{self.last}"
        return f"{self.host} {self.what} {requests}: {self.tweak}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault, or one case of it: ``N11.overflow`` is the case ``overflow`` of the fault ``N11``."""

    id: str
    title: str
    must: str  # what the right client does
    expect: Expect
    error: str = ""  # the kind of error, for people
    case: str = ""
    rules: tuple[Rule, ...] = ()
    # the surroundings
    auth: Literal["none", "basic", "bearer"] = "none"
    token_uses: int = 0  # requests that a token is good for; 0: any number
    credentials: Literal["right", "elsewhere"] = "right"  # "elsewhere": only for names like the registry's
    cdn_uses: int = -1  # blobs are redirected to signed addresses good for so many requests; 0: any, -1: no redirects
    mirror: Literal["", "good", "dead"] = ""  # asked first; "dead" never completes a connection
    tls: Literal["", "only", "expired", "name", "unknown", "self", "old", "handshake"] = ""  # not empty: needs TLS
    address: Literal["", "closed", "unknown", "double"] = ""  # of the registry
    layer: int = 1 << 20  # bytes
    images: int = 1
    foreign: bool = False  # the layer is to be had at $evil
    proxy: bool = False  # proxy variables and a .netrc, with passwords
    run: Literal["pull", "killed", "leader", "never"] = "pull"  # "never": not a matter of one pull
    tls_trusted: tuple[Host, ...] = ()  # hosts beside the registry that may get the credentials over TLS
    # what the log must not show
    silent: tuple[Host, ...] = ("metadata",)  # hosts that nobody may ask
    max_bytes: int = 0  # that a client takes, over all its requests; 0: any number
    max_requests: int = 0  # requests with one target; 0: any number

    @property
    def name(self) -> str:
        """``N11.overflow``, or ``N13`` when the fault has one case."""
        return f"{self.id}.{self.case}" if self.case else self.id

    def __str__(self) -> str:
        return "\n".join([f"{self.name} {self.title}: {self.expect}", *(f"  {rule}" for rule in self.rules)])
