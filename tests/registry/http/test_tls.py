"""Which certificates of a file make a server trusted, whatever the Python; and what a server says of the client's.

The oracle is Go's ``crypto/x509``, whose programs accept or refuse each of these.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import logging
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import trustme
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fastoci.errors import ConfigError, ConnectError, RegistryError, TransportError
from fastoci.image.reference import Reference
from fastoci.registry.config.certs_d import read
from fastoci.registry.config.endpoints import Mirrors, endpoints
from fastoci.registry.http.error_response import error_of
from fastoci.registry.http.tls import Tls, context
from fastoci.registry.http.transport import RequestOptions, Transport
from fastoci.registry.http.urls import parse_url
from support.scripted_server import Asked, End, Raw, answer, serving

uvloop.new_event_loop().close()  # opens a pipe for the life of the process, which is no test's leak

NOT_SIGNING = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
BROKEN = b"-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"
SIGNING = x509.KeyUsage(False, False, False, False, False, True, True, False, False)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate, its key, and who signed it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self) -> bytes:
        plain = serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def issue(
    name: str, issuer: Issued | None, *extensions: tuple[x509.ExtensionType, bool], until_days: float = 1
) -> Issued:
    """A certificate with these extensions and no others; its own issuer without one."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2) if until_days < 1 else now + timedelta(days=until_days - 2))
        .not_valid_after(now + timedelta(days=until_days))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return Issued(builder.sign(key if issuer is None else issuer.key, hashes.SHA256()), key)


def authority(name: str, issuer: Issued | None = None, *, critical: bool = True) -> Issued:
    """One as a line of ``openssl x509`` makes it: without key usage and identifiers."""
    return issue(name, issuer, (x509.BasicConstraints(True, None), critical))


def leaf(issuer: Issued | None, *more: tuple[x509.ExtensionType, bool], until_days: float = 1) -> Issued:
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    return issue("a registry", issuer, (names, False), *more, until_days=until_days)


def bare_root() -> tuple[bytes, Issued]:
    root = authority("root")
    return root.pem, leaf(root)


def bare_root_of_other_constraints() -> tuple[bytes, Issued]:
    root = authority("root", critical=False)
    return root.pem, leaf(root)


def intermediate() -> tuple[bytes, Issued]:
    below = authority("intermediate", authority("root"))
    return below.pem, leaf(below)


def lowest_of_three() -> tuple[bytes, Issued]:
    lowest = authority("lowest", authority("intermediate", authority("root")))
    return lowest.pem, leaf(lowest)


def leaf_itself() -> tuple[bytes, Issued]:
    server = leaf(authority("root"))
    return server.pem, server


def leaf_that_signed_itself() -> tuple[bytes, Issued]:
    server = leaf(None)
    return server.pem, server


def leaf_that_signed_itself_and_is_no_authority() -> tuple[bytes, Issued]:
    server = leaf(None, (x509.BasicConstraints(False, None), True), (NOT_SIGNING, True))
    return server.pem, server


def second_of_a_file() -> tuple[bytes, Issued]:
    below = authority("intermediate", authority("root"))
    return b"# of the other site\n" + authority("other").pem + b"\n# ours\n" + below.pem, leaf(below)


def behind_one_that_cannot_be_read() -> tuple[bytes, Issued]:
    root = authority("root")
    cut = root.pem.splitlines(keepends=True)
    return BROKEN + cut[0] + cut[1] + cut[-1] + root.pem, leaf(root)


def with_line_ends_of_windows() -> tuple[bytes, Issued]:
    root = authority("root")
    return root.pem.replace(b"\n", b"\r\n"), leaf(root)


def behind_one_without_an_end() -> tuple[bytes, Issued]:
    root = authority("root")
    return b"".join(root.pem.splitlines(keepends=True)[:3]) + root.pem, leaf(root)


def with_headers() -> tuple[bytes, Issued]:
    root = authority("root")
    headers = b"Proc-Type: 4,MIC-CLEAR\nX-Note: of: the - other site\n\n"
    begin, body = root.pem.split(b"\n", 1)
    return b"Subject: root\n\n" + begin + b"\n" + headers + body, leaf(root)


def of_the_old_name() -> tuple[bytes, Issued]:
    root = authority("root")
    return b"garbage\n-----BEGIN CERTIFICATE-----\n" + root.pem.replace(b" CERT", b" X509 CERT"), leaf(root)


def in_der() -> tuple[bytes, Issued]:
    root = authority("root")
    return root.certificate.public_bytes(serialization.Encoding.DER), leaf(root)


