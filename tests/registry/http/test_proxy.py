"""Which proxy a URL goes through, by the environment."""

from __future__ import annotations

import pytest
from yarl import URL

from fastoci.errors import ConfigError
from fastoci.registry.http.proxy import proxy_for

HTTP, HTTPS, ALL = "http://plain:1", "http://tls:2", "http://all:3"
BOTH = {"HTTP_PROXY": HTTP, "HTTPS_PROXY": HTTPS}


def _chosen(url: str, **environ: str) -> str | None:
    proxy = proxy_for(URL(url), environ)
    return None if proxy is None else str(proxy).rstrip("/")


def test_the_scheme_of_the_request_chooses_the_variable() -> None:
    assert _chosen("https://r.test/v2/", **BOTH) == HTTPS
    assert _chosen("http://r.test/v2/", **BOTH) == HTTP
    assert _chosen("https://r.test/v2/", HTTP_PROXY=HTTP) is None
    assert _chosen("https://r.test/v2/") is None


def test_lower_case_counts_and_upper_case_wins() -> None:
    assert _chosen("https://r.test/", https_proxy=ALL) == ALL
    assert _chosen("https://r.test/", https_proxy=ALL, HTTPS_PROXY=HTTPS) == HTTPS
    assert _chosen("https://r.test/", https_proxy=ALL, HTTPS_PROXY="") == ALL
    assert _chosen("https://r.test/", HTTPS_PROXY=HTTPS, no_proxy="r.test") is None


def test_all_proxy_is_the_last_resort() -> None:
    assert _chosen("https://r.test/", ALL_PROXY=ALL) == ALL
    assert _chosen("http://r.test/", all_proxy=ALL) == ALL
    assert _chosen("http://r.test/", ALL_PROXY=ALL, **BOTH) == HTTP


def test_in_cgi_the_variable_that_a_request_can_set_is_not_read() -> None:
    assert _chosen("http://r.test/", REQUEST_METHOD="GET", HTTP_PROXY=HTTP) is None
    assert _chosen("http://r.test/", REQUEST_METHOD="GET", HTTP_PROXY=HTTP, http_proxy=ALL) == ALL
    assert _chosen("https://r.test/", REQUEST_METHOD="GET", **BOTH) == HTTPS


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:5000", "localhost.", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"]
)
def test_this_machine_is_never_asked_through_a_proxy(host: str) -> None:
    assert _chosen(f"https://{host}/", **BOTH) is None


@pytest.mark.parametrize(
    ("exceptions", "host", "direct"),
    [
        ("*", "r.test", True),
        ("r.test", "r.test", True),
        ("r.test", "R.Test.", True),
        ("r.test", "a.r.test", True),
        ("r.test", "xr.test", False),
        ("r.test", "r.test.evil", False),
        (".r.test", "a.r.test", True),
        (".r.test", "r.test", False),
        ("*.r.test", "a.b.r.test", True),
        ("*.r.test", "r.test", False),
        ("other, ,R.TEST ", "r.test", True),
        ("r.test:5000", "r.test:5000", True),
        ("r.test:5000", "r.test", False),
        ("r.test:443", "r.test", True),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.10", False),
        ("10.0.0.1:5000", "10.0.0.1:5000", True),
        ("10.0.0.1:5000", "10.0.0.1:5001", False),
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.1/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "r10.test", False),
        ("fd00::/8", "[fd12::1]", True),
        ("fd00::/8", "10.0.0.1", False),
        ("fd12::1", "[fd12::1]:5000", True),
        ("[fd12::1]:5000", "[fd12::1]:5000", True),
        ("[fd12::1]:5000", "[fd12::1]:5001", False),
        ("[fd12::1]", "[fd12::0:1]", True),
        ("", "r.test", False),
        (".", "r.test", False),
        ("10.0.0.0/99", "10.0.0.1", False),
    ],
)
def test_exceptions_are_names_suffixes_addresses_and_networks(exceptions: str, host: str, direct: bool) -> None:
    assert _chosen(f"https://{host}/", NO_PROXY=exceptions, **BOTH) == (None if direct else HTTPS)


def test_a_proxy_without_scheme_speaks_http() -> None:
    assert _chosen("https://r.test/", HTTPS_PROXY="proxy.test:3128") == "http://proxy.test:3128"


def test_a_proxy_has_its_credentials() -> None:
    proxy = proxy_for(URL("https://r.test/"), {"HTTPS_PROXY": "http://me:hunter%402@proxy.test:3128"})
    assert proxy is not None
    assert (proxy.user, proxy.password, proxy.host, proxy.port) == ("me", "hunter@2", "proxy.test", 3128)


@pytest.mark.parametrize(
    "value",
    [
        "http://me:hunter2@",
        "http://me:hunter2@[::1",
        "http://me:hunter2@proxy.test:99999",
        "me:hunter2:x:y",
        "socks5://me:hunter2@proxy.test:1080",
        "file:///hunter2",
    ],
)
def test_a_broken_proxy_is_named_by_its_variable_only(value: str) -> None:
    with pytest.raises(ConfigError, match="HTTPS_PROXY") as caught:
        proxy_for(URL("https://r.test/"), {"HTTPS_PROXY": value})
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
