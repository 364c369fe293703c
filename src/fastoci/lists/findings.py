"""What a parser of lists finds, in the order of the list."""

from __future__ import annotations

from fastoci.lists.request import ImageList, ListProblem, PrefetchRequest, RegistryAccess, TagQuery


class Findings:
    """Collects the parts of one list.

    Args:
        name: of the list, for origins.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.requests: list[PrefetchRequest] = []
        self.queries: list[TagQuery] = []
        self.access: list[RegistryAccess] = []
        self._problems: list[ListProblem] = []

    def origin(self, line: int) -> str:
        """Where a line is, in words; lines count from 1."""
        return f"{self._name}:{line}"

    def problem(self, line: int, message: str) -> None:
        """Note what is wrong with a line; the rest of the list counts."""
        self._problems.append(ListProblem(self.origin(line), message))

    def image_list(self) -> ImageList:
        """All that was found."""
        return ImageList(tuple(self.requests), tuple(self.queries), tuple(self.access), tuple(self._problems))
