"""Reading what a server says: only typed errors leave, whatever a parser, ours or a library's, makes of it.

A fault in a parser is one that a server can set off. It costs that server the request, not the user the pull: the
next candidate is asked (``route``). Cancellation and a lack of memory are nobody's answer, and pass.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar

from fastoci.errors import FastociError, RegistryError

_LOG: Final = logging.getLogger("fastoci.registry")

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def typed(url: str) -> Iterator[None]:
    """Around the reading of an answer of ``url`` (redacted).

    Raises:
        RegistryError: in place of any exception that is none of ours; that one is its cause.
    """
    try:
        yield
    except (FastociError, MemoryError):
        raise
    except Exception as error:
        raise unexpected(error, url) from error


def parsed(parse: Callable[P, T], *words: P.args, **options: P.kwargs) -> T | None:
    """What a server says beside its answer; None when it cannot be read, as when it says nothing."""
    try:
        return parse(*words, **options)
    except MemoryError:
        raise
    except Exception as error:
        _LOG.debug("%s fails", getattr(parse, "__name__", parse), exc_info=error)
        return None


def unexpected(error: Exception, url: str) -> RegistryError:
    """The error to raise for one that nobody expected; the log has that one, whatever comes of the request."""
    kind = type(error).__name__
    _LOG.warning("%s: unexpected %s", url, kind)
    _LOG.debug("%s: unexpected %s", url, kind, exc_info=error)  # its text may hold what a signed URL has of secrets
    return RegistryError(f"{url}: the answer cannot be used (unexpected {kind})", url=url)
