"""Values with fields that no repr shows: a secret belongs into no log."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class Discreet(msgspec.Struct, frozen=True):
    """A value that does not show the fields in ``hidden``."""

    hidden: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """The fields that are shown, for rich as well: a struct shows it all."""
        return [(name, getattr(self, name)) for name in self.__struct_fields__ if name not in self.hidden]
