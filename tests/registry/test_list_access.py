"""What a list says of one registry counts for that one: its credentials, its certificates, whether they are checked.

Covers: registry/options.py, registry/opening.py.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from fastoci import Engine, RegistryAccess, RegistryOptions
from fastoci.errors import ConfigError, ConnectError, FastociError, UnauthorizedError
from fastoci.testing.auth import Basic
from fastoci.testing.registry import Registry
from support.images import image_of, made

IMAGE = image_of(made(1, files=1, size=10))


async def resolved(registry: Registry, store: Path, options: RegistryOptions) -> FastociError | None:
    """Ask a registry for its image; the error, if there is one."""
    registry.add_image("app", "1", IMAGE)
    async with Engine(store, registry=options) as engine:
        try:
            await engine.resolve(f"{registry.address}/app:1")
        except FastociError as error:
            return error
    return None


async def test_credentials_of_a_list_go_to_their_registry_and_to_no_other(tmp_path: Path) -> None:
    async with Registry(Basic("u", "secret")) as mine, Registry(Basic("u", "secret")) as other:
        options = RegistryOptions(access=(RegistryAccess(mine.address, "u", "secret"),))
        assert await resolved(mine, tmp_path, options) is None
        assert isinstance(await resolved(other, tmp_path, options), UnauthorizedError)
        assert {record.authorization for record in other.log} == {""}
    assert "secret" not in repr(options)


async def test_a_list_goes_before_credentials_for_all_and_the_first_of_two_lists_counts(tmp_path: Path) -> None:
    async with Registry(Basic("u", "right")) as registry:
        two = (RegistryAccess(registry.address, "u", "right"), RegistryAccess(registry.address, "u", "wrong"))
        assert await resolved(registry, tmp_path, RegistryOptions(creds=("u", "wrong"), access=two)) is None
        error = await resolved(registry, tmp_path, RegistryOptions(creds=("u", "right"), access=two[1:]))
        assert isinstance(error, UnauthorizedError)


@pytest.mark.parametrize(
    ("everywhere", "stated", "reached"),
    [(True, None, False), (True, False, True), (False, True, False), (False, None, True)],
    ids=["checked", "the list lets it be", "the list demands it", "nobody checks"],
)
async def test_certificates_are_checked_as_a_list_says_of_its_registry(
    tmp_path: Path, everywhere: bool, stated: bool | None, reached: bool
) -> None:
    unknown = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(unknown)
    async with Registry(tls=unknown) as registry, Registry(tls=unknown) as other:
        access = (RegistryAccess(registry.address, tls_verify=stated),)
        options = RegistryOptions(tls_verify=everywhere, access=access, retries=0)
        error = await resolved(registry, tmp_path, options)
        assert error is None if reached else isinstance(error, ConnectError)
        assert (await resolved(other, tmp_path, options) is None) is not everywhere


async def test_the_certificates_of_a_list_are_for_its_registry_alone(tmp_path: Path) -> None:
    authority, server = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    (tmp_path / "certs").mkdir()
    authority.cert_pem.write_to_path(tmp_path / "certs" / "ca.crt")
    async with Registry(tls=server) as registry, Registry(tls=server) as other:
        options = RegistryOptions(access=(RegistryAccess(registry.address, cert_dir=tmp_path / "certs"),), retries=0)
        assert await resolved(registry, tmp_path / "store", options) is None
        assert isinstance(await resolved(other, tmp_path / "store", options), ConnectError)


async def test_a_directory_of_certificates_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    async with Registry() as registry:
        options = RegistryOptions(access=(RegistryAccess(registry.address, cert_dir=tmp_path / "absent"),))
        error = await resolved(registry, tmp_path, options)
        assert isinstance(error, ConfigError)
        assert "absent" in str(error)
        assert registry.log == []
