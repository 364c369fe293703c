"""Strict JSON: everything that two parsers could read in two ways is refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci.errors import FormatError
from fastoci.image import document


class Inner(msgspec.Struct, frozen=True, rename="camel"):
    some_key: int | None = None


class Outer(msgspec.Struct, frozen=True, rename="camel"):
    inner: Inner | None = None
    rows: tuple[Inner, ...] | None = None
    labels: dict[str, str] | None = None
    named: dict[str, Inner] | None = None
    anything: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def refusal(data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        document.decode(data, Outer, what="thing")
    assert str(caught.value).startswith("thing: ")
    return str(caught.value)


def as_plain(data: bytes) -> None:
    """Decode a document of any shape, and again as a field that is skipped and as one that is kept raw."""
    document.decode(data, object, what="document")
    for name in (b"skipped", b"anything"):
        document.decode(b'{"' + name + b'":' + data + b"}", Outer, what="document")


def test_the_json_test_suite_is_refused_and_accepted_as_it_says(shared: Path) -> None:
    files = sorted((shared / "corpora/JSONTestSuite/test_parsing").iterdir())
    assert len(files) > 300
    for file in files:
        data = file.read_bytes()
        if file.name[0] == "y":
            as_plain(data)
        elif file.name[0] == "i":
            try:
                as_plain(data)
            except FormatError:
                continue
        else:
            with pytest.raises(FormatError):
                document.decode(data, object, what=file.name)
            with pytest.raises(FormatError):
                document.decode(b'{"skipped":' + data + b"}", Outer, what=file.name)


@pytest.mark.parametrize(
    "data",
    [
        b'{"labels":{},"labels":{}}',
        b'{"inner":{"someKey":1,"someKey":2}}',
        b'{"rows":[{},{"someKey":1,"x":[],"someKey":1}]}',
        b'{"inner":{"\\u0073omeKey":1,"someKey":2}}',
        b'{"inner":{"someKey" \n:1, "someKey"\t:2}}',
        b'{"anything":1,"anything":{}}',
        b'{"named":{"a":{},"a":{}}}',
        b'{"named":{"":{},"":{}}}',
    ],
)
def test_a_duplicate_of_a_key_with_a_meaning_is_refused_at_every_level(data: bytes) -> None:
    assert "duplicate key" in refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":1}',
        b'{"labels":{"x":"1","x":"2"}}',
        b'{"inner":{"history":1,"history":2}}',
        b'{"skipped":[1,{"someKey":{"x":[],"y":{},"x":0},"someKey":1}]}',
        b'{"anything":{"inner":1,"inner":2}}',
    ],
)
def test_other_keys_may_come_twice(data: bytes) -> None:
    document.decode(data, Outer, what="thing")


def test_of_a_label_that_comes_twice_the_last_holds_as_in_go() -> None:
    assert document.decode(b'{"labels":{"x":"1","x":"2"}}', Outer, what="thing").labels == {"x": "2"}


def test_an_error_says_where() -> None:
    assert refusal(b'{"named":{"\xc3\xa9":{},"x":{},"x":{}}}').endswith("duplicate key 'x' at byte 25")
    assert "$.rows[1].someKey" in refusal(b'{"rows":[{},{"someKey":"1"}]}')
    assert "byte 12" in refusal(b'{"labels":"\x41\xff"}')


@pytest.mark.parametrize(
    "data",
    [
        b'{"Inner":{}}',
        b'{"inner":{},"INNER":{}}',
        b'{"inner":{"SomeKey":1}}',
        b'{"inner":{"somekey":1,"someKey":1}}',
        b'{"rows":[{},{"some\\u006bey":1}]}',
        b'{"named":{"x":{},"SomeKey":{"SOMEKEY":1}}}',
        b'{"rows":[{"some\\u212aey":1}]}',  # the Kelvin sign, which Go folds to k
        b'{"row\xc5\xbf":[]}',  # the long s, which Go folds to s
    ],
)
def test_a_key_that_differs_by_letter_case_is_refused_where_keys_have_a_meaning(data: bytes) -> None:
    assert "letter case" in refusal(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"labels":{"Inner":"","inner":"","INNER":""}}',
        b'{"skipped":{"Inner":1,"someKey":1,"SomeKey":1}}',
        b'{"anything":{"Inner":1,"inner":2}}',
        b'{"named":{"SomeKey":{"someKey":1},"SOMEKEY":{}}}',
        b'{"inner":{"Inner":1,"Rows":2}}',
        b'{"rows":[{"someKey":1},{"someKey":1}],"inner":{"someKey":1}}',
        b'{"labels":{"a":"\\"a\\":","b":"{[","c":"\\\\"},"a":"a","b":["a","a"]}',
    ],
)
def test_keys_without_a_meaning_and_strings_are_left_alone(data: bytes) -> None:
    document.decode(data, Outer, what="thing")


@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}"), (b'["s",{"a":1,"b":', b"}]")])
def test_depth_is_bounded_to_the_level(left: bytes, right: bytes) -> None:
    step = left.count(b"[") + left.count(b"{")
    levels = (document.DEPTH - 1) // step
    as_deep = b'{"x":' + left * levels + b"0" + right * levels + b"}"
    document.decode(as_deep, Outer, what="thing")
    deeper = b'{"x":' + left * (levels + 1) + b"0" + right * (levels + 1) + b"}"
    assert "nested deeper than 64" in refusal(deeper)


@pytest.mark.parametrize("inmost", [b"[]", b"{}", b"{ \n}", b"[1,2]"])
def test_empty_containers_count_as_a_level(inmost: bytes) -> None:
    document.decode(b'{"x":' + b"[" * 62 + inmost + b"]" * 62 + b"}", Outer, what="thing")
    assert "nested deeper" in refusal(b'{"x":' + b"[" * 63 + inmost + b"]" * 63 + b"}")


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"x":' * 100_000, b"[" * 100_000 + b"]" * 100_000])
def test_a_nesting_bomb_is_refused(data: bytes) -> None:
    refusal(data)
    refusal(b'{"skipped":' + data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{} {}",
        b"{}x",
        b"\xef\xbb\xbf{}",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"skipped":"\xff"}',
        b'{"skipped":"\xed\xa0\x80"}',
        b'{"skipped":"\\ud800"}',
        b"{'a':1}",
        b'{"a":01}',
        b'{"a":"\n"}',
        b'{"a":1,}',
        b"// c\n{}",
        b"<html></html>",
        b"null",
        b"[]",
        '{"a":1}'.encode("utf-16"),
    ],
)
def test_what_is_not_one_strict_json_object_is_refused(data: bytes) -> None:
    refusal(data)


def test_four_mebibytes_of_small_tokens_are_scanned() -> None:
    for unit in (b"[],", b"{},", b'"",', b'{"":0},', b"[[]],"):
        document.decode(b'{"x":[' + unit * ((4 << 20) // len(unit)) + b"0]}", Outer, what="thing")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


@settings(database=None)
@given(_JSON, st.booleans(), st.sampled_from([None, 1]))
def test_what_json_writes_is_accepted(value: object, escaped: bool, indent: int | None) -> None:
    data = json.dumps({"skipped": value}, ensure_ascii=escaped, indent=indent).encode(errors="replace")
    document.decode(data, Outer, what="thing")


@settings(database=None)
@given(_JSON.filter(lambda value: isinstance(value, dict) and bool(value)), st.integers(0, 10**6))
def test_a_key_written_twice_is_found_where_it_has_a_meaning(value: dict[str, object], pick: int) -> None:
    key = sorted(value)[pick % len(value)]
    document.decode(f'{{"skipped":[0,{json.dumps(value)[:-1]},{json.dumps(key)}:[]}}]}}'.encode(), Outer, what="thing")
    inner = json.dumps({"someKey": 1, "skipped": value})[:-1] + ',"someKey":2}'
    assert "duplicate key" in refusal(f'{{"rows":[{{}},{inner}]}}'.encode())


@settings(database=None)
@given(st.binary(max_size=60) | st.text(alphabet='{}[]:,"\\ue0-1aA \n', max_size=60).map(str.encode))
def test_any_bytes_are_a_document_or_a_format_error(data: bytes) -> None:
    try:
        document.decode(data, object, what="thing")
    except FormatError:
        return
    json.loads(data)
