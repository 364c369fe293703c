"""Pages of tags."""

from __future__ import annotations

import pytest

from fastoci.errors import FormatError
from fastoci.image import tag_list


@pytest.mark.parametrize(
    ("data", "tags"),
    [(b'{"name":"app","tags":["1","2"]}', ["1", "2"]), (b'{"name":"app","tags":null}', []), (b'{"name":"app"}', [])],
)
def test_a_page_has_tags_or_none(data: bytes, tags: list[str]) -> None:
    assert tag_list.parse(data) == tags


@pytest.mark.parametrize("data", [b"", b"[]", b'{"tags":"1"}', b'{"tags":[1]}', b'{"tags":["1"],"tags":["2"]}'])
def test_what_is_not_a_list_of_texts_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        tag_list.parse(data)
