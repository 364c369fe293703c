"""How near an address is: loopback, the same link, private, or anywhere."""

from __future__ import annotations

import pytest

from fastoci.registry.http.address_policy import AddressScope, is_loopback, scope_of


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", AddressScope.PUBLIC),
        ("2606:4700::1111", AddressScope.PUBLIC),
        ("::ffff:8.8.8.8", AddressScope.PUBLIC),
        ("10.0.0.1", AddressScope.PRIVATE),
        ("172.16.3.4", AddressScope.PRIVATE),
        ("192.168.1.1", AddressScope.PRIVATE),
        ("100.64.0.1", AddressScope.PRIVATE),
        ("fec0::1", AddressScope.PRIVATE),
        ("64:ff9b:1::a9fe:a9fe", AddressScope.FORBIDDEN),
        ("64:ff9b:1:0:1::168.63.129.16", AddressScope.FORBIDDEN),
        ("64:ff9b:1::a00:1", AddressScope.PRIVATE),
        ("64:ff9b:1:a00:0:100::", AddressScope.PRIVATE),
        ("fd00:c1::a9fe:a9fe", AddressScope.FORBIDDEN),
        ("fd00:42::42", AddressScope.FORBIDDEN),
        ("fd00:a9fe:a9fe::1", AddressScope.FORBIDDEN),
        ("fd00:100::100:200", AddressScope.FORBIDDEN),
        ("fd20:ce::254", AddressScope.FORBIDDEN),
        ("fd00:ec2::23", AddressScope.FORBIDDEN),
        ("fd12:3456::1", AddressScope.PRIVATE),
        ("::ffff:10.0.0.1", AddressScope.PRIVATE),
        ("64:ff9b::a00:1", AddressScope.PRIVATE),
        ("127.0.0.1", AddressScope.LOOPBACK),
        ("127.9.9.9", AddressScope.LOOPBACK),
        ("::1", AddressScope.LOOPBACK),
        ("0.0.0.0", AddressScope.LOOPBACK),
        ("::", AddressScope.LOOPBACK),
        ("::ffff:127.0.0.1", AddressScope.LOOPBACK),
        ("::127.0.0.1", AddressScope.LOOPBACK),
        ("::ffff:0:127.0.0.1", AddressScope.LOOPBACK),
        ("::169.254.169.254", AddressScope.FORBIDDEN),
        ("2002:7f00:1::", AddressScope.LOOPBACK),
        ("169.254.169.254", AddressScope.FORBIDDEN),
        ("::ffff:169.254.169.254", AddressScope.FORBIDDEN),
        ("64:ff9b::a9fe:a9fe", AddressScope.FORBIDDEN),
        ("fe80::1", AddressScope.FORBIDDEN),
        ("fe80::1%eth0", AddressScope.FORBIDDEN),
        ("fd00:ec2::254", AddressScope.FORBIDDEN),
        ("100.100.100.200", AddressScope.FORBIDDEN),
        ("168.63.129.16", AddressScope.FORBIDDEN),
        ("224.0.0.1", AddressScope.FORBIDDEN),
    ],
)
def test_an_address_is_as_near_as_it_is(address: str, expected: AddressScope) -> None:
    assert scope_of(address) is expected


@pytest.mark.parametrize(
    ("host", "expected"), [("localhost", True), ("LocalHost", True), ("127.1.2.3", True), ("::ffff:127.0.0.1", True)]
)
def test_loopback_hosts_are_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert is_loopback("::1")


@pytest.mark.parametrize(
    "host",
    [
        "localhost.evil.test",
        "10.0.0.1",
        "registry",
        "0.0.0.0",
        "127.0.0.1.nip.io",
        "::ffff:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "",
    ],
)
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
