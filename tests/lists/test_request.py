"""What a list asks for: values that check what a program gives them, and show no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastoci.lists.request import PrefetchRequest, RegistryAccess, TagQuery


@pytest.mark.parametrize(
    "wrong",
    [
        {"reference": 1},
        {"reference": "a", "platforms": "linux/amd64"},
        {"reference": "a", "priority": "high"},
        {"reference": "a", "pinned": "no"},
        {"reference": "a", "rootfs": Path("a")},
        {"reference": "a", "origin": 12},
    ],
    ids=["reference", "platforms", "priority", "pinned", "rootfs", "origin"],
)
def test_a_request_of_another_type_says_which(wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="expected"):
        PrefetchRequest(**wrong)
    repository = wrong.pop("reference")
    with pytest.raises(TypeError, match="expected"):
        TagQuery(repository, "all", **wrong)


def test_a_password_is_in_no_log() -> None:
    assert "secret" not in repr(RegistryAccess("127.0.0.1:5000", "user", "secret"))
