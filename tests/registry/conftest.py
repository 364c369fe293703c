"""Fixtures of the registry client's tests: names, certificates, buffers."""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import trustme

from support.helper_programs import HelperProgram, helper
from support.scripted_server import Buffers


@pytest.fixture
async def buffers() -> AsyncIterator[Buffers]:
    """Buffers of a pool that must be whole again at the end."""
    source = Buffers(4 << 20)
    yield source
    assert source.pool.in_use == 0
    source.pool.on_release = None


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A name service for the test: host to address; everything else goes to the real one."""
    table: dict[str, str] = {}
    real: Callable[..., object] = socket.getaddrinfo

    def resolve(host: str, *arguments: object, **options: object) -> object:
        return real(table.get(host, host), *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return table


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process trusts the test's authority, through ``SSL_CERT_FILE``."""
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))


@pytest.fixture
def certified(authority: trustme.CA) -> Callable[..., ssl.SSLContext]:
    """``certified("registry.test")`` is a server's TLS context with a certificate for these names."""

    def make(*hosts: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(*hosts).configure_cert(context)
        return context

    return make


@pytest.fixture
def helper_program(tmp_path: Path) -> Callable[..., HelperProgram]:
    """``helper_program("test", {"r.test": ("me", "pw")})`` is ``docker-credential-test`` on a PATH of its own."""
    directory = tmp_path / "helpers"
    directory.mkdir()
    return functools.partial(helper, directory)
