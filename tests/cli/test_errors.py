"""What failures look like, and their exit codes."""

from __future__ import annotations

import copy
import errno
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci import errors, files
from fastoci.cli import errors as cli_errors

DOCUMENT = Path(__file__).parents[2] / "docs" / "exit-codes.md"


def _tree(root: type[errors.FastociError]) -> Iterator[type[errors.FastociError]]:
    yield root
    for child in root.__subclasses__():
        yield from _tree(child)


def _documented() -> dict[str, int]:
    rows = re.findall(r"^\| (\d+) \| [^|]* \| ([^|]*) \|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: int(code) for code, names in rows for name in re.findall(r"`(\w+Error)`", names)}


def test_every_error_has_the_exit_code_that_the_document_says() -> None:
    ours = [kind for kind in _tree(errors.FastociError) if kind.__module__ == errors.__name__]
    assert {kind.__name__: kind.exit_code for kind in ours} == _documented()


def test_an_unexpected_exception_exits_with_1() -> None:
    assert cli_errors.code(ValueError("no")) == 1


@pytest.mark.parametrize(
    ("codes", "code"), [([0], 0), ([0, 0], 0), ([3], 3), ([3, 3], 3), ([0, 3], 9), ([3, 5], 9), ([0, 3, 5], 9)]
)
def test_several_images_have_their_common_code_or_9(codes: list[int], code: int) -> None:
    assert cli_errors.merge(codes) == code


def test_a_line_names_image_blob_and_source_once() -> None:
    error = errors.TruncatedError("the body ended after 3 of 9 bytes", url="http://h/v2/x", received=3)
    error.image, error.blob = "h/x:1", "sha256:ab"
    assert cli_errors.line(error, "h/x:1") == "h/x:1: the body ended after 3 of 9 bytes (sha256:ab, http://h/v2/x)"
    assert cli_errors.line(errors.StoreError("/s: read-only", path="/s")) == "/s: read-only"


def test_a_hostile_message_stays_on_one_line() -> None:
    error = errors.UnpackError("layer x: bad entry", path="a\x1b[2J\nfastoci: all is well", layer="x")
    assert cli_errors.line(error, "h/x") == "h/x: layer x: bad entry (a\\x1b[2J\\nfastoci: all is well)"


def test_an_unexpected_exception_points_to_the_traceback() -> None:
    assert cli_errors.line(ValueError("no"), "h/x") == (
        "h/x: unexpected ValueError: no (run with --debug for the traceback)"
    )


def test_a_missing_platform_lists_those_there_are() -> None:
    error = errors.PlatformError("no manifest for linux/s390x", available=("linux/amd64", "linux/arm64"))
    assert cli_errors.line(error, "x") == "x: no manifest for linux/s390x (there are linux/amd64, linux/arm64)"


def test_the_hint_of_a_rate_limit_says_how_long_to_wait() -> None:
    assert "30 s" in cli_errors.hint(errors.RateLimitedError("slow down", url="http://h/", retry_after_s=30))
    assert cli_errors.hint(errors.RateLimitedError("slow down", url="http://h/"))


@pytest.mark.parametrize("retryable", [True, False])
def test_only_what_may_be_tried_again_has_the_hint_to_do_so(retryable: bool) -> None:
    again: list[errors.FastociError] = [
        errors.TransportError("cut", url="http://h/", retryable=retryable),
        errors.RegistryError("no", url="http://h/", status=503 if retryable else 400),
    ]
    for error in again:
        assert ("again" in cli_errors.hint(error)) is retryable


def test_a_hint_says_the_cause_and_not_what_it_is_not() -> None:
    lost = errors.NotFoundError("404", url="http://h/v2/a/blobs/sha256:aa", status=404)
    assert "tag" in cli_errors.hint(lost)
    lost.blob = "sha256:aa"
    assert "tag" not in cli_errors.hint(lost)
    assert "not this part" in cli_errors.hint(lost)
    proxy = errors.ProxyError("407", url="https://h/", status=407, retryable=False)
    assert "HTTPS_PROXY" in cli_errors.hint(proxy)
    assert "registry" not in cli_errors.hint(proxy)
    refused = errors.DeniedError("403", url="http://h/", status=403, proxy="http://p:3128")
    assert "the proxy may say so" in cli_errors.hint(refused)
    assert cli_errors.hint(errors.DeniedError("blocked by registries.conf", url="")) == ""
    assert "credentials" in cli_errors.hint(errors.DeniedError("403", url="http://h/", status=403))
    assert cli_errors.hint(errors.ConnectError("certificate", url="https://h/", retryable=False)) == ""
    assert "network" in cli_errors.hint(errors.ConnectError("refused", url="https://h/"))
    assert cli_errors.hint(errors.ConfigError("auth.json: not JSON")) == ""


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.EMFILE, "raise the limit of open files"),
        (errno.EROFS, "choose another directory"),
        (errno.ENAMETOOLONG, "choose a shorter name"),
        (errno.EACCES, "check the path and its permissions"),
        (errno.ENOSPC, "free some space"),
    ],
)
def test_the_hint_for_a_disk_is_by_what_the_system_said(number: int, hint: str) -> None:
    error = files.failure(OSError(number, "x"), "write", "/store/x")
    assert cli_errors.hint(copy.copy(error)).startswith(hint)


def test_a_store_that_says_itself_what_is_wrong_has_no_hint_about_permissions() -> None:
    assert cli_errors.hint(errors.StoreError("format 99 is newer than 1, the newest known here", path="/s")) == ""
