"""References: the published tables of distribution/reference, and what it leaves to others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastoci.errors import ReferenceSyntaxError
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference

DIGEST = "sha256:" + "f" * 64


def table(shared: Path, name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((shared / "corpora/tables" / name).read_text())["cases"]
    assert rows
    return rows


def accepted(text: str) -> bool:
    try:
        Reference.parse(text)
    except ReferenceSyntaxError:
        return False
    return True


def test_every_name_is_normalised_as_published(shared: Path) -> None:
    for row in table(shared, "reference_normalize.json"):
        for spelling in ("FamiliarName", "FullName", "AmbiguousName"):
            if row[spelling]:
                reference = Reference.parse(row[spelling])
                assert (reference.domain, reference.path) == (row["Domain"], row["RemoteName"]), row
                assert reference.name == row["FullName"]


def test_every_name_is_accepted_or_refused_as_published(shared: Path) -> None:
    for row in table(shared, "reference_normalized_valid.json"):
        # The second half of the table holds paths, which upstream tests below a domain of their own.
        assert accepted(row["input"]) == row["valid"], row


def test_every_reference_is_split_as_published(shared: Path) -> None:
    for row in table(shared, "reference_parse.json"):
        text = row["input"]
        if "sha512" in text:  # unsupported only where that algorithm is not linked in
            assert str(Reference.parse(text).digest) == text.partition("@")[2]
            continue
        # The table is about the grammar alone: "a/..." has the domain "a" there, and is below Docker Hub for a user.
        path_on_hub = len(text.partition(":")[0]) if text.startswith("a/") else 0
        if "err" in row or path_on_hub > 255:
            assert not accepted(text), row
            continue
        reference = Reference.parse(text)
        assert reference.digest == (Digest.parse(row["digest"]) if row.get("digest") else None), row
        assert reference.tag == (row.get("tag") or (None if row.get("digest") else "latest")), row
        domain = row.get("domain", "")
        if "." in domain or ":" in domain:
            assert (reference.domain, reference.name) == (domain, row["repository"]), row
        else:
            assert reference.domain == "docker.io", row
            assert reference.path == (row["repository"] if domain else f"library/{row['repository']}"), row


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("redis", "docker.io/library/redis:latest"),
        ("redis:7", "docker.io/library/redis:7"),
        (f"redis@{DIGEST}", f"docker.io/library/redis@{DIGEST}"),
        (f"redis:7@{DIGEST}", f"docker.io/library/redis:7@{DIGEST}"),
        ("index.docker.io/redis", "docker.io/library/redis:latest"),
        ("bitnami/redis", "docker.io/bitnami/redis:latest"),
        ("localhost/redis", "localhost/redis:latest"),
        ("localhost:5000/redis", "localhost:5000/redis:latest"),
        ("ghcr.io/a/b/c:v1", "ghcr.io/a/b/c:v1"),
        ("ghcr.io:443/a", "ghcr.io:443/a:latest"),
        ("[::1]:5000/a:b", "[::1]:5000/a:b"),
        (f"a:{'t' * 128}", f"docker.io/library/a:{'t' * 128}"),
    ],
)
def test_a_reference_is_completed(text: str, full: str) -> None:
    assert str(Reference.parse(text)) == full


def test_the_digest_is_what_is_asked_for_when_there_is_one() -> None:
    assert Reference.parse("redis:7").target == "7"
    assert Reference.parse("redis").target == "latest"
    assert Reference.parse(f"redis:7@{DIGEST}").target == DIGEST


def test_the_host_of_docker_hub_is_not_its_domain() -> None:
    assert Reference.parse("redis").host == "registry-1.docker.io"
    assert Reference.parse("localhost:5000/redis").host == "localhost:5000"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "empty"),
        ("docker://redis", "scheme"),
        ("https://ghcr.io/a", "scheme"),
        ("f" * 64, "image id"),
        ("Redis", "lower case"),
        ("ghcr.io/A", "lower case"),
        ("ghcr.io/", "not a repository"),
        ("a b", "not a repository"),
        ("redis\n", "not a repository"),
        ("redis:7\n", "not a tag"),
        ("redis:", "not a tag"),
        ("redis:.7", "not a tag"),
        ("redis:é", "not a tag"),
        (f"redis:{'t' * 129}", "not a tag"),
        ("redis:7:8", "not a tag"),
        ("redis@", "not a digest"),
        ("redis@sha256:ff", "64 lower-case hex digits"),
        (f"redis@{DIGEST}@{DIGEST}", "not a digest"),
        (f"redis@md5:{'f' * 32}", "not supported"),
        (f"{'a' * 256}", "at most 255"),
        ("-a.io/b", "not a host"),
        ("ex_ample.com/b", "not a host"),
        ("a.io:99999/b", "not a port"),
        ("a.io:0/b", "not a port"),
        ("a.io:port/b", "not a host"),
        ("[:::]/b", "not an IPv6 address"),
        (f"{'a' * 64}.io/b", "not a host"),
        (f"{'a.' * 127}io/b", "not a host"),
        ("user@a.io/b", "not a host"),
        ("bücher.de/b", "not a host"),
    ],
)
def test_a_reference_that_does_not_parse_says_what_is_wrong(text: str, wrong: str) -> None:
    with pytest.raises(ReferenceSyntaxError, match=wrong) as caught:
        Reference.parse(text)
    assert "\n" not in str(caught.value)


def test_a_long_bad_reference_is_cut_in_the_message() -> None:
    with pytest.raises(ReferenceSyntaxError) as caught:
        Reference.parse("a/" * 100_000)
    assert len(str(caught.value)) < 1000


_COMPONENT = st.from_regex(r"\A[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}\Z")
_REFERENCES = st.builds(
    Reference,
    st.sampled_from(["docker.io", "localhost", "ghcr.io:8080", "[2001:db8::1]:5000", "10.0.0.1", "UPPER"]),
    st.lists(_COMPONENT, min_size=2, max_size=4).map("/".join),
    st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}\Z"),
    st.none() | st.binary(max_size=4).map(Digest.of),
)


@settings(database=None)
@given(_REFERENCES)
def test_the_full_form_round_trips(reference: Reference) -> None:
    assert Reference.parse(str(reference)) == reference


@settings(database=None)
@given(st.text(max_size=60) | st.text(alphabet="aA0.:/@_-[]%f\n", max_size=60))
def test_any_text_is_a_reference_or_a_typed_error(text: str) -> None:
    if accepted(text):
        reference = Reference.parse(text)
        assert Reference.parse(str(reference)) == reference