def with_trust(root: Issued, oid: x509.ObjectIdentifier | None, *, rejects: bool) -> bytes:
    """A certificate as ``openssl x509 -trustout`` writes it, with what it is trusted for or not trusted for."""
    der = root.certificate.public_bytes(serialization.Encoding.DER)
    if oid is not None:
        number = x509.ExtendedKeyUsage([oid]).public_bytes()  # the same SEQUENCE OF OBJECT IDENTIFIER
        held = b"\xa0" + number[1:] if rejects else number
        der += b"\x30" + bytes([len(held)]) + held
    text = base64.encodebytes(der)
    return b"-----BEGIN TRUSTED CERTIFICATE-----\n%b-----END TRUSTED CERTIFICATE-----\n" % text


def trusted_for_servers() -> tuple[bytes, Issued]:
    root = authority("root")
    return with_trust(root, ExtendedKeyUsageOID.SERVER_AUTH, rejects=False), leaf(root)


def trusted_for_servers_behind_one_that_cannot_be_read() -> tuple[bytes, Issued]:
    anchors, server = trusted_for_servers()
    return BROKEN + anchors, server


def not_trusted_for_servers_behind_one_that_cannot_be_read() -> tuple[bytes, Issued]:
    root = authority("root")
    return BROKEN + with_trust(root, ExtendedKeyUsageOID.SERVER_AUTH, rejects=True), leaf(root)


def root_that_may_not_sign() -> tuple[bytes, Issued]:
    root = issue("root", None, (x509.BasicConstraints(True, None), True), (NOT_SIGNING, True))
    return root.pem, leaf(root)


def root_that_is_no_authority() -> tuple[bytes, Issued]:
    root = issue("root", None, (x509.BasicConstraints(False, None), True))
    return root.pem, leaf(root)


def another_root() -> tuple[bytes, Issued]:
    return authority("root").pem, leaf(authority("root"))


def root_above_an_intermediate_that_is_not_sent() -> tuple[bytes, Issued]:
    root = issue("root", None, (x509.BasicConstraints(True, None), True), (SIGNING, True))
    return root.pem, leaf(authority("intermediate", root))


Case = Callable[[], tuple[bytes, Issued]]
TRUSTED: tuple[Case, ...] = (
    bare_root,
    bare_root_of_other_constraints,
    intermediate,
    lowest_of_three,
    leaf_itself,
    leaf_that_signed_itself,
    leaf_that_signed_itself_and_is_no_authority,
    second_of_a_file,
    behind_one_that_cannot_be_read,
    with_line_ends_of_windows,
    behind_one_without_an_end,
    with_headers,
    of_the_old_name,
    in_der,
    trusted_for_servers,
    trusted_for_servers_behind_one_that_cannot_be_read,
)
REFUSED: tuple[Case, ...] = (
    root_that_may_not_sign,
    root_that_is_no_authority,
    another_root,
    not_trusted_for_servers_behind_one_that_cannot_be_read,
    root_above_an_intermediate_that_is_not_sent,
)


def served(place: Path, server: Issued) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (place / "server.pem").write_bytes(server.pem + server.key_pem())
    made.load_cert_chain(place / "server.pem")
    return made


@asynccontextmanager
async def transport() -> AsyncIterator[Transport]:
    made = Transport(tls_verify=True, connect_s=10.0, read_s=10.0, connections=2)
    try:
        yield made
    finally:
        await made.aclose()


async def status(address: str, tls: Tls) -> int:
    async with transport() as client:
        url = parse_url(f"https://{address}/v2/")
        reply = await client.request("GET", url, headers={}, options=RequestOptions(tls=tls))
        reply.close()
        return reply.status


def ok(asked: Asked) -> Raw:
    return answer()


@pytest.mark.parametrize("case", TRUSTED)
async def test_any_certificate_of_a_file_is_an_anchor(tmp_path: Path, case: Case) -> None:
    anchors, server = case()
    (tmp_path / "ca.crt").write_bytes(anchors)
    async with serving(ok, tls=served(tmp_path, server)) as registry:
        assert await status(registry.address, Tls(ca=(tmp_path / "ca.crt",))) == 200


@pytest.mark.parametrize("case", REFUSED)
async def test_what_no_anchor_vouches_for_is_refused(tmp_path: Path, case: Case) -> None:
    anchors, server = case()
    (tmp_path / "ca.crt").write_bytes(anchors)
    async with serving(ok, tls=served(tmp_path, server)) as registry:
        with pytest.raises(ConnectError, match="certificate not trusted") as caught:
            await status(registry.address, Tls(ca=(tmp_path / "ca.crt",)))
        assert not caught.value.retryable


