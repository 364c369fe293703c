"""What containerd 2.3 sent to a differ is sent again, byte for byte but for its paths: gRPC as Go speaks it.

``tests/support/record_differ.py`` recorded it: an image of three layers by transfer, then by the diff service.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fastoci.containerd import wire
from fastoci.containerd.messages import ApplyRequest, ApplyResponse, Mount
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.trees import differences, listing, overlay
from support.differ_scene import scene
from support.overlays import mounted, needs_mounts
from support.record_differ import LAYERS
from support.scratch import TESTS, scratch

RECORDED = TESTS / "golden" / "containerd-2.3.4-differ.json"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEAD = 9  # bytes before the payload of a frame
DATA, HEADERS = 0, 1
END_STREAM = 1


@dataclass(frozen=True)
class Frame:
    """A frame of HTTP/2."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def data(self) -> bytes:
        """It as it is sent."""
        return (
            len(self.payload).to_bytes(3, "big")
            + bytes([self.kind, self.flags])
            + self.stream.to_bytes(4, "big")
            + self.payload
        )


def frames(data: bytes) -> Iterator[Frame]:
    while data:
        size, stream = int.from_bytes(data[:3], "big"), int.from_bytes(data[5:HEAD], "big")
        yield Frame(data[3], data[4], stream, data[HEAD : HEAD + size])
        data = data[HEAD + size :]


def moved(message: bytes, old: bytes, new: bytes) -> bytes:
    """A message of protobuf with another path wherever there was the old one."""
    if old not in message:
        return message
    if message.isascii() and message.decode().isprintable():  # a text, which no message of these looks like
        return message.replace(old, new)
    out = bytearray()
    for number, value in wire.fields(message):
        if isinstance(value, int):
            wire.put_number(out, number, value)
        else:
            wire.put_bytes(out, number, moved(value, old, new))
    return bytes(out)


def request(message: bytes) -> bytes:
    return b"\0" + len(message).to_bytes(4, "big") + message


@dataclass
class Client:
    """Sends frames, and keeps what comes: the messages of each stream that has ended."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    messages: dict[int, bytes] = field(default_factory=dict)

    async def answer(self, stream: int) -> bytes:
        """The message of a stream, when it has ended."""
        while True:
            head = await self.reader.readexactly(HEAD)
            payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
            number = int.from_bytes(head[5:], "big")
            if head[3] == DATA:
                self.messages[number] = self.messages.get(number, b"") + payload
            if head[3] in (DATA, HEADERS) and head[4] & END_STREAM and number == stream:
                return self.messages[stream][5:]


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


@pytest.fixture
def recorded() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text())
    return found


def said(recorded: dict[str, Any]) -> list[Frame]:
    """The frames of the recording's one connection."""
    [connection] = map(base64.b64decode, recorded["connections"])
    assert connection.startswith(PREFACE)
    return list(frames(connection[len(PREFACE) :]))


async def test_a_recorded_session_is_answered_as_it_was(recorded: dict[str, Any]) -> None:
    needs_mounts()
    with scratch("recorded") as home:
        async with scene(home) as running, connected(running.socket) as client:
            for blob in recorded["blobs"]:
                running.containerd.add(base64.b64decode(blob))
            client.writer.write(PREFACE)
            answers, pulled, under_way = [], [], 0
            for frame in said(recorded):
                if frame.kind == HEADERS and under_way:  # who asks waits for each layer
                    answers.append(await client.answer(under_way))
                under_way = frame.stream if frame.kind == HEADERS else under_way
                if frame.kind == DATA:
                    message = moved(frame.payload[5:], recorded["root"].encode(), os.fsencode(home))
                    pulled.append(prepared(ApplyRequest.decode(message)))
                    frame = Frame(DATA, frame.flags, frame.stream, request(message))
                client.writer.write(frame.data)
            answers.append(await client.answer(under_way))
        digests = [applied.digest for answer in answers if (applied := ApplyResponse.decode(answer).applied)]
        assert digests == recorded["diff_ids"] * 2
        for layers in (pulled[:3], pulled[3:]):
            with mounted(layers, home / "at") as at:
                assert differences(overlay(LAYERS), listing(at)) == []


def prepared(asked: ApplyRequest) -> Path:
    """Make the directories of a snapshot, and give the one that is written to."""
    [mount] = asked.mounts
    options = dict(each.partition("=")[::2] for each in mount.options)
    directory = Path(options.get("upperdir", mount.source))
    for each in (directory, directory.with_name("work")):
        each.mkdir(parents=True, exist_ok=True)
    return directory


async def test_a_differ_that_is_stopped_answers_what_is_under_way_first(recorded: dict[str, Any]) -> None:
    """The client is one that waits after GOAWAY, as Go's does."""
    layer = Layer.build([Entry(f"{number:06}") for number in range(5_000)])
    assert isinstance(layer.content, bytes)
    opening = said(recorded)
    first = next(number for number, frame in enumerate(opening) if frame.kind == DATA)
    with scratch("stopped") as home:
        (home / "target").mkdir()
        async with scene(home) as running, connected(running.socket) as client:
            blob = running.containerd.add(layer.content)
            message = ApplyRequest(blob, (Mount("bind", str(home / "target")),)).encode()
            data = Frame(DATA, END_STREAM, opening[first].stream, request(message))
            client.writer.write(PREFACE + b"".join(frame.data for frame in [*opening[:first], data]))
            async with asyncio.timeout(30):
                while not running.differ.under_way:  # noqa: ASYNC110 (of a thread)
                    await asyncio.sleep(0.001)
            running.differ.stop()
            applied = ApplyResponse.decode(await client.answer(data.stream)).applied
        assert applied is not None
        assert applied.digest == str(layer.diff_id)
        assert len(os.listdir(home / "target")) == 5_000


def test_a_path_is_moved_wherever_it_is_and_nothing_else_is_changed() -> None:
    asked = ApplyRequest(mounts=(Mount("overlay", "/old/a", "", ("upperdir=/old/b", "x")),), sync_fs=True)
    there = ApplyRequest(mounts=(Mount("overlay", "/longer/a", "", ("upperdir=/longer/b", "x")),), sync_fs=True)
    assert moved(asked.encode(), b"/old", b"/longer") == there.encode()
    assert moved(asked.encode(), b"/absent", b"/longer") == asked.encode()
