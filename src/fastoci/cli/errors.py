"""What a failure looks like: one line, a hint of what to do next, and an exit code by kind. See docs/exit-codes.md."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import click

from fastoci import errors
from fastoci.cli.formatting import plain, size, table

SOME_FAILED: Final = 9
_UNEXPECTED: Final = 1

_PROXIES: Final = "HTTPS_PROXY and HTTP_PROXY name the proxy, NO_PROXY the hosts that are asked without it"
_OF_PROXIES: Final = frozenset({403, 502, 503, 504})  # what proxies say of themselves, too

# The first class that matches holds.
_HINTS: Final[Sequence[tuple[type[errors.FastociError], str]]] = (
    (errors.EndSyntaxError, ""),  # the message says what can be
    (errors.AmbiguousReferenceError, "write more digits, or the name: `fastoci ls` shows both"),
    (
        errors.ReferenceSyntaxError,
        "references are [HOST[:PORT]/]NAME[:TAG][@sha256:HEX], platforms OS/ARCH[/VARIANT]",
    ),
    (errors.PlatformError, "choose another platform with --platform"),
    (errors.NotFoundError, "check the name and the tag or digest; a private image may need --creds or --authfile"),
    (
        errors.UnauthorizedError,
        "log in with `fastoci login`, or give --creds USER or --authfile FILE",
    ),
    (errors.DeniedError, "use credentials that may read this, with --creds USER or --authfile FILE"),
    (errors.RateLimitedError, "wait before the next attempt; credentials may raise the limit"),
    (errors.RegistryError, "try again later; what was finished is kept"),
    (errors.ProxyError, _PROXIES),
    (errors.ConnectError, "check host, port and network"),
    (errors.TransportError, "run the same command again: it resumes"),
    (
        errors.IntegrityError,
        "the wrong bytes were not kept; try again, then ask the operator of the source;"
        " `fastoci repair` replaces what is damaged in the store",
    ),
    (errors.EndNotFoundError, ""),
    (errors.BlobNotFoundError, "`fastoci ls` shows what is in the store, `fastoci pull` brings more"),
    (errors.RootfsOccupiedError, ""),  # the message says what to do
    (errors.OwnerError, ""),
    (errors.StoreBusyError, "try again when the other process is done"),
    (errors.StoreFullError, "free some space, or choose another directory"),
    (errors.StoreError, ""),  # by what the system said
    (errors.PolicyError, "ask who wrote this policy, or name another one with --policy"),
    (errors.UnsafePathError, "do not trust this image: it names files outside its root"),
)

# Of a ``StoreError`` that is what a system call said; other messages say themselves what is wrong.
_OF_SYSTEM: Final = {
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), or name fewer images at a time",
    errno.ENFILE: "too many files are open on this machine",
    errno.EFBIG: "raise the limit of a file's size (`ulimit -f`), or choose another file system",
    errno.EROFS: "choose another directory: this file system is mounted for reading only",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_OF_DISKS: Final = "check the path and its permissions, and that it is on a local disk"

# Whose hint is for what may pass: only those errors get it that are ``retryable``. The messages of others say more.
_PASSING: Final = frozenset({errors.RegistryError, errors.ConnectError, errors.TransportError, errors.StoreBusyError})
_LOST_BLOB: Final = "the registry has the image, but not this part of it: tell its operator, or push the image again"


def code(error: BaseException) -> int:
    """The exit code for an error."""
    return error.exit_code if isinstance(error, (errors.FastociError, click.ClickException)) else _UNEXPECTED


def merge(codes: Sequence[int]) -> int:
    """The exit code of a job from those of its images, 0 for a success: their common one, else ``SOME_FAILED``."""
    kinds = set(codes)
    return kinds.pop() if len(kinds) == 1 else SOME_FAILED


def line(error: BaseException, subject: str = "") -> str:
    """One line that names the subject (a reference, a directory), the blob, the source, and what is wrong."""
    if isinstance(error, click.ClickException):
        return plain(error.format_message())
    if not isinstance(error, errors.FastociError):
        text = f"unexpected {type(error).__name__}: {error} (run with --debug for the traceback)"
        return plain(f"{subject}: {text}" if subject else text)
    text = error.message
    names = ["blob", "url", "layer"] + (["path"] if not isinstance(error, errors.BlobNotFoundError) else [])
    facts = [str(getattr(error, name, None) or "") for name in names]
    missing = [fact for fact in dict.fromkeys(facts) if fact and fact not in text]
    if isinstance(error, errors.PlatformError) and error.available and error.available[0] not in text:
        missing.append(f"there are {', '.join(error.available)}")
    subject = subject or error.image or ""
    named = subject and not text.startswith(f"{subject}: ")
    return plain((f"{subject}: " if named else "") + text + (f" ({', '.join(missing)})" if missing else ""))


def hint(error: BaseException) -> str:
    """What to do next, empty when there is no advice."""
    if isinstance(error, errors.RateLimitedError) and error.retry_after_s is not None:
        when = datetime.now(UTC) + timedelta(seconds=error.retry_after_s)
        wait = f"the registry asks to wait {error.retry_after_s:.0f} s, until {when:%Y-%m-%d %H:%M:%S} UTC"
        return f"{wait}; a pull waits longer with --max-wait {error.retry_after_s + 1:.0f}s"
    if isinstance(error, errors.NotFoundError) and error.blob:
        return _LOST_BLOB
    if isinstance(error, errors.RegistryError) and error.proxy and error.status in _OF_PROXIES:
        return f"the proxy may say so, not the registry; {_PROXIES}"
    if isinstance(error, errors.DeniedError) and not error.status:
        return ""  # by the configuration, which the message names
    if type(error) is errors.StoreError and error.errno is not None:
        return _OF_SYSTEM.get(error.errno, _OF_DISKS)
    kind, text = next((row for row in _HINTS if isinstance(error, row[0])), (None, ""))
    return "" if kind in _PASSING and isinstance(error, errors.FastociError) and not error.retryable else text


def requirements(error: BaseException) -> list[str]:
    """What is needed and free, in columns, when a check before the fetch found too little."""
    if not isinstance(error, errors.StoreFullError) or not error.requirements:
        return []
    rows = [("", "NEEDED", "FREE", "")]
    for each in error.requirements:
        show = str if each.what == "inodes" else size
        short = "too little: " if each.needed > each.free else ""
        free = "no limit" if each.free == sys.maxsize else show(each.free)
        rows.append((plain(each.what.rstrip(",")), show(each.needed), free, short + plain(each.path)))
    return table(rows)


def facts(error: Exception, subject: str = "") -> dict[str, object]:
    """What a program may want to know of a failure; docs/events.md says what each field is."""
    return {
        "subject": subject,
        "message": line(error, subject),
        "kind": type(error).__name__,
        "exit_code": code(error),
        "retryable": getattr(error, "retryable", False),
        **{name: getattr(error, name, None) for name in ("blob", "url", "tries", "elapsed_s")},
    }
