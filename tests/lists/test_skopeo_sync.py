"""The YAML of skopeo sync: tags, digests, rules for tags, and how a registry is asked.

Covers: lists/skopeo_sync.py, lists/tag_rules.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from fastoci.lists.parsing import parse_list
from fastoci.lists.request import PrefetchRequest, RegistryAccess, TagQuery

LIST = rb"""
registry.example.com:
  images:
    busybox: []
    redis:
      - "1.0"
      - 2
      - sha256:0000000000000000000000000000000011111111111111111111111111111111
    team/all:
  images-by-tag-regex:
    nginx: ^1\.13\.[12]-alpine-perl$
  images-by-semver:
    alpine: ">= 3.12.0"
  credentials:
    username: john
    password: this is a secret
  tls-verify: false
  cert-dir: /home/john/certs
quay.io/team:
  images: {app: [v1]}
"""


def test_what_a_list_of_skopeo_says_is_read_with_its_lines() -> None:
    found = parse_list(LIST, "s")
    assert found.problems == ()
    digest = "sha256:0000000000000000000000000000000011111111111111111111111111111111"
    assert found.requests == (
        PrefetchRequest("registry.example.com/redis:1.0", origin="s:6"),
        PrefetchRequest("registry.example.com/redis:2", origin="s:7"),
        PrefetchRequest(f"registry.example.com/redis@{digest}", origin="s:8"),
        PrefetchRequest("quay.io/team/app:v1", origin="s:20"),
    )
    assert found.queries == (
        TagQuery("registry.example.com/busybox", "all", origin="s:4"),
        TagQuery("registry.example.com/team/all", "all", origin="s:9"),
        TagQuery("registry.example.com/nginx", "regex", r"^1\.13\.[12]-alpine-perl$", origin="s:11"),
        TagQuery("registry.example.com/alpine", "semver", ">= 3.12.0", origin="s:13"),
    )
    certs = Path("/home/john/certs")
    assert found.access == (
        RegistryAccess("registry.example.com", "john", "this is a secret", False, certs, origin="s:2"),
    )


@pytest.mark.parametrize(
    ("fields", "line", "message"),
    [
        ("image: {a: []}", 2, "'image' is not known, there are cert-dir, credentials, images"),
        ("images: [a]", 2, 'images: expected repositories, as redis: ["7"]'),
        ("images: {a: latest}", 2, 'a: expected a list of tags or digests, as ["7"]'),
        ("images: {a: [[b]]}", 2, "a: a tag or digest is not a text"),
        ("images-by-tag-regex: {a: '(b'}", 2, "images-by-tag-regex: a: '(b' is not a regular expression"),
        ("images-by-tag-regex: {a: }", 2, "images-by-tag-regex: a: expected a text"),
        ("images-by-semver: {a: newest}", 2, "images-by-semver: a: 'newest' is not a range of versions"),
        ("credentials: {user: a, password: hush}", 2, "credentials have a username and a password"),
        ("credentials: {username: a}", 2, "credentials need a username and a password"),
        ("credentials: hush", 2, "credentials: expected a username and a password"),
        ("tls-verify: maybe", 2, "tls-verify: expected true or false"),
        ("cert-dir: certs", 2, "cert-dir: expected the absolute path of a directory"),
        ("cert-dir: [/a]", 2, "cert-dir: expected the absolute path of a directory"),
    ],
)
def test_what_is_wrong_with_a_registry_is_told_and_its_images_count(fields: str, line: int, message: str) -> None:
    found = parse_list(f"r.example:\n  {fields}\n  images-by-semver: {{b: 1.x}}\n".encode(), "s")
    messages = {problem.message[: len(message)]: problem.origin for problem in found.problems}
    assert messages.get(message) == f"s:{line}"
    assert not any("hush" in problem.message for problem in found.problems)
    expected = 0 if "images-by-semver: {a" in fields else 1  # the key is there twice: the first counts
    assert sum(query.repository == "r.example/b" for query in found.queries) == expected


@pytest.mark.parametrize("word", ["maybe", "1", "[false]", '""'])
def test_a_word_that_is_no_truth_value_never_turns_checks_off(word: str) -> None:
    [access] = parse_list(f"r.example: {{images: {{a: [b]}}, tls-verify: {word}}}".encode(), "s").access
    assert access.tls_verify is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'NOT A HOST': {images: {a: [b]}}", "not a registry"),
        ("r.example: {tls-verify: true}", "registry 'r.example' has no images"),
        ("a.example: {images: {a: [b]}}\nr.example: []", "registry 'r.example' has no images"),
    ],
    ids=["host", "no images", "no fields"],
)
def test_a_registry_without_images_is_told(text: str, message: str) -> None:
    [problem] = parse_list(text.encode(), "s").problems
    assert message in problem.message


def test_credentials_of_docker_hub_are_for_docker_hub() -> None:
    text = b"library: {images: {redis: ['7']}, credentials: {username: u, password: p}}"
    [access] = parse_list(text, "s").access
    assert access.registry == "docker.io"
