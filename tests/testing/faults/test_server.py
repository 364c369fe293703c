"""The server of scenarios, asked byte by byte.

Covers: testing/faults/certificates.py, testing/faults/content.py, testing/faults/dead_hosts.py,
testing/faults/proxy.py, testing/faults/wire.py.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import socket
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

import pytest

from fastoci.testing.faults import SCENARIOS, FaultServer, Rule, Scenario, Tweak
from fastoci.testing.faults.scenario import Framing
from fastoci.testing.faults.server import NAME, TAG, USER

SMALL = 64 << 10


def scenario(*rules: Rule, layer: int = SMALL, **settings: object) -> Scenario:
    return Scenario("T", "test", "", "ok", rules=rules, layer=layer, **settings)  # type: ignore[arg-type]


def request(target: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def layer(server: FaultServer) -> bytes:
    content = server.images[0].layers[-1].content
    assert isinstance(content, bytes)
    return content


def layer_target(server: FaultServer) -> str:
    return f"/v2/{NAME}/blobs/{server.images[0].layers[-1].descriptor.digest}"


async def connect(server: FaultServer, host: str = "registry") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    origin = urlsplit(next(origin for name, origin in server.origins.items() if name == host))
    context = ssl.create_default_context(cadata=server.ca.decode()) if origin.scheme == "https" else None
    return await asyncio.open_connection(origin.hostname, origin.port, ssl=context, limit=64 << 20)


async def ask(server: FaultServer, *requests: bytes, host: str = "registry") -> bytes:
    """Everything that comes in answer to the requests, and then to the end of what this side has to say."""
    reader, writer = await connect(server, host)
    try:
        writer.write(b"".join(requests))
        if not server.ca:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def ask_one(server: FaultServer, target: str, *headers: str, host: str = "registry") -> tuple[str, bytes]:
    """Head and body of a well-framed answer."""
    reader, writer = await connect(server, host)
    try:
        writer.write(request(target, *headers))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = next(int(line[16:]) for line in head.split("\r\n") if line.startswith("Content-Length: "))
        return head, await reader.readexactly(length)
    finally:
        writer.close()


async def test_without_faults_the_image_is_served() -> None:
    async with FaultServer(scenario()) as server:
        head, manifest = await ask_one(server, f"/v2/{NAME}/manifests/{TAG}")
        assert head.startswith("HTTP/1.1 200") and manifest == server.images[0].manifest
        assert (await ask_one(server, layer_target(server)))[1] == layer(server)
        assert [(asked.host, asked.method, asked.status) for asked in server.requests] == [("registry", "GET", 200)] * 2
        assert server.requests[1].sent > len(layer(server))
        assert server.image == f"{server.host}/{NAME}:{TAG}"


async def test_a_rule_counts_the_requests_it_is_about() -> None:
    async with FaultServer(scenario(Rule("layer", Tweak(status=503), first=2, last=3))) as server:
        heads = [(await ask_one(server, layer_target(server)))[0][9:12] for _ in range(5)]
        assert heads == ["200", "503", "503", "200", "200"]
        assert (await ask_one(server, f"/v2/{NAME}/manifests/{TAG}"))[0][9:12] == "200"


async def test_first_and_later_parts_are_told_apart() -> None:
    rules = (Rule("later", Tweak(status=416), last=1), Rule("first", Tweak(status=500), last=1))
    async with FaultServer(scenario(*rules)) as server:
        ranges = ("Range: bytes=5-9", "Range: bytes=0-9", "Range: bytes=5-9", "X: none")
        heads = [(await ask_one(server, layer_target(server), each))[0][9:12] for each in ranges]
        assert heads == ["416", "500", "206", "200"]


async def test_a_flip_changes_one_bit_of_the_blob_whatever_part_is_asked_for() -> None:
    async with FaultServer(scenario(Rule("layer", Tweak(flip=100)))) as server:
        right = layer(server)
        whole = (await ask_one(server, layer_target(server)))[1]
        assert [at for at, byte in enumerate(whole) if byte != right[at]] == [100]
        part = (await ask_one(server, layer_target(server), "Range: bytes=98-101"))[1]
        assert part == right[98:100] + bytes([right[100] ^ 1]) + right[101:102]
        assert (await ask_one(server, layer_target(server), "Range: bytes=0-99"))[1] == right[:100]


@pytest.mark.parametrize("tls", [False, True])
async def test_a_reset_comes_after_the_very_part(tls: bool) -> None:
    async with FaultServer(scenario(Rule("layer", Tweak(part=0.5, end="reset")), layer=4 << 20), tls=tls) as server:
        reader, writer = await connect(server)
        writer.write(request(layer_target(server)))
        await reader.readuntil(b"\r\n\r\n")
        body = bytearray()
        with pytest.raises(ConnectionResetError):
            while True:
                piece = await reader.read(1 << 16)
                assert piece, "the connection ended in order"
                body += piece
        writer.close()
        assert layer(server).startswith(body)
        assert tls or len(body) == len(layer(server)) // 2


async def test_a_cut_over_tls_brings_no_close_notify() -> None:
    async with FaultServer(scenario(Rule("layer", Tweak(framing="close", part=0.5, end="cut"))), tls=True) as server:
        got = await asyncio.to_thread(_read_by_ssl, server)
        assert got == "cut"
    async with FaultServer(scenario(Rule("layer", Tweak(framing="close", part=0.5))), tls=True) as server:
        got = await asyncio.to_thread(_read_by_ssl, server)
        assert got == "closed"


def _read_by_ssl(server: FaultServer) -> str:
    origin = urlsplit(server.origins["registry"])
    context = ssl.create_default_context(cadata=server.ca.decode())
    with (
        socket.create_connection((origin.hostname, origin.port), timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=origin.hostname, suppress_ragged_eofs=False) as secure,
    ):
        secure.sendall(request(layer_target(server)))
        try:
            while secure.recv(1 << 16):
                pass
        except ssl.SSLEOFError:
            return "cut"
    return "closed"


async def test_a_stall_sends_nothing_more_until_the_client_leaves() -> None:
    async with FaultServer(scenario(Rule("layer", Tweak(part=0.5, end="stall")))) as server:
        reader, writer = await connect(server)
        writer.write(request(layer_target(server)))
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(layer(server)) // 2)
        await server.until(lambda: server.requests[0].halted)
        reading = asyncio.ensure_future(reader.read(1))
        await ask_one(server, f"/v2/{NAME}/manifests/{TAG}")  # others are answered meanwhile
        assert not reading.done()
        reading.cancel()
        writer.close()


async def test_a_trickle_takes_its_time_from_the_server() -> None:
    async with FaultServer(scenario(Rule("manifest", Tweak(pause_s=1.0))), second_s=0.0001) as server:
        assert (await ask_one(server, f"/v2/{NAME}/manifests/{TAG}"))[1] == server.images[0].manifest


@pytest.mark.parametrize(
    ("framing", "begin", "end"),
    [
        ("chunked", b"%x\r\n", b"\r\n0\r\n\r\n"),
        ("tiny", b"1;name=value\r\n", b"\r\n0\r\nX-Trailer: yes\r\n\r\n"),
        ("unended", b"%x\r\n", b"\r\n"),
        ("overflow", b"FFFFFFFFFFFFFFFFF\r\n", b"\r\n"),
        ("negative", b"-%x\r\n", b"\r\n"),
        ("linefeed", b"%x\n", b"\n"),
        ("overrun", b"%x\r\n", b"extra\r\n"),
        ("both", b"%x\r\n", b"\r\n0\r\n\r\n"),
    ],
)
async def test_chunks_are_framed_as_the_act_says(framing: Framing, begin: bytes, end: bytes) -> None:
    async with FaultServer(scenario(Rule("manifest", Tweak(framing=framing, end="close")))) as server:
        head, _, body = (await ask(server, request(f"/v2/{NAME}/manifests/{TAG}"))).partition(b"\r\n\r\n")
        manifest = server.images[0].manifest
        assert b"Transfer-Encoding: chunked" in head
        assert (b"Content-Length" in head) == (framing == "both")
        assert body.startswith(begin % len(manifest) if b"%" in begin else begin) and body.endswith(end)
        if framing == "tiny":
            assert body.split(b"\r\n")[1:-4:2] == [bytes([byte]) for byte in manifest]
        else:
            assert manifest in body


async def test_lengths_can_disagree() -> None:
    acts = [
        Tweak(lines=("Content-Length: 6",), end="close"),
        Tweak(miscount=5, end="close"),
        Tweak(less=1, end="close"),
        Tweak(headers=(("Content-Length", "0x10"),), end="close"),
    ]
    rules = [Rule("layer", act, first=number, last=number) for number, act in enumerate(acts, 1)]
    async with FaultServer(scenario(*rules)) as server:
        size = len(layer(server))
        answers = [await ask(server, request(layer_target(server))) for _ in acts]
        lengths = [[line[16:] for line in answer.split(b"\r\n\r\n")[0].split(b"\r\n") if line.startswith(b"Content-L")]
                   for answer in answers]  # fmt: skip
        assert lengths == [[b"%d" % size, b"6"], [b"%d" % (size + 5)], [b"%d" % (size - 1)], [b"0x10"]]
        assert [len(answer.partition(b"\r\n\r\n")[2]) for answer in answers] == [size, size, size - 1, size]


async def test_bytes_behind_an_answer_come_before_the_next_one() -> None:
    async with FaultServer(scenario(Rule("manifest", Tweak(after="EVIL"), last=1))) as server:
        ask_manifest = request(f"/v2/{NAME}/manifests/{TAG}")
        got = await ask(server, ask_manifest, ask_manifest)
        assert server.images[0].manifest + b"EVILHTTP/1.1 200 OK" in got


async def test_http_1_0_has_no_length_and_ends_with_the_connection() -> None:
    async with FaultServer(scenario(Rule("layer", Tweak(framing="close")))) as server:
        head, _, body = (await ask(server, request(layer_target(server)))).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200") and b"Content-Length" not in head and body == layer(server)


async def test_encodings_and_parts_wrap_the_right_bytes() -> None:
    rules = (
        Rule("layer", Tweak(content_encoding="gzip, gzip, gzip"), last=1),
        Rule("layer", Tweak(multipart=True), first=2, last=2),
        Rule("layer", Tweak(whole=True), first=3),
    )
    async with FaultServer(scenario(*rules)) as server:
        right = layer(server)
        head, body = await ask_one(server, layer_target(server))
        assert "Content-Encoding: gzip, gzip, gzip" in head
        assert gzip.decompress(gzip.decompress(gzip.decompress(body))) == right
        head, body = await ask_one(server, layer_target(server), "Range: bytes=5-9")
        assert head.startswith("HTTP/1.1 206") and "multipart/byteranges" in head
        assert b"Content-Range: bytes 5-9/%d\r\n\r\n%s\r\n--" % (len(right), right[5:10]) in body
        head, body = await ask_one(server, layer_target(server), "Range: bytes=5-9")
        assert head.startswith("HTTP/1.1 200") and body == right


async def test_a_bomb_is_small_on_the_wire_and_a_gibibyte_decoded() -> None:
    async with FaultServer(scenario(Rule("manifest", Tweak(content_encoding="gzip", bomb=True)))) as server:
        body = (await ask_one(server, f"/v2/{NAME}/manifests/{TAG}"))[1]
        assert len(body) < 4 << 20
        assert body == body[: len(body) // 64] * 64 and len(gzip.decompress(body[: len(body) // 64])) == 1 << 24


async def test_signed_addresses_expire_after_their_uses_and_are_good_for_nothing_else() -> None:
    async with FaultServer(scenario(cdn_uses=1)) as server:
        head = (await ask(server, request(layer_target(server)))).decode()
        location = next(line[10:] for line in head.split("\r\n") if line.startswith("Location: "))
        assert location.startswith(server.origins["cdn"] + "/blobs/")
        target = location.removeprefix(server.origins["cdn"])
        assert (await ask_one(server, target, host="cdn"))[1] == layer(server)
        assert (await ask_one(server, target, host="cdn"))[0].startswith("HTTP/1.1 403")
        assert (await ask_one(server, target.partition("?")[0], host="cdn"))[0].startswith("HTTP/1.1 403")
        assert [asked.host for asked in server.requests] == ["registry", "cdn", "cdn", "cdn"]


async def test_tokens_end_after_their_uses() -> None:
    async with FaultServer(scenario(auth="bearer", token_uses=2)) as server:
        pair = base64.b64encode(f"{USER}:{server.password}".encode()).decode()
        token = f"/token?scope=repository:{NAME}:pull"
        assert (await ask_one(server, token))[0].startswith("HTTP/1.1 401")
        bearer = json.loads((await ask_one(server, token, f"Authorization: Basic {pair}"))[1])["token"]
        heads = [(await ask_one(server, "/v2/", f"Authorization: Bearer {bearer}"))[0][9:12] for _ in range(3)]
        assert heads == ["200", "200", "401"]
        assert {pair, bearer, server.password} <= server.secrets.keys()


async def test_templates_name_the_hosts_of_the_scenario() -> None:
    act = Tweak(status=307, headers=(("Location", "$evil$target"),), body="$layer $size $name $token")
    async with FaultServer(scenario(Rule("layer", act), auth="bearer")) as server:
        head, body = await ask_one(server, layer_target(server))
        assert f"Location: {server.origins['evil']}{layer_target(server)}\r\n" in head
        digest, size, name, token = body.decode().split(" ")
        assert (digest, size, name) == (layer_target(server).rpartition("/")[2], str(len(layer(server))), NAME)
        assert token in server.secrets
        harvest = (await ask_one(server, "/layer", host="evil"))[0]
        assert f'WWW-Authenticate: Bearer realm="{server.origins["evil"]}/token"' in harvest


async def test_a_hole_lets_no_connection_in() -> None:
    async with FaultServer(scenario(mirror="dead")) as server:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connect(server, "mirror"), 0.2)
        assert (await ask_one(server, layer_target(server)))[1] == layer(server)


async def test_a_closed_registry_refuses_connections() -> None:
    async with FaultServer(scenario(address="closed")) as server:
        with pytest.raises(ConnectionRefusedError):
            await connect(server)


@pytest.mark.parametrize("kind", ["expired", "name", "unknown", "self", "old", "handshake"])
async def test_bad_tls_is_refused_by_a_client_that_verifies(kind: str) -> None:
    async with FaultServer(scenario(tls=kind), tls=True) as server:
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            await connect(server)
        assert (await ask_one(server, layer_target(server), host="mirror"))[1] == layer(server)


async def test_the_tag_can_be_another_image_each_time() -> None:
    chosen = next(each for each in SCENARIOS if each.id == "N55")
    async with FaultServer(chosen) as server:
        target = f"/v2/{NAME}/manifests/{TAG}"
        got = [(await ask_one(server, target))[1] for _ in range(3)]
        assert got == [server.images[1].manifest, server.images[2].manifest, server.images[2].manifest]
        digest = server.images[0].descriptor.digest
        assert (await ask_one(server, f"/v2/{NAME}/manifests/{digest}"))[1] == server.images[0].manifest


async def test_endless_answers_end_before_they_fill_a_disk() -> None:
    async with FaultServer(scenario(Rule("layer", Tweak(padding=1 << 30)))) as server:
        reader, writer = await connect(server)
        writer.write(request(layer_target(server)))
        count = 0
        while piece := await reader.read(1 << 20):
            count += len(piece)
        writer.close()
        assert 64 << 20 < count < 65 << 20


def play_names() -> Sequence[str]:
    return [each.name for each in SCENARIOS if each.run != "never" and not each.tls]


@pytest.mark.parametrize("name", play_names())
async def test_every_scenario_starts_and_ends_without_a_client(name: str) -> None:
    async with FaultServer(next(each for each in SCENARIOS if each.name == name)) as server:
        assert server.blobs and server.image
