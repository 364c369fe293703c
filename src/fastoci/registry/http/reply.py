"""One answer of a server: status and headers that are here, and a body that is still on the wire. Never decoded.

Spec: RFC 9110.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

import aiohttp
from yarl import URL

from fastoci.errors import FastociError, TimedOutError, TruncatedError
from fastoci.registry.http.aiohttp_errors import translate
from fastoci.registry.http.direct_receiver import DirectReceiver
from fastoci.registry.http.pace import Pace
from fastoci.registry.http.throughput import StallDetector
from fastoci.registry.http.untrusted import unexpected
from fastoci.registry.http.urls import Origin, redact

_LOG: Final = logging.getLogger(__name__)


class Reply:
    """One answer: its status and headers are here, its body is still on the wire. Belongs to one task; ``close`` it.

    ``redirected``: it is from another origin than was asked first. ``proxy``: who could have changed it on the way.
    ``bandwidth``: what its body shares with others; None where nothing limits them.
    """

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        url: URL,
        read_s: float,
        *,
        secrets: Callable[[], frozenset[str]],
        redirected: bool,
        proxy: str = "",
        bandwidth: Pace | None = None,
    ) -> None:
        self.redirected = redirected
        self.proxy = proxy
        self.status = response.status
        self.method = response.method
        self.origin = Origin.of(url)
        self.url = redact(url)
        self.received = 0
        self._response = response
        self._receiver: DirectReceiver | None = None
        self._begun = time.monotonic()
        self._logged = False
        self._secret = bool(url.raw_query_string)
        self._read_s = read_s
        self._bandwidth = bandwidth
        self._secrets = secrets

    def masked(self, text: str) -> str:
        """The server's words, without the secrets of the request: some servers repeat them."""
        for secret in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def header(self, name: str) -> str:
        """The header's values joined with commas, each once; empty when there is none."""
        return ", ".join(dict.fromkeys(self._response.headers.getall(name, ())))

    @property
    def length(self) -> int | None:
        """The announced bytes of the body; None when it is not announced."""
        text = self.header("Content-Length")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else None

    def piece(self, maximum: int) -> int:
        """How many bytes of up to ``maximum`` to receive before ``within_bandwidth``."""
        return maximum if self._bandwidth is None else min(maximum, self._bandwidth.piece)

    async def within_bandwidth(self, size: int, detector: StallDetector) -> None:
        """Count bytes that came, and wait until there may be more; the sender is not to blame for that time."""
        if self._bandwidth is not None and size:
            detector.pause()
            await self._bandwidth.use(size)
            detector.resume()

    async def some(self) -> bytes:
        """The bytes that arrived since, a piece of them; empty at the end of the body.

        Raises:
            TransportError: the body was cut, or is broken, or does not come.
        """
        content, piece = self._response.content, -1 if self._bandwidth is None else self._bandwidth.piece
        try:
            data = content.read_nowait(piece)
            if not data and not content.at_eof():
                # aiohttp's own deadline is not enough: after broken framing it is gone, and no end comes.
                async with asyncio.timeout(self._read_s):
                    data = await (content.readany() if piece < 0 else content.read(piece))
        except (aiohttp.ClientError, OSError) as error:
            cause = None if self._secret else error
            raise translate(error, self.url, received=self.received, answered=True) from cause
        except MemoryError:
            raise
        except Exception as error:  # no ``typed``: this is called for each piece of a body
            raise unexpected(error, self.url) from error
        self.received += len(data)
        return data

    async def read(self, limit: int, lag: Callable[[float], str] | None = None) -> bytes:
        """The body; at most ``limit`` + 1 bytes of it, by which the caller sees that it is too long.

        Args:
            lag: as ``StallPolicy`` has it.
        Raises:
            TransportError: as ``some``; and it comes too slowly.
        """
        body = bytearray()
        detector = StallDetector(time.monotonic, lag=lag)
        detector.resume()
        while len(body) <= limit and (data := await self.some()):
            body += data
            detector.count(len(data))
            await self.within_bandwidth(len(data), detector)
            if slow := detector.verdict():
                raise TimedOutError(f"{self.url}: {slow}", url=self.url, received=self.received)
        return bytes(body[: limit + 1])

    def take_over(self, left: int) -> DirectReceiver | None:
        """Receive the ``left`` bytes of the body past aiohttp; None where that cannot be."""
        if self.length != left or self.received:
            return None
        self._receiver = DirectReceiver.begin(self._response, left, self._read_s)
        return self._receiver

    def broken(self, error: Exception, received: int) -> FastociError:
        """The error for a body that broke off in a direct receiver."""
        if isinstance(error, EOFError):
            text = f"{self.url}: the body ended after {received} of {self.length} bytes"
            return TruncatedError(text, url=self.url, received=received)
        return translate(error, self.url, received=received, answered=True)

    def close(self) -> None:
        """End the transfer; the connection is used again only if the body was read to its end."""
        if _LOG.isEnabledFor(logging.DEBUG) and not self._logged:
            self._logged = True
            taken = 0 if self._receiver is None else (self.length or 0) - self._receiver.left
            elapsed = time.monotonic() - self._begun
            _LOG.debug("%s %s: %d bytes of the body in %.3f s", self.method, self.url, self.received + taken, elapsed)
        self._response.close()
