"""Compose files: the images of services, and the defaults of variables.

Covers: lists/compose.py.
"""

from __future__ import annotations

import json

import pytest

from fastoci.lists.compose import fill
from fastoci.lists.parsing import parse_list
from fastoci.lists.request import PrefetchRequest

FILE = b"""\
x-base: &base
  image: ghcr.io/team/app:${TAG:-latest}
services:
  web:
    <<: *base
    platform: linux/arm64
  cache: {image: "redis:7", profiles: [debug]}
  built: {build: .}
  both: {build: ., image: team/both}
networks: {image: {image: none}}
"""


def test_the_image_of_each_service_counts_with_its_platform() -> None:
    found = parse_list(FILE, "compose.yaml")
    assert found.problems == ()
    assert found.requests == (
        PrefetchRequest("ghcr.io/team/app:latest", ("linux/arm64",), origin="compose.yaml:2"),
        PrefetchRequest("redis:7", origin="compose.yaml:7"),
        PrefetchRequest("team/both", origin="compose.yaml:9"),
    )


def test_the_json_of_a_compose_file_is_one() -> None:
    found = parse_list(json.dumps({"services": {"web": {"image": "nginx"}}}, indent=1).encode(), "c")
    assert found.requests == (PrefetchRequest("nginx", origin="c:4"),)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("redis", "redis"),
        ("redis:${TAG:-7}", "redis:7"),
        ("redis:${TAG-7}-x", "redis:7-x"),
        ("${A:-${B:-c}/d}/e", "c/d/e"),
        ("a${A:+b}c", "ac"),
        ("a${A:-}b", "ab"),
        ("a$$b", "a$b"),
        ("${A:-a$$b}", "a$b"),
    ],
)
def test_the_default_of_a_variable_takes_its_place(text: str, filled: str) -> None:
    assert fill(text) == filled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redis:$TAG", "the variable TAG has no default"),
        ("redis:${TAG}", "the variable TAG has no default"),
        ("redis:${TAG:?say which}", "the variable TAG has no default, it demands a value"),
        ("redis:${TAG/a/b}", "the variable TAG is not of the form"),
        ("redis:${TAG:-7", "the braces of the variable TAG do not end"),
        ("redis:${", "a $ that begins no variable"),
        ("redis:$", "a $ that begins no variable"),
        ("${A:-" * 100, "variables in each other 10 deep"),
        ("${A:-}", "nothing is left"),
    ],
)
def test_a_variable_that_cannot_be_filled_is_a_problem_of_its_line(text: str, message: str) -> None:
    found = parse_list(f"services:\n  a: {{image: a}}\n  b:\n    image: '{text}'\n".encode(), "c")
    assert [request.reference for request in found.requests] == ["a"]
    [problem] = found.problems
    assert problem.origin == "c:4"
    assert message in problem.message


@pytest.mark.parametrize(
    ("more", "line", "message"),
    [
        ("include: [other.yaml]", 4, "include: other files are not read"),
        ("  b: {extends: {file: x.yaml, service: y}}", 4, "extends: other files are not read"),
        ("  b: {image: {name: x}}", 4, "the image of a service is not a text"),
        ("  b: {image: x, platform: [linux]}", 4, "the platform of a service is not a text"),
        ("  b: nginx", 4, "service 'b' has no fields"),
        ("  a: {image: twice}", 4, "'a' is there twice, first in line 3"),
    ],
)
def test_what_is_not_read_is_told(more: str, line: int, message: str) -> None:
    found = parse_list(f"# x\nservices:\n  a: {{image: a}}\n{more}\n".encode(), "c")
    assert [request.reference for request in found.requests] == ["a"]
    [problem] = found.problems
    assert (problem.origin, problem.message[: len(message)]) == (f"c:{line}", message)
