"""The tags of a repository: by pages, from a server that may lie about where the next one is.

Covers: registry/http/link_header.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fastoci.errors import FormatError, NotFoundError
from fastoci.image.reference import Reference
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.http.link_header import next_page
from support.scripted_server import Asked, Raw, Script, answer, as_json, serving


async def tags_from(script: Script) -> tuple[Sequence[str], list[Asked]]:
    async with serving(script) as server, Registry(credentials=Credentials()) as client:
        reference = Reference.parse(f"{server.address}/app")
        return await client.repository(reference).tags(), [each for each in server.asked if "/tags/" in each.path]


def paged(pages: dict[str, tuple[list[str], str]]) -> Script:
    """Answers by ``last``: tags, and the next page's address."""

    def respond(asked: Asked) -> Raw:
        tags, link = pages[dict(asked.query).get("last", "")]
        body = as_json({"name": "app", "tags": tags})
        return Raw(body.data.replace(b"\r\n\r\n", f"\r\nLink: {link}\r\n\r\n".encode(), 1)) if link else body

    return respond


async def test_pages_are_read_to_the_last() -> None:
    script = paged({"": (["1", "2"], '</v2/app/tags/list?last=2&n=2>; rel="next"'), "2": (["2", "3"], "")})
    tags, asked = await tags_from(script)
    assert tags == ("1", "2", "3")
    assert [each.path for each in asked] == ["/v2/app/tags/list"] * 2


async def test_the_address_of_the_next_page_is_not_followed() -> None:
    script = paged({"": (["1"], '<http://169.254.169.254/secret?last=1>; rel="next"'), "1": (["2"], "")})
    tags, asked = await tags_from(script)
    assert tags == ("1", "2")
    assert [each.path for each in asked] == ["/v2/app/tags/list"] * 2


async def test_a_list_that_has_no_end_is_refused() -> None:
    endless = paged({"": ([], '</v2/app/tags/list?last=x>; rel="next"'), "x": ([], '<?last=x>; rel="next"')})
    with pytest.raises(FormatError, match="does not end"):
        await tags_from(endless)


async def test_a_page_that_comes_again_and_again_is_refused() -> None:
    same = paged({"": (["1"], '</v2/app/tags/list?last=1>; rel="next"'), "1": (["1"], '<?last=1>; rel="next"')})
    with pytest.raises(FormatError, match="does not end after 1"):
        await tags_from(same)


async def test_a_page_may_have_a_token_of_the_registry_instead_of_a_tag() -> None:
    """As Quay had until 2024. A list that ended here would have --prune remove the images of all further tags."""

    def respond(asked: Asked) -> Raw:
        is_second = dict(asked.query).get("next_page") == "gA+A=="
        body = as_json({"name": "app", "tags": ["2"] if is_second else ["1"]})
        link = b"" if is_second else b'\r\nLink: </v2/app/tags/list?next_page=gA%2BA%3D%3D&n=50>; rel="next"'
        return Raw(body.data.replace(b"\r\n\r\n", link + b"\r\n\r\n", 1))

    tags, _ = await tags_from(respond)
    assert tags == ("1", "2")


async def test_a_next_page_without_an_address_is_no_end() -> None:
    with pytest.raises(FormatError, match="the next page of tags has no address"):
        await tags_from(paged({"": (["1"], "<http://[::1?last=x>; rel=next")}))


async def test_a_repository_that_is_not_there_is_not_found() -> None:
    with pytest.raises(NotFoundError):
        await tags_from(lambda asked: answer(404))


@pytest.mark.parametrize(
    ("header", "query"),
    [
        ("", None),
        ('</v2/a/tags/list?n=2&last=b%2Bc>; rel="next"', {"n": "2", "last": "b+c"}),
        ("<https://other/?last=x>; rel=next", {"last": "x"}),
        ('<?last=a>; rel="prev", <?last=x>; title="more"; rel = "next"', {"last": "x"}),
        ('</v2/a/tags/list>; rel="next"', {}),
        ('</v2/a/tags/list?last=x>; rel="prev"', None),
    ],
)
def test_a_link_says_what_the_query_of_the_next_page_is(header: str, query: dict[str, str] | None) -> None:
    assert next_page(header) == query
