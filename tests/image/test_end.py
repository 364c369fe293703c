"""Ends as users write them, beside skopeo's reading of the same text."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from fastoci.errors import ReferenceSyntaxError
from fastoci.image.end import End
from fastoci.image.reference import Reference

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("docker://redis", End("docker", name="docker.io/library/redis:latest", reference=Reference.parse("redis"))),
        (
            f"docker://r.test:5000/a/b@{DIGEST}",
            End("docker", name=f"r.test:5000/a/b@{DIGEST}", reference=Reference.parse(f"r.test:5000/a/b@{DIGEST}")),
        ),
        ("oci:redis", End("oci", "redis")),
        ("oci:/a/b:", End("oci", "/a/b")),
        ("oci:/a/b:1.0", End("oci", "/a/b", "1.0")),
        ("oci:a:docker.io/library/redis:7", End("oci", "a", "docker.io/library/redis:7")),
        ("oci:a:@2", End("oci", "a", index=2)),
        ("oci-archive:a.tar:x", End("oci-archive", "a.tar", "x")),
        ("docker-archive:/dev/stdin", End("docker-archive", "/dev/stdin")),
        (
            "docker-archive:a.tar:redis",
            End("docker-archive", "a.tar", "docker.io/library/redis:latest", None, Reference.parse("redis")),
        ),
        ("docker-archive:a.tar:@0", End("docker-archive", "a.tar", index=0)),
        ("dir:a:b", End("dir", "a:b")),
        ("store:redis:7", End("store", name="redis:7")),
        (f"store:{DIGEST}", End("store", name=DIGEST)),
    ],
)
def test_an_end_says_where_an_image_is(text: str, end: End) -> None:
    assert End.parse(text) == end


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("redis", "begins with none of docker://, oci:, oci-archive:, docker-archive:, dir:, store:"),
        ("", "begins with none of"),
        ("ftp:x", "begins with none of"),
        ("redis:7", "in a registry it is docker://redis:7, in the store store:redis:7"),
        ("https://h/redis", "in a registry it is docker://h/redis"),
        ("./redis", "a layout in a directory is oci:./redis"),
        ("-", "docker-archive:/dev/stdin"),
        ("docker-daemon:redis:7", r"`docker save redis:7 \| fastoci copy docker-archive:/dev/stdin DESTINATION`"),
        ("containers-storage:", r"`podman save NAME \| fastoci"),
        ("OCI:x", "small letters: oci:x"),
        ("docker:redis", r"write docker://\[domain/\]path"),
        ("docker://", "it is empty"),
        ("docker://UPPER/x y", "is not a repository"),
        ("oci:", "write oci:PATH"),
        ("oci::x", "write oci:PATH"),
        ("oci:a:../b", "is not a name in a layout"),
        ("oci:a:x y", "is not a name in a layout"),
        ("oci:a:@x", "is not the number of an image"),
        ("oci:a:@-1", "is not the number of an image"),
        ("oci:a:@01", "is not the number of an image"),
        ("docker-archive:", "write docker-archive:PATH"),
        ("docker-archive:a:B", "must be lower case"),
        (f"docker-archive:a:b@{DIGEST}", "names with tags, and no digests"),
        ("dir:", "write dir:PATH"),
        ("store:", "write store:REF"),
    ],
)
def test_what_is_no_end_is_told_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(ReferenceSyntaxError, match=words):
        End.parse(text)


@pytest.mark.parametrize("text", ["oci:a:b", "oci-archive:a:@1", "dir:a", "store:b", "docker-archive:a"])
def test_an_end_reads_as_it_was_written(text: str) -> None:
    assert str(End.parse(text)) == text
    assert End.parse(str(End.parse("docker://redis"))) == End.parse("docker://redis")


@pytest.mark.parametrize("text", ["oci:a:@1", "docker-archive:a:@0", f"store:redis@{DIGEST}"])
def test_an_image_that_is_there_is_no_place_to_write_to(text: str) -> None:
    with pytest.raises(ReferenceSyntaxError):
        End.parse(text).demand_writable()


def test_a_place_is() -> None:
    for text in ("oci:a:b", "oci:a", "docker-archive:a", "docker://a", "store:a", "dir:a"):
        assert End.parse(text).demand_writable() == End.parse(text)


def test_skopeo_refuses_what_is_refused_here(peer: Callable[[str], str]) -> None:
    for text in ("redis", "docker:redis", "docker://", "oci:a:../b", "oci:a:x y", "docker-archive:a:B"):
        run = subprocess.run([peer("skopeo"), "inspect", text], capture_output=True, text=True, check=False)
        assert "Error parsing image name" in run.stderr, (text, run.stderr)
        with pytest.raises(ReferenceSyntaxError):
            End.parse(text)


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("redis:7", End("store", name="redis:7")),
        ("docker:dind", End("store", name="docker:dind")),
        ("0d2c4e6f8a10", End("store", name="0d2c4e6f8a10")),
        ("localhost:5000/oci:1", End("store", name="localhost:5000/oci:1")),
        ("store:oci:latest", End("store", name="oci:latest")),
        ("oci:latest", End("oci", "latest")),
        ("dir:./x", End("dir", "./x")),
    ],
)
def test_an_image_that_is_there_may_be_named_as_the_store_does(text: str, end: End) -> None:
    assert End.parse_image(text) == end
