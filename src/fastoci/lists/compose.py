"""Compose files: the image of each service, those of all profiles.

No variable of the environment is read: a list means the same on every machine. The default of a variable counts, and
one without a default is a problem.

Spec: compose-spec, 05-services and 12-interpolation.
"""

from __future__ import annotations

import re
from typing import Final

from fastoci.lists.findings import Findings
from fastoci.lists.node import Array, Mapping, Node, Scalar
from fastoci.lists.request import PrefetchRequest

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DEPTH: Final = 10  # defaults in defaults
_SHOWN: Final = 100  # characters of a name in a message


def is_compose(document: Mapping) -> bool:
    """Whether this is a compose file."""
    return isinstance(document.get("services"), Mapping) and not document.text("apiVersion")


def read(document: Mapping, found: Findings) -> None:
    """Find the images of one document."""
    include = document.get("include")
    if include is not None:
        found.problem(include.line, "include: other files are not read; name each as a list of its own")
    services = document.get("services")
    if isinstance(services, Mapping):
        for name, service in services.entries.items():
            if isinstance(service, Mapping):
                _service(service, found)
            else:
                found.problem(services.lines[name], f"service {name[:_SHOWN]!r} has no fields")


def _service(service: Mapping, found: Findings) -> None:
    image = service.get("image")
    extends = service.get("extends")
    if image is None and isinstance(extends, Mapping) and extends.get("file") is not None:
        found.problem(extends.line, "extends: other files are not read; name each as a list of its own")
    if isinstance(image, Array | Mapping):
        found.problem(image.line, "the image of a service is not a text")
    elif image is not None:
        reference = _filled(image, found)
        platforms = _platforms(service.get("platform"), found)
        if reference is not None and platforms is not None:
            found.requests.append(PrefetchRequest(reference, platforms, origin=found.origin(image.line)))


def _platforms(node: Node | None, found: Findings) -> tuple[str, ...] | None:
    """The platform of a service, if it has one; None when that was a problem."""
    if node is None:
        return ()
    if not isinstance(node, Scalar):
        found.problem(node.line, "the platform of a service is not a text")
        return None
    platform = _filled(node, found)
    return None if platform is None else (platform,)


def _filled(node: Scalar, found: Findings) -> str | None:
    """A text with the defaults of its variables; None when that was a problem."""
    try:
        text = fill(node.text).strip()
    except ValueError as error:
        found.problem(node.line, str(error))
        return None
    if not text:
        found.problem(node.line, "nothing is left of it when its variables are empty")
    return text or None


def fill(text: str) -> str:
    """Put the defaults of variables in their places.

    Raises:
        ValueError: a variable has no default, or what is written is not one.
    """
    filled, end = _fill(text, 0, nested=0)
    assert end == len(text)
    return filled


def _fill(text: str, start: int, *, nested: int) -> tuple[str, int]:
    """Fill from ``start`` up to the brace that ends this default, or the end; the text, and where it ended."""
    if nested > _DEPTH:
        raise ValueError(f"variables in each other {_DEPTH} deep")
    parts: list[str] = []
    at = start
    while at < len(text) and not (nested and text[at] == "}"):
        if text[at] != "$":
            parts.append(text[at])
            at += 1
        elif text.startswith("$$", at):
            parts.append("$")
            at += 2
        else:
            part, at = _variable(text, at + 1, nested=nested)
            parts.append(part)
    return "".join(parts), at


def _variable(text: str, at: int, *, nested: int) -> tuple[str, int]:
    """What is for the variable whose ``$`` is before ``at``, and where it ended."""
    braced = text.startswith("{", at)
    name = _NAME.match(text, at + braced)
    if name is None:
        raise ValueError("a $ that begins no variable: write $$ for the character")
    end = name.end()
    shown = name[0][:_SHOWN]
    if not braced or text.startswith("}", end):
        raise ValueError(f"the variable {shown} has no default: write ${{{shown}:-DEFAULT}}, or the value")
    colon = text.startswith(":", end)
    kind = text[end + colon : end + colon + 1]
    if kind not in ("-", "+", "?"):
        raise ValueError(f"the variable {shown} is not of the form ${{{shown}:-DEFAULT}}")
    default, end = _fill(text, end + colon + 1, nested=nested + 1)
    if not text.startswith("}", end):
        raise ValueError(f"the braces of the variable {shown} do not end")
    if kind == "?":
        raise ValueError(f"the variable {shown} has no default, it demands a value")
    return (default if kind == "-" else ""), end + 1
