"""containerd's hosts.toml, key by key."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastoci.errors import FormatError
from fastoci.registry.config import certs_d
from fastoci.registry.config.certs_d import Folder
from fastoci.registry.config.hosts_toml import Host, find, parse

FOLDER = Path("/etc/containerd/certs.d/r.test")
EVERYTHING = frozenset({"pull", "resolve", "push"})


def _parse(text: str) -> tuple[Host, ...]:
    return parse(Folder(FOLDER, ("hosts.toml",), text.encode()))


def test_hosts_keep_the_order_of_the_file_and_the_server_is_the_last() -> None:
    found = _parse('[host."https://z.test"]\n[host."https://a.test"]\n[host."https://m.test".header]\n')
    assert [str(host.base) for host in found] == [f"https://{name}.test/v2" for name in "zam"] + ["None"]


@pytest.mark.parametrize(
    ("url", "override", "base", "authority"),
    [
        ("https://m.test", False, "https://m.test/v2", "m.test"),
        ("https://m.test/", False, "https://m.test/v2", "m.test"),
        ("m.test:5000", False, "https://m.test:5000/v2", "m.test:5000"),
        ("http://m.test:80/a", False, "http://m.test/a/v2", "m.test:80"),
        ("https://m.test/a//b/../c/", False, "https://m.test/a/c/v2", "m.test"),
        ("https://m.test/v2/", False, "https://m.test/v2", "m.test"),
        ("https://m.test/a/v2", False, "https://m.test/a/v2", "m.test"),
        ("https://m.test/v2/a", False, "https://m.test/v2/a/v2", "m.test"),
        ("https://m.test/v2/a", True, "https://m.test/v2/a", "m.test"),
        ("https://m.test", True, "https://m.test", "m.test"),
        ("https://[fd00::1]:5000/a%2Fb", False, "https://[fd00::1]:5000/a%2Fb/v2", "[fd00::1]:5000"),
        ("https://me:secret@m.test?x=y#z", False, "https://m.test/v2", "m.test"),
    ],
)
def test_the_api_is_below_v2_unless_the_path_overrides_it(url: str, override: bool, base: str, authority: str) -> None:
    host, _ = _parse(f'[host."{url}"]\noverride_path = {str(override).lower()}')
    assert (str(host.base), host.authority) == (base, authority)


def test_all_keys_are_read() -> None:
    host, server = _parse(
        """
        server = "https://r.test"
        skip_verify = true
        unknown = 5
        [host."https://m.test"]
        capabilities = ["Pull", "resolve"]
        ca = "ca.pem"
        client = [["c.cert", "/keys/c.key"], "both.pem"]
        skip_verify = false
        dial_timeout = "1m1.5s"
        allow_private_redirects = true
        [host."https://m.test".header]
        x-one = "1"
        x-two = ["2", "3"]
        """
    )
    assert host.capabilities == {"pull", "resolve"}
    assert host.ca == (FOLDER / "ca.pem",)
    assert host.client == (
        (FOLDER / "c.cert", Path("/keys/c.key")),
        (FOLDER / "both.pem", FOLDER / "both.pem"),
    )
    assert (host.skip_verify, host.connect_s, host.private_redirects) == (False, 61.5, True)
    assert host.headers == (("x-one", "1"), ("x-two", "2"), ("x-two", "3"))
    assert (server.skip_verify, server.capabilities, server.private_redirects) == (True, EVERYTHING, False)


def test_the_capability_for_referrers_is_none_for_pulls() -> None:
    both, only, _ = _parse(
        """
        [host."https://m.test"]
        capabilities = ["pull", "referrers"]
        [host."https://n.test"]
        capabilities = ["referrers"]
        """
    )
    assert "pull" in both.capabilities
    assert "pull" not in only.capabilities


def test_a_list_of_authorities_and_one_client_file_are_read() -> None:
    host, _ = _parse('[host."https://m.test"]\nca = ["a", "/b"]\nclient = "both.pem"\ncapabilities = []')
    assert host.ca == (FOLDER / "a", Path("/b"))
    assert host.client == ((FOLDER / "both.pem", FOLDER / "both.pem"),)
    assert host.capabilities == EVERYTHING


def test_an_unwritten_server_may_be_asked_for_everything() -> None:
    (server,) = _parse('capabilities = ["push"]\nca = "x"')
    assert (server.base, server.capabilities, server.ca) == (None, EVERYTHING, (FOLDER / "x",))
    (server,) = _parse('server = "https://r.test"\ncapabilities = ["push"]')
    assert server.capabilities == {"push"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("200ms", 0.2),
        ("1h2m3.5s", 3723.5),
        (".5s", 0.5),
        ("500us", 5e-4),
        ("500µs", 5e-4),
        ("5ns", 5e-9),
        ("0s", None),
        ("", None),
    ],
)
def test_dial_timeout_is_a_duration(text: str, seconds: float | None) -> None:
    (server,) = _parse(f'dial_timeout = "{text}"')
    assert server.connect_s == (seconds if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[host]\n5 5\nx = 1", "not TOML.*line 2"),
        ("host = 5", "not a table of tables"),
        ("[host]\nm = 5", "not a table of tables"),
        ("server = 5", "server is not a string"),
        ('[host."https://m.test"]\n[host."https://me:hunter2@:x"]', "host number 2: its URL is not http"),
        ('[host."ftp://hunter2.test"]', "its URL is not http"),
        ('[host."https://m.test"]\ncapabilities = ["fetch"]', "capabilities is not some of"),
        ('capabilities = ["fetch"]\nserver = "r.test"', "the server: capabilities is not some of"),
        ("ca = 5", "ca is not a string or"),
        ("ca = [5]", "ca is not a string or"),
        ("client = 5", "client is not"),
        ('client = [["a", "b", "c"]]', "client is not"),
        ("client = [[5, 6]]", "client is not"),
        ('skip_verify = "yes"', "skip_verify is not true or false"),
        ('server = "r.test"\noverride_path = 1', "override_path is not true or false"),
        ("dial_timeout = 5", "dial_timeout is not a duration"),
        ('dial_timeout = "5"', "dial_timeout is not a duration"),
        ('dial_timeout = "-1s"', "dial_timeout is not a duration"),
        ('header = "hunter2"', "header is not a table"),
        ("[header]\nx = 5", "header: x is not a string"),
        ('[header]\nx = "hunter2\\r\\nEvil: 1"', "header is not names and values"),
        ('[header]\n"x y" = "hunter2"', "header is not names and values"),
    ],
)
def test_a_broken_file_is_named_and_its_secrets_are_not(text: str, problem: str) -> None:
    with pytest.raises(FormatError, match=problem) as caught:
        _parse(text)
    assert str(caught.value).startswith(str(FOLDER / "hosts.toml"))
    assert "hunter2" not in str(caught.value)


def test_header_values_are_in_no_repr() -> None:
    assert "hunter2" not in repr(_parse('[header]\nx = "hunter2"'))


def test_the_directory_of_a_port_has_two_names_and_one_may_be_for_all(tmp_path: Path) -> None:
    for name in ("r.test_5000_", "r.test:5000", "s.test:5000", "[fd00::1]_5000_", "r.test"):
        (tmp_path / "one" / name).mkdir(parents=True)
    for name in ("_default", "s.test", "r.test"):
        (tmp_path / "two" / name).mkdir(parents=True)
    (tmp_path / "three/x.test").mkdir(parents=True)
    places = tuple(certs_d.scan(tmp_path / name) for name in ("absent", "one", "two", "three"))

    def found(domain: str) -> str:
        folder = find(places, domain)
        assert folder is not None
        return str(folder.path.relative_to(tmp_path))

    assert found("r.test:5000") == "one/r.test_5000_"
    assert found("s.test:5000") == "one/s.test:5000"
    assert found("[fd00::1]:5000") == "one/[fd00::1]_5000_"
    assert found("r.test") == "one/r.test"
    assert found("s.test") == "two/s.test"
    assert found("r.test:5001") == found("x.test") == "two/_default"
    assert find(places[:2], "x.test") is None


def test_a_file_that_cannot_be_read_matters_only_to_its_host(tmp_path: Path) -> None:
    (tmp_path / "r.test/hosts.toml").mkdir(parents=True)
    (tmp_path / "s.test").mkdir()
    (tmp_path / "s.test/hosts.toml").write_text('server = "https://s.test"')
    places = (certs_d.scan(tmp_path),)
    good, bad = find(places, "s.test"), find(places, "r.test")
    assert good is not None
    assert bad is not None
    assert len(parse(good)) == 1
    with pytest.raises(FormatError, match=r"r\.test/hosts\.toml: cannot read"):
        parse(bad)
