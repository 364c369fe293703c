from __future__ import annotations

import pytest

from fastoci.registry.http.address_policy import Nearness, is_loopback, nearness


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("8.8.8.8", Nearness.PUBLIC),
        ("2606:4700::1111", Nearness.PUBLIC),
        ("::ffff:8.8.8.8", Nearness.PUBLIC),
        ("10.0.0.1", Nearness.PRIVATE),
        ("172.16.3.4", Nearness.PRIVATE),
        ("192.168.1.1", Nearness.PRIVATE),
        ("100.64.0.1", Nearness.PRIVATE),
        ("fec0::1", Nearness.PRIVATE),
        ("64:ff9b:1::a9fe:a9fe", Nearness.PRIVATE),
        ("fd20:ce::254", Nearness.FORBIDDEN),
        ("fd00:ec2::23", Nearness.FORBIDDEN),
        ("fd12:3456::1", Nearness.PRIVATE),
        ("::ffff:10.0.0.1", Nearness.PRIVATE),
        ("64:ff9b::a00:1", Nearness.PRIVATE),
        ("127.0.0.1", Nearness.LOOPBACK),
        ("127.9.9.9", Nearness.LOOPBACK),
        ("::1", Nearness.LOOPBACK),
        ("0.0.0.0", Nearness.LOOPBACK),
        ("::", Nearness.LOOPBACK),
        ("::ffff:127.0.0.1", Nearness.LOOPBACK),
        ("::127.0.0.1", Nearness.LOOPBACK),
        ("::ffff:0:127.0.0.1", Nearness.LOOPBACK),
        ("::169.254.169.254", Nearness.FORBIDDEN),
        ("2002:7f00:1::", Nearness.LOOPBACK),
        ("169.254.169.254", Nearness.FORBIDDEN),
        ("::ffff:169.254.169.254", Nearness.FORBIDDEN),
        ("64:ff9b::a9fe:a9fe", Nearness.FORBIDDEN),
        ("fe80::1", Nearness.FORBIDDEN),
        ("fe80::1%eth0", Nearness.FORBIDDEN),
        ("fd00:ec2::254", Nearness.FORBIDDEN),
        ("100.100.100.200", Nearness.FORBIDDEN),
        ("168.63.129.16", Nearness.FORBIDDEN),
        ("224.0.0.1", Nearness.FORBIDDEN),
    ],
)
def test_an_address_is_as_near_as_it_is(address: str, expected: Nearness) -> None:
    assert nearness(address) is expected


@pytest.mark.parametrize(("host", "expected"), [("localhost", True), ("LocalHost", True), ("127.1.2.3", True)])
def test_loopback_hosts_are_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    assert is_loopback("::1")


@pytest.mark.parametrize("host", ["localhost.evil.test", "10.0.0.1", "registry", "0.0.0.0", "127.0.0.1.nip.io", ""])
def test_other_hosts_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
