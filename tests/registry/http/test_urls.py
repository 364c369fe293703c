"""URLs byte for byte, what is shown of them, and what of a request is a secret."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from fastoci.registry.http.urls import Origin, parse_url, quoted, redact, secrets_of


@pytest.mark.parametrize(
    "text",
    [
        "https://r.test/v2/a%2Fb/blobs/x?sig=a%2Bb+c%20d&sig=%7e",
        "http://r.test:5000/",
        "https://[::1]:5000/v2/",
        "https://r.test/v2/?X-Amz-Signature=0%3D%3D",
    ],
)
def test_a_url_is_kept_byte_for_byte(text: str) -> None:
    assert str(parse_url(text)) == text


def test_user_and_fragment_go_and_a_relative_url_is_joined() -> None:
    assert str(parse_url("https://me:pw@r.test/v2/#x")) == "https://r.test/v2/"
    assert str(parse_url("../b?c=%2B", base=URL("https://r.test/v2/a/"))) == "https://r.test/v2/b?c=%2B"
    assert str(parse_url("//other.test/b", base=URL("https://r.test/v2/"))) == "https://other.test/b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "r.test/v2/",
        "/v2/",
        "ftp://r.test/",
        "file:///etc/passwd",
        "https:///v2/",
        "https://r.test:port/",
        "https://r.test:70000/",
        "https://r.test/a b",
        "https://r.test/a\\b",
        "https://r.test/\r\nHost: x",
        "https://r\u00e9.test/",
        "http://[::1]@",
        "http://[::1",
    ],
)
def test_what_is_not_a_url_of_http_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_url(text)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("/a b?c=d e", "https://r.test/a%20b?c=d%20e"),
        (" /\u00e9?c=%2F ", "https://r.test/%C3%A9?c=%2F"),
        ("/\udce9", "https://r.test/%E9"),
    ],
    ids=["spaces", "UTF-8", "latin-1"],
)
def test_a_redirect_in_other_characters_is_quoted(text: str, meant: str) -> None:
    assert str(parse_url(quoted(text), base=URL("https://r.test/v2/"))) == meant


@pytest.mark.parametrize("text", ["https://r\u00e9.test/", "https://a b/", "/a\tb", "/a\r\nb", "/a\0b"])
def test_quoting_makes_no_host_and_no_line_of_what_is_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_url(quoted(text), base=URL("https://r.test/v2/"))


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_any_text_is_a_url_of_http_or_a_value_error(rest: str) -> None:
    for text in (rest, f"http://{rest}", f"https://r.test/{rest}"):
        try:
            url = parse_url(text, base=URL("https://base.test/"))
        except ValueError:
            continue
        assert url.scheme in ("http", "https")
        assert url.host
        assert url.user is None
        assert Origin.named(str(url)) == Origin.of(url)


def test_an_origin_is_scheme_host_and_port_whatever_the_case() -> None:
    assert Origin.of(URL("https://R.Test/x")) == Origin("https", "r.test", 443) == Origin.named("https://r.test:443/y")
    assert Origin.named("http://r.test/") == Origin("http", "r.test", 80)
    assert Origin.named("https://r.test:8443/") != Origin.named("https://r.test/")
    assert Origin.named("r.test") is None


def test_a_url_is_shown_without_user_query_and_fragment() -> None:
    assert redact(URL("https://me:pw@r.test:5000/v2/a?token=s3cret#x")) == "https://r.test:5000/v2/a"


def test_secrets_are_found_in_queries_headers_and_forms_in_each_form_a_server_could_repeat() -> None:
    basic = "Basic " + base64.b64encode(b"me:pass word").decode()
    url = URL("https://r.test/?scope=repository:a:pull&X-Sig=ab%2Bcd", encoded=True)
    found = secrets_of(url, [basic, "Bearer t0ken"], b"grant_type=password&password=p%40ss+word&service=r.test")
    assert found == {
        *("ab%2Bcd", "ab+cd"),
        *(basic, basic.removeprefix("Basic "), "me:pass word", "pass word"),
        *("Bearer t0ken", "t0ken"),
        *("p%40ss+word", "p@ss word"),
    }


def test_a_few_characters_are_no_secret_and_a_basic_header_that_is_none_is_one() -> None:
    assert secrets_of(URL("https://r.test/?a=abc"), []) == frozenset()
    assert secrets_of(URL("https://r.test/"), ["Basic ****"]) == {"Basic ****", "****"}
