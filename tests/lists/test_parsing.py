"""Which form a list has; and hostile lists, which end in problems, soon.

Covers: lists/parsing.py, lists/yaml_documents.py, lists/json_documents.py, lists/findings.py.
"""

from __future__ import annotations

import time
from types import ModuleType

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastoci.lists import json_documents, yaml_documents
from fastoci.lists.findings import Findings
from fastoci.lists.parsing import parse_list
from fastoci.lists.request import ImageList, ListProblem

POD = "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - image: "


@pytest.mark.parametrize(
    "text",
    [
        "app:1",
        "# services:\n\napp:1 pin",
        POD + "app:1",
        "---\n" + POD + "app:1",
        "# a comment\n%YAML 1.1\n---\n" + POD + "app:1",
        "- " + POD.replace("\n", "\n  ") + "app:1",
        "{apiVersion: v1, kind: Pod, spec: {containers: [{image: 'app:1'}]}}",
        '{"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"image": "app:1"}]}}',
        '[{"spec": {"containers": [{"image": "app:1"}]}}]',
        '"spec": {containers: [{image: app:1}]}',
        "services: {a: {image: app:1}}",
        "services:\n  a:\n    image: app:1",
        '{"services": {"a": {"image": "app:1"}}}',
    ],
)
def test_the_form_of_a_list_is_seen_from_what_is_in_it(text: str) -> None:
    found = parse_list(text.encode(), "l")
    assert found.problems == ()
    assert [request.reference for request in found.requests] == ["app:1"]


@pytest.mark.parametrize(
    "reference", ["registry.local:5000/app", "app:1", "localhost:5000/app@sha256:00", "[::1]:5000/a"]
)
def test_a_reference_with_a_colon_is_a_line_and_no_key(reference: str) -> None:
    assert [request.reference for request in parse_list(reference.encode(), "l").requests] == [reference]


def bomb(levels: int) -> str:
    """Each level names the one before nine times."""
    rows = ["a0: &a0 [{image: quay.io/x:1}]"]
    rows += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, levels)]
    return "\n".join(
        ["apiVersion: v1", "kind: Pod", *rows, f"spec: {{containers: [{{image: app}}], x: *a{levels - 1}}}"]
    )


CHAIN = "apiVersion: v1\nkind: Pod\na0: &a0 {containers: [{image: app}]}\n" + "".join(
    f"a{number}: &a{number} {{x: *a{number - 1}}}\n" for number in range(1, 9000)
)
MERGES = "services:\n  s0: &s0 {image: app}\n" + "".join(
    f"  s{number}: &s{number} {{<<: *s{number - 1}}}\n" for number in range(1, 5000)
)


