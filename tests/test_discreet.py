"""Values do not show what is secret in them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import rich.pretty

# What has such values, loaded so that it is among the subclasses.
import fastoci.registry.auth.kubelet
import fastoci.registry.opening
import fastoci.store.gc.collect  # noqa: F401
from fastoci.discreet import Discreet


class Login(Discreet, frozen=True):
    hidden: ClassVar = frozenset({"password"})

    name: str
    password: str
    port: int = 0


LOGIN = Login("me", "secret", 443)


def subclasses(kind: type[Discreet]) -> Iterator[type[Discreet]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_what_is_hidden_is_not_shown() -> None:
    assert repr(LOGIN) == str(LOGIN) == f"{LOGIN}" == "Login(name='me', port=443)"
    assert rich.pretty.pretty_repr(LOGIN) == "Login(name='me', port=443)"


def test_what_is_hidden_is_there() -> None:
    assert LOGIN.password == "secret"
    assert Login("me", "other", 443) != LOGIN
    assert hash(LOGIN) == hash(Login("me", "secret", 443))


def test_all_that_is_hidden_is_a_field() -> None:
    found = list(subclasses(Discreet))
    assert len(found) > 8
    for each in found:
        assert each.hidden, each
        assert each.hidden <= set(each.__struct_fields__), each
