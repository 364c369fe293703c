"""What a registry asks for in ``WWW-Authenticate``, as frozen values. Trusts no byte of it; does no I/O.

A challenge whose end is cut keeps the parameters before the cut, unless the realm is not among them. A parameter that
comes with two values makes the challenge void: two readers would choose differently.

Spec: RFC 9110 section 11; distribution-spec v1.1, token authentication.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

_HEADER_SIZE = 16 << 10  # characters; what a registry sends is below 1 KiB

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_SEPARATOR = re.compile(r"[ \t,]*")
_NAME = re.compile(_TOKEN)
_VALUE = re.compile(r'[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')
_EQUALS = re.compile(r"[ \t]*=")
_TOKEN68 = re.compile(r"[ \t]+[A-Za-z0-9._~+/-]+=*[ \t]*(?=,|$)")


class Challenge(msgspec.Struct, frozen=True):
    """One way to authenticate: ``scheme`` and the names of ``params`` are in lower case."""

    scheme: str
    params: Mapping[str, str]


def parse(header: str) -> tuple[Challenge, ...]:
    """All challenges of a header, in order; several header fields are joined with commas first.

    What cannot be read is left out: the caller sees no challenge, and asks nobody for a token.
    """
    if len(header) > _HEADER_SIZE:
        return ()
    found: list[Challenge] = []
    position = 0
    while position < len(header):
        scheme, position = _scheme(header, position)
        if not scheme:
            break
        params, whole, position = _params(header, position)
        if params is not None:
            found.append(Challenge(scheme, MappingProxyType(params)))
        if not whole:
            break
    return tuple(found)


def _scheme(header: str, position: int) -> tuple[str, int]:
    match = _NAME.match(header, _skip(header, position))
    if match is None:
        return "", len(header)
    scheme, position = match.group().lower(), match.end()
    if scheme not in ("basic", "bearer"):
        token = _TOKEN68.match(header, position)
        position = token.end() if token else position
    return scheme, position


def _params(header: str, position: int) -> tuple[dict[str, str] | None, bool, int]:
    """The parameters up to the next scheme (None: void), whether the rest can be read, and where it starts."""
    params: dict[str, str] = {}
    void = False
    while True:
        start = _skip(header, position)
        name = _NAME.match(header, start)
        if name is None or not _EQUALS.match(header, name.end()):
            # The end, or the name of the next scheme.
            return (None if void else params), name is not None or start == len(header), start
        value = _VALUE.match(header, name.end())
        if value is None:
            return (params if "realm" in params and not void else None), False, start
        key = name.group().lower()
        quoted, plain = value.groups()
        text = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        void = void or params.setdefault(key, text) != text
        position = value.end()


def _skip(header: str, position: int) -> int:
    match = _SEPARATOR.match(header, position)
    return match.end() if match else position