@pytest.mark.parametrize(
    ("text", "images", "problem"),
    [
        (bomb(9), ["app"], ""),
        (bomb(900), ["app"], ""),
        (CHAIN, ["app"], ""),
        ("kind: Pod\napiVersion: v1\nspec: &s\n  containers: [{image: app}]\n  again: *s\n", ["app"], ""),
        ("a: &a [" + "*a, " * 10_001 + "]", [], "more than 10000 aliases"),
        ("a: " + "[" * 300, [], "values in each other 200 deep"),
        ("a: " + "{b: " * 300, [], "values in each other 200 deep"),
        ("\n".join(" " * depth + "a:" for depth in range(300)), [], "values in each other 200 deep"),
        ("[" * 100_000, [], "values in each other 200 deep"),
        ("[" * 300 + "]" * 300, [], "values in each other 200 deep"),
        ('{"a":' * 100_000, [], "values in each other 200 deep"),
        ("- " * 2_000_001 + "a", [], "values in each other 200 deep"),
        ('{"a": ["' + "\\" * 1_000_000 + '"]}', [], "neither Kubernetes"),
        ("a: *b", [], "*b names no anchor that is before it"),
        ("? [a]\n: b", [], "a key is not a text"),
        ("a: b\na: c", [], "'a' is there twice, first in line 1"),
        ('{"a": 1, "b": 2,\n"a": 3}', [], "'a' is there twice, first in line 1"),
        ("a: \x01b", [], "a character that no text has, U+0001"),
        ("a: [b", [], "this is not YAML"),
        ('{"a": 1,}', [], "this is not JSON"),
        ('{"a":\n"\\ud800"}', [], "this is not JSON"),
        ("%YAML 3.0\n---\na: b", [], "found incompatible YAML document"),
        ("---\n...\n---\n...\n", [], ""),
        ("a: !!python/object/apply:os.system [id]", [], "neither Kubernetes"),
        ("just: a mapping", [], "neither Kubernetes, compose nor skopeo sync"),
        ("- a\n- b", [], "neither Kubernetes, compose nor skopeo sync"),
    ],
    ids=lambda value: None if isinstance(value, list) else f"{value[:20]!r}" if isinstance(value, str) else None,
)
def test_a_hostile_list_ends_in_problems_soon(text: str, images: list[str], problem: str) -> None:
    began = time.monotonic()
    found = parse_list(text.encode(), "l")
    assert [request.reference for request in found.requests] == images
    messages = [each.message for each in found.problems]
    assert any(problem in message for message in messages) if problem else messages == []
    assert all(len(message) < 500 for message in messages)
    assert time.monotonic() - began < 60


def test_services_that_are_merged_very_deep_lose_their_images_and_take_no_time() -> None:
    began = time.monotonic()
    found = parse_list(MERGES.encode(), "l")
    assert 90 < len(found.requests) < 110
    assert time.monotonic() - began < 60


def test_a_document_larger_than_the_bound_is_not_read() -> None:
    [problem] = parse_list(b"a: b\n" + b"#" * (64 << 20), "l").problems
    assert problem.origin == "l:1"
    assert "at most 67108864 are allowed of YAML or JSON" in problem.message


WORDS = st.sampled_from(
    [
        *"\n :-[]{},&*#'\"\\|>%!@?$\t\r\0",
        *("  ", "image", "containers", "services", "apiVersion: v1\nkind: Pod\n", "spec:", "${A:-", "<<: *a", "&a "),
        *("---\n", "r.example:\n", "images:", "credentials:", "\xff", "a", "1.2", "\ufeff", "tls-verify: ", "{{ x }}"),
        *("images-by-semver:", "images-by-tag-regex:", "cert-dir: ", "platform=", "priority=9"),
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(st.lists(WORDS, max_size=40).map("".join).map(str.encode) | st.binary(max_size=200))
@example(b"services: &a\n  a: *a\n")
@example(b"a: {images: &b {<<: *b, c: *b}}")
def test_any_bytes_are_a_list_with_problems(data: bytes) -> None:
    found = parse_list(data, "l")
    assert isinstance(found, ImageList)
    lines = len(data.splitlines()) + 1
    for entry in found.entries:
        assert 1 <= int(entry.origin.partition(":")[2]) <= lines


@given(JSON)
def test_any_json_is_read_without_a_complaint_about_its_form(value: object) -> None:
    messages = [problem.message for problem in parse_list(msgspec.json.encode({"x": value}), "l").problems]
    assert not any("JSON" in message for message in messages)


def test_many_lines_are_read_and_each_has_its_number() -> None:
    data = b"".join(b"registry.example/team/app-%d:1\n" % number for number in range(100_000))
    began = time.monotonic()
    found = parse_list(data, "l")
    assert len(found.requests) == 100_000
    assert found.requests[-1].origin == "l:100000"
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("form", [yaml_documents, json_documents], ids=["YAML", "JSON"])
def test_a_document_of_too_many_values_is_read_no_further(form: ModuleType) -> None:
    found = Findings("l")
    text = b"[1,\n2,\n3,\n4\n]" + b"x" * (form is yaml_documents)
    assert list(form.documents(text, found, nodes=4)) == []
    assert found.image_list().problems == (ListProblem("l:4", "too much for a list: more than 4 values"),)
