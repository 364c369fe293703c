"""aiohttp's own contexts read the system's authorities late, and then trust those and nobody else.

And the program leaves out what it does not use, and nobody else does.

Covers: registry/http/no_cookies.py, whole_process.py.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import trustme

from fastoci.registry.http.aiohttp_import import _authorities_later
from support.scratch import SOURCE

PROBE = """
import aiohttp_first_or_not
import fastoci.registry.http.transport
from aiohttp import connector
contexts = connector._SSL_CONTEXT_VERIFIED, connector._SSL_CONTEXT_UNVERIFIED
print([context.cert_store_stats()["x509"] for context in contexts])
"""


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """Both ends of a connection, in memory."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there, server_hostname=name), server.wrap_bio(there, back, server_side=True)]
    while ends:
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)


def served(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("registry.test").configure_cert(context)
    return context


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """The system's only authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    return authority


def late() -> ssl.SSLContext:
    with _authorities_later():
        context = ssl.create_default_context()
    assert context.cert_store_stats()["x509"] == 0
    return context


def test_a_context_trusts_the_authorities_of_the_system_when_it_is_first_used(system: trustme.CA) -> None:
    context = late()
    shake_hands(context, served(system), "registry.test")
    assert type(context) is ssl.SSLContext
    shake_hands(context, served(system), "registry.test")


def test_a_context_trusts_nobody_else(system: trustme.CA) -> None:
    context = late()
    for server, name in ((trustme.CA(), "registry.test"), (system, "another.test"), (trustme.CA(), "registry.test")):
        with pytest.raises(ssl.SSLCertVerificationError):
            shake_hands(context, served(server), name)


def test_another_thread_reads_the_authorities_at_once(system: trustme.CA) -> None:
    made: list[ssl.SSLContext] = []
    with _authorities_later():
        thread = threading.Thread(target=lambda: made.append(ssl.create_default_context()))
        thread.start()
        thread.join()
    assert (type(made[0]), made[0].cert_store_stats()["x509"]) == (ssl.SSLContext, 1)


def test_nothing_is_left_of_it_in_the_ssl_module(system: trustme.CA) -> None:
    with pytest.raises(ZeroDivisionError), _authorities_later():
        _ = 1 / 0
    assert "set_default_verify_paths" not in vars(ssl.SSLContext)
    assert ssl.create_default_context().cert_store_stats()["x509"] == 1


@pytest.mark.parametrize(("first", "counts"), [("fastoci", "[0, 0]"), ("aiohttp", "[1, 1]")])
def test_no_authority_is_read_by_an_import_of_ours(system: trustme.CA, first: str, counts: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-c", PROBE.replace("aiohttp_first_or_not", first)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == counts


LEFT_OUT = """
import sys
from fastoci import whole_process
whole_process.OURS = ALONE
import fastoci.registry.http.transport
from fastoci.registry.http.aiohttp_import import _UNUSED
print(sorted(name for name in _UNUSED if name in sys.modules))
import aiohttp, email.message, urllib.request
assert email.message.EmailMessage()["subject"] is None and urllib.request.getproxies() is not None
if ALONE:
    try:
        aiohttp.TraceConfig()
    except RuntimeError as error:
        print(error)
import aiohttp.tracing
assert aiohttp.tracing.TraceConfig()
"""

NEEDED_AT_ONCE = """
import sys, types
sys.modules["aiohttp"] = types.ModuleType("aiohttp")  # so nothing is imported yet
from fastoci.registry.http import aiohttp_import
del sys.modules["aiohttp"]
aiohttp_import._UNUSED += ("multidict",)
print(aiohttp_import._import_without_unused(), "aiohttp" in sys.modules, "multidict" in sys.modules)
import aiohttp
aiohttp.TraceConfig(), aiohttp.CookieJar
"""


def said_by(program: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.splitlines()


def test_the_program_leaves_out_what_it_does_not_use() -> None:
    assert said_by(LEFT_OUT.replace("ALONE", "True")) == [
        "[]",
        "aiohttp.tracing.TraceConfig is left out of this program",
    ]


def test_a_program_that_is_not_ours_gets_all_of_aiohttp() -> None:
    assert "'aiohttp.tracing'" in said_by(LEFT_OUT.replace("ALONE", "False"))[0]


def test_an_aiohttp_that_needs_at_once_what_is_left_out_is_imported_whole() -> None:
    assert said_by(NEEDED_AT_ONCE) == ["False False False"]
