"""Doing the same with several references: the failure of one does not stop the others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from fastoci.cli import errors, report
from fastoci.errors import FastociError


async def each(references: Iterable[str], action: Callable[[str], Awaitable[None]]) -> int:
    """Do it with each reference once, tell what failed, and return the exit code of all."""
    told, codes = report.current(), []
    for reference in dict.fromkeys(references):
        try:
            await action(reference)
            codes.append(0)
        except FastociError as error:
            told.fail(error, reference)
            codes.append(errors.code(error))
    return errors.merge(codes)
