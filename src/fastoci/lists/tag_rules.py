"""Which tags a ``TagQuery`` chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from fastoci.lists import regular_expression, version_range
from fastoci.lists.request import TagQuery


def compiled(query: TagQuery) -> Callable[[str], bool]:
    """Whether a tag is chosen.

    Raises:
        ValueError: the expression or the range cannot be one.
    """
    if query.rule == "regex":
        return regular_expression.Expression(query.text).is_in
    if query.rule == "semver":
        return version_range.VersionRange(query.text).has
    return lambda tag: True


def chosen(query: TagQuery, tags: Iterable[str]) -> list[str]:
    """The tags that a query chooses, in their order.

    Raises:
        ValueError: as ``compiled``.
    """
    has = compiled(query)
    return [tag for tag in tags if has(tag)]