async def test_an_anchor_makes_no_other_name_trusted(tmp_path: Path) -> None:
    _, server = leaf_itself()
    (tmp_path / "ca.crt").write_bytes(server.pem)
    async with serving(ok, tls=served(tmp_path, server)) as registry:
        with pytest.raises(ConnectError, match=r"certificate not trusted: .*localhost.*; ask by a name that it is for"):
            await status(f"localhost:{registry.port}", Tls(ca=(tmp_path / "ca.crt",)))
    named = issue("a registry", None, (x509.SubjectAlternativeName([x509.DNSName("localhost")]), False))
    (tmp_path / "ca.crt").write_bytes(named.pem)
    async with serving(ok, tls=served(tmp_path, named)) as registry:
        with pytest.raises(
            ConnectError, match=r"certificate not trusted: .*127\.0\.0\.1.*; ask by a name that it is for"
        ):
            await status(registry.address, Tls(ca=(tmp_path / "ca.crt",)))


@pytest.mark.parametrize(("until_days", "why"), [(-1, "has expired"), (4, "is not yet valid")], ids=["old", "new"])
async def test_a_certificate_out_of_its_time_is_not_said_to_lack_an_authority(
    tmp_path: Path, until_days: float, why: str
) -> None:
    root = authority("root")
    (tmp_path / "ca.crt").write_bytes(root.pem)
    async with serving(ok, tls=served(tmp_path, leaf(root, until_days=until_days))) as registry:
        with pytest.raises(ConnectError, match=f"{why}; check the clock of this machine, and let") as caught:
            await status(registry.address, Tls(ca=(tmp_path / "ca.crt",)))
    assert "authority" not in str(caught.value)
    assert not caught.value.retryable


async def test_a_certificate_of_an_unknown_authority_gets_the_places_for_authorities(tmp_path: Path) -> None:
    async with serving(ok, tls=served(tmp_path, leaf(authority("root")))) as registry:
        with pytest.raises(
            ConnectError, match=r"put its authority into certs\.d, --cert-dir or SSL_CERT_FILE, or accept"
        ):
            await status(registry.address, Tls())


@pytest.mark.parametrize("case", [intermediate, second_of_a_file, behind_one_that_cannot_be_read])
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_any_certificate_that_the_environment_names_is_an_anchor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, case: Case
) -> None:
    anchors, server = case()
    names = tmp_path / "certs"
    names.mkdir()
    (names / "ours.crt").write_bytes(anchors)
    (names / "notes.txt").write_text("no certificate")
    os.mkfifo(names / "pipe")
    monkeypatch.setenv(variable, str(names / "ours.crt") if variable == "SSL_CERT_FILE" else f"/absent:{names}")
    async with serving(ok, tls=served(tmp_path, server)) as registry:
        assert await status(registry.address, Tls()) == 200


def test_the_system_s_authorities_are_anchors_in_the_same_way_on_every_python() -> None:
    for tls in (None, Tls()):
        flags = context(tls, verify=True).verify_flags
        assert flags & ssl.VERIFY_X509_PARTIAL_CHAIN
        assert not flags & ssl.VERIFY_X509_STRICT


@pytest.mark.parametrize(
    "content", [b"", b"not PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_a_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.crt").write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca\.crt: not an authority's certificate"):
        context(Tls(ca=(tmp_path / "ca.crt",)), verify=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"not PEM", BROKEN, b"-----BEGIN CERTIFICATE-----\nX: y\n", b"\x30\x82\xff\xff"],
    ids=["empty", "text", "broken", "cut", "DER"],
)
async def test_a_file_without_a_certificate_in_a_directory_is_passed_over_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    root = authority("root")
    (tmp_path / "a.crt").write_bytes(content)
    (tmp_path / "b.crt").write_bytes(root.pem)
    folder = read(tmp_path)
    assert folder is not None
    reference = Reference.parse("127.0.0.1:5000/team/app")
    (endpoint,) = endpoints(reference, Mirrors(cert_dir=folder), tls_verify=True)
    async with serving(ok, tls=served(tmp_path, leaf(root))) as registry:
        with caplog.at_level(logging.WARNING, "fastoci"):
            assert await status(registry.address, endpoint.tls) == 200
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{tmp_path / 'a.crt'}: passed over: it holds no certificate")


