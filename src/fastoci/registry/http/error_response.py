"""Answers that say no, as typed errors: the status decides the class, the registry's own words go into the message.

Spec: distribution-spec v1.1, error codes.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from http import HTTPStatus

from fastoci.durations import retry_after_in_message_s, retry_after_s
from fastoci.errors import (
    DeniedError,
    NotFoundError,
    RateLimitedError,
    RegistryError,
    TransportError,
    UnauthorizedError,
    UnavailableError,
)
from fastoci.registry.http.aiohttp_errors import CLIENT_CERTIFICATE
from fastoci.registry.http.reply import Reply
from fastoci.registry.http.throughput import drips
from fastoci.registry.http.untrusted import parsed

_BODY_SIZE = 64 << 10  # bytes of an error's body that are read
_MESSAGE_SIZE = 256  # characters of the registry's own message that are shown


async def error_of(reply: Reply, *, hint: str = "") -> RegistryError:
    """The error for an answer that is not a success. Reads the body and closes the reply.

    Args:
        hint: what the user can do, added to the message.
    """
    try:
        body = await reply.read(_BODY_SIZE, drips)
    except TransportError:
        body = b""  # the status says enough
    finally:
        reply.close()
    code, words = parsed(_words, body) or ("", "")
    words = printable(reply.masked(words))
    if reply.status == 400 and b"SSL certificate" in body:  # nginx says so of none, and of one that it does not accept
        hint = f"it wants a client certificate: {CLIENT_CERTIFICATE}"
    if reply.proxy:
        hint = ", ".join(filter(None, [hint, f"asked through the proxy {reply.proxy}"]))
    text = ": ".join(
        part for part in (" ".join((str(reply.status), code or _phrase(reply.status))), words, hint) if part
    )
    message = f"{reply.method} {reply.url}: {text}"
    wait_s = None
    if reply.status in (429, 503):
        wait_s = parsed(retry_after_s, reply.header("Retry-After"), now=datetime.now(UTC))
        wait_s = parsed(retry_after_in_message_s, words) if wait_s is None else wait_s
    return class_of(reply.status)(
        message,
        url=reply.url,
        status=reply.status,
        code=code,
        retry_after_s=wait_s,
        redirected=reply.redirected,
        proxy=reply.proxy,
    )


def printable(text: str) -> str:
    """Words of a server as they may be shown: the first 256 characters, control characters escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:_MESSAGE_SIZE])


def class_of(status: int) -> type[RegistryError]:
    """The kind of error that a status is."""
    if 500 <= status <= 599:
        return UnavailableError
    classes = {401: UnauthorizedError, 403: DeniedError, 404: NotFoundError, 429: RateLimitedError}
    return classes.get(status, RegistryError)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _words(body: bytes) -> tuple[str, str]:
    """The code and message of the first error in a body; empty when it holds none (HTML, another JSON)."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return "", ""
    if not isinstance(document, dict):
        return "", ""
    errors = document.get("errors")
    first = errors[0] if isinstance(errors, list) and errors else document
    if not isinstance(first, dict):
        return "", ""
    code = first.get("code")
    # Token services of Docker and GitHub say "details" or "message" without a list.
    words = first.get("message") or first.get("details")
    return (
        code if isinstance(code, str) and re.fullmatch(r"[A-Z_]{1,64}", code) else "",
        words if isinstance(words, str) else "",
    )
