"""One answer, wronged as an ``Tweak`` says and sent byte by byte as it says.

Knows no scenario and no registry. Spec: RFC 9112, and how to break it.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from fastoci.server.http import Peer
from fastoci.server.pull_api import Answer, head, refusal
from fastoci.testing.faults.scenario import ENDLESS, Tweak

_STEPS: Final = 50  # pieces a second: who measures over a short while does not see them
_CHUNK: Final = 64 << 10
_MEMBER: Final = 16 << 20  # bytes
_BOMB: Final = 1 << 30  # bytes, decoded
_BOUNDARY: Final = "fastoci-part"
_FLIPPED: Final = bytes(byte ^ 0xFF for byte in range(256))
_BODILESS: Final = (204, 304)

Fill = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class ResponseWriter:
    """How one answer goes to one client. ``second_s`` is how long a second of a scenario lasts."""

    peer: Peer
    tweak: Tweak
    fill: Fill
    second_s: float = 1.0

    async def send(self, method: str, answer: Answer) -> None:
        """Send what the tweak makes of the answer, up to the end of which ``end`` is the manner."""
        tweak = self.tweak
        if tweak.unresponsive:
            return
        status, headers, body = wrong(answer, tweak, self.fill)
        await self._flood()
        await self.peer.write(self._head(status, headers, len(body)))
        if method != "HEAD" and status not in _BODILESS:
            await self._body(body)
        await self.peer.write(self.fill(tweak.after).encode("latin-1"))

    async def end(self) -> bool:
        """End the answer; whether the connection is kept."""
        end = self.tweak.end
        if end == "reset":
            await self.peer.reset()
        elif end == "cut":
            await self.peer.cut()
        elif end == "stall":
            await self.peer.stall()
        return end == "keep" and self.tweak.framing != "close"

    def _head(self, status: int, headers: dict[str, str], length: int) -> bytes:
        tweak = self.tweak
        if tweak.framing in ("length", "both") and status not in _BODILESS:
            headers.setdefault("Content-Length", str(length + tweak.padding + tweak.miscount))
        if tweak.framing not in ("length", "close"):
            headers.setdefault("Transfer-Encoding", "chunked")
        lines = [line.partition(": ")[::2] for line in map(self.fill, tweak.lines)]
        return head(status, [*headers.items(), *lines], version="1.0" if tweak.framing == "close" else "1.1")

    async def _flood(self) -> None:
        if self.tweak.flood == "informational":
            for _ in range(0, ENDLESS, _CHUNK):
                await self.peer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * (_CHUNK // 40))
        elif self.tweak.flood in ("headers", "header"):
            await self.peer.write(b"HTTP/1.1 200 OK\r\n" + (b"X-Long: " if self.tweak.flood == "header" else b""))
            await self._lines(long=self.tweak.flood == "header")
            raise ConnectionAbortedError("the flood is over")

    async def _lines(self, *, long: bool) -> None:
        for number in range(ENDLESS // _CHUNK):
            await self.peer.write(
                b"a" * _CHUNK
                if long
                else b"".join(b"X-%d-%d: %s\r\n" % (number, each, b"a" * 40) for each in range(_CHUNK // 60))
            )

    async def _body(self, body: bytes) -> None:
        tweak = self.tweak
        part = body[: tweak.upto or int(len(body) * tweak.part)]
        if tweak.pause_s:
            for byte in part:
                await self.peer.write(self._framed(bytes([byte])))
                await asyncio.sleep(tweak.pause_s * self.second_s)
        elif tweak.rate:
            step = max(1, tweak.rate // _STEPS)
            for start in range(0, len(part), step):
                await self.peer.write(self._framed(part[start : start + step]))
                await asyncio.sleep(self.second_s * step / tweak.rate)
        elif tweak.framing in ("length", "close"):
            await self.peer.write(part)
        else:
            for piece in self._chunks(part):
                await self.peer.write(piece)
        for _ in range(0, min(tweak.padding, ENDLESS), _CHUNK):
            await self.peer.write(self._framed(b" " * _CHUNK))
        if tweak.padding > ENDLESS:
            raise ConnectionAbortedError("the client took it all")
        if tweak.flood == "trailers":
            await self.peer.write(b"0\r\n")
            await self._lines(long=False)
        elif tweak.framing in ("chunked", "tiny", "both") and tweak.part == 1.0:
            await self.peer.write(b"0\r\nX-Trailer: yes\r\n\r\n" if tweak.framing == "tiny" else b"0\r\n\r\n")

    def _framed(self, data: bytes) -> bytes:
        return data if self.tweak.framing in ("length", "close") else b"%x\r\n%s\r\n" % (len(data), data)

    def _chunks(self, data: bytes) -> Iterator[bytes]:
        framing = self.tweak.framing
        if framing == "tiny":
            for start in range(0, len(data), _CHUNK):
                piece = data[start : start + _CHUNK]
                yield b"1;name=value\r\n" + piece[:1] + b"\r\n"
                yield b"".join(b"1\r\n%c\r\n" % byte for byte in piece[1:])
            return
        for start in range(0, len(data), _CHUNK):
            piece = data[start : start + _CHUNK]
            if framing == "overflow":
                yield b"FFFFFFFFFFFFFFFFF\r\n" + piece + b"\r\n"
            elif framing == "negative":
                yield b"-%x\r\n%s\r\n" % (len(piece), piece)
            elif framing == "linefeed":
                yield b"%x\n%s\n" % (len(piece), piece)
            elif framing == "overrun":
                yield b"%x\r\n%sextra\r\n" % (len(piece), piece)
            else:
                yield self._framed(piece)


def wrong(answer: Answer, tweak: Tweak, fill: Fill) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of the answer after the tweak; without what follows from framing."""
    if tweak.status and tweak.body is None and tweak.status >= 400:
        answer = refusal(tweak.status, "UNKNOWN", "as the scenario has it")
    status = tweak.status or answer.status
    headers = dict(answer.headers)
    assert isinstance(answer.content, bytes)
    body = answer.content[answer.start : answer.start + answer.length]
    if tweak.body is not None:
        body = fill(tweak.body).encode()
    elif 300 <= status < 400:
        body = b""
    if tweak.flip is not None and answer.start <= tweak.flip < answer.start + answer.length:
        at = tweak.flip - answer.start
        body = b"".join([body[:at], bytes([body[at] ^ 1]), body[at + 1 :]])
    if tweak.other:
        body = body.translate(_FLIPPED)
    body = body[: len(body) - tweak.less]
    if tweak.bomb:  # many members are one gzip stream
        body = gzip.compress(b" " * _MEMBER, 9, mtime=0) * (_BOMB // _MEMBER)
    if tweak.content_encoding:
        for _ in range(0 if tweak.bomb else tweak.content_encoding.count("gzip")):
            body = gzip.compress(body, 1, mtime=0)
        headers["Content-Encoding"] = tweak.content_encoding
    if tweak.multipart and status == 206:
        body = _multipart(body, headers)
    return status, _changed(headers, tweak, fill), body


def _changed(headers: dict[str, str], tweak: Tweak, fill: Fill) -> dict[str, str]:
    for name, value in tweak.headers:
        headers = {key: old for key, old in headers.items() if key.lower() != name.lower()}
        if value:
            headers[name] = fill(value)
    return headers


def _multipart(body: bytes, headers: dict[str, str]) -> bytes:
    lines = [
        f"--{_BOUNDARY}",
        "Content-Type: application/octet-stream",
        f"Content-Range: {headers.pop('Content-Range', '')}",
        "",
        "",
    ]
    headers["Content-Type"] = f"multipart/byteranges; boundary={_BOUNDARY}"
    return b"".join(["\r\n".join(lines).encode(), body, f"\r\n--{_BOUNDARY}--\r\n".encode()])