def wanting(ca: trustme.CA, clients: trustme.CA, maximum: ssl.TLSVersion) -> ssl.SSLContext:
    """A server's context that demands a certificate of ``clients``."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.maximum_version = maximum
    ca.issue_cert("127.0.0.1").configure_cert(made)
    clients.configure_trust(made)
    made.verify_mode = ssl.CERT_REQUIRED
    return made


@contextmanager
def handshaking(tls: ssl.SSLContext) -> Iterator[str]:
    """A server that sends its alerts, as OpenSSL's own sockets do and asyncio's do not; its address."""

    def serve() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            with raw, suppress(OSError), tls.wrap_socket(raw, server_side=True) as peer:
                peer.recv(1 << 16)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("maximum", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
@pytest.mark.parametrize("shown", ["none", "another's"])
def test_a_server_that_wants_a_client_certificate_says_so(
    authority: trustme.CA, tmp_path: Path, maximum: ssl.TLSVersion, shown: str
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    tls = Tls(ca=(tmp_path / "ca.crt",))
    if shown != "none":
        pair = trustme.CA().issue_cert("me@r.test")
        pair.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
        tls = msgspec.structs.replace(tls, client=((tmp_path / "client.pem", tmp_path / "client.pem"),))
    # uvloop, as the program has it: asyncio may find the pipe broken before it reads the alert.
    with (
        handshaking(wanting(authority, trustme.CA(), maximum)) as address,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        pytest.raises(ConnectError, match="client certificate") as caught,
    ):
        runner.run(status(address, tls))
    assert address in str(caught.value)
    assert "certs.d" in str(caught.value)
    assert "--cert-dir" in str(caught.value)
    assert not caught.value.retryable


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_lost_before_the_first_answer_may_want_a_client_certificate(
    authority: trustme.CA, tmp_path: Path, end: End
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    pair = authority.issue_cert("me@r.test").private_key_and_cert_chain_pem
    pair.write_to_path(tmp_path / "client.pem")
    bare = Tls(ca=(tmp_path / "ca.crt",))
    shown = msgspec.structs.replace(bare, client=((tmp_path / "client.pem", tmp_path / "client.pem"),))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    async with serving(lambda asked: Raw(b"", end), tls=server) as registry:
        with pytest.raises(TransportError, match="closed before an answer came; perhaps ") as caught:
            await status(registry.address, bare)
        assert f"{registry.address} wants a client certificate: put NAME.cert and" in str(caught.value)
        with pytest.raises(TransportError, match=r"closed before an answer came$"):
            await status(registry.address, shown)
    answers = iter([answer(), Raw(b"", end)])
    async with serving(lambda asked: next(answers), tls=server) as registry, transport() as client:
        url, options = parse_url(f"https://{registry.address}/v2/"), RequestOptions(tls=bare)
        (await client.request("GET", url, headers={}, options=options)).close()
        with pytest.raises(TransportError, match=r"closed before an answer came$"):  # it needed none before
            await client.request("GET", url, headers={}, options=options)


async def test_an_asyncio_server_that_wants_a_client_certificate_is_understood(
    authority: trustme.CA, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    tls = wanting(authority, trustme.CA(), ssl.TLSVersion.TLSv1_3)
    async with serving(ok, tls=tls) as registry:
        with pytest.raises(TransportError, match=r"wants a client certificate: put NAME\.cert"):
            await status(registry.address, Tls(ca=(tmp_path / "ca.crt",)))


@pytest.mark.parametrize("words", [b"No required SSL certificate was sent", b"The SSL certificate error"])
async def test_nginx_that_wants_a_client_certificate_is_understood(words: bytes) -> None:
    page = b"<html><head><title>400 " + words + b"</title></head></html>"
    async with serving(lambda asked: answer(400, page)) as registry, transport() as client:
        reply = await client.request("GET", parse_url(f"http://{registry.address}/v2/"), headers={})
        error = await error_of(reply)
        assert isinstance(error, RegistryError)
        assert "it wants a client certificate: put NAME.cert and NAME.key into" in str(error)


@pytest.mark.parametrize("tls", [None, Tls(verify=False)], ids=["nobody says", "it is said of a host"])
def test_who_checks_no_certificate_reads_no_authority(trusted: None, tls: Tls | None) -> None:
    assert context(tls, verify=False).cert_store_stats()["x509"] == 0
    assert context(None, verify=True).cert_store_stats()["x509"] > 0
