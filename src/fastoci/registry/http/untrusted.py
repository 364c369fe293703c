"""Reading what a server says: only typed errors leave, whatever a parser, ours or a library's, makes of it.

A fault in a parser is one that a server can set off. It costs that server the request, not the user the pull: the
next candidate is asked (``failover``). Cancellation and a lack of memory are nobody's answer, and pass.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, ParamSpec, TypeVar

from fastoci.errors import FastociError, RegistryError

_LOG: Final = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def typed(url: str) -> Iterator[None]:
    """Around the reading of an answer of ``url`` (redacted).

    Raises:
        RegistryError: in place of any exception that is not ours; that one is its cause.
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
        _LOG.debug("%s fails: %s at\n%s", getattr(parse, "__name__", parse), type(error).__name__, _trace(error))
        return None


def unexpected(error: Exception, url: str) -> RegistryError:
    """The error to raise for one that nobody expected; the log says where it was, whatever comes of the request."""
    kind = type(error).__name__
    _LOG.warning("%s: unexpected %s", url, kind)
    _LOG.debug("%s: unexpected %s at\n%s", url, kind, _trace(error))
    return RegistryError(f"{url}: the answer cannot be used (unexpected {kind})", url=url)


def _trace(error: Exception) -> str:
    """Where an error comes from, without its text, which may quote a secret."""
    return "".join(traceback.format_tb(error.__traceback__)).rstrip()
