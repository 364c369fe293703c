"""The names of methods: all that a real containerd is asked for are known to it."""

from __future__ import annotations

from fastoci.containerd import methods


def test_a_method_is_named_once_and_as_a_path() -> None:
    names = [value for name, value in vars(methods).items() if name.isupper() and name[0] != "_"]
    assert len(names) == len(set(names)) > 30
    assert all(name.startswith("/containerd.services.") and name.count("/") == 2 for name in names)
