"""What a quota leaves, from what a kernel answers; and that this machine's kernel can be asked."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from fastoci.store import free_space

BOTH = 1 | 2 | 4 | 8  # all limits and uses count
USER, GROUP = 0, 1


def answer(hard: int, soft: int, used: int, inodes: tuple[int, int, int], valid: int = BOTH) -> bytes:
    """``struct if_dqblk``: limits in KiB, use in bytes, inodes, two times, what is valid, padding."""
    return struct.pack("=8Q2I", hard, soft, used, *inodes, 0, 0, valid, 0)


@pytest.fixture(autouse=True)
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quotas do not stop root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize(
    ("user", "left"),
    [
        (answer(100, 0, 60 << 10, (0, 0, 3)), (40 << 10, None)),
        (answer(0, 100, 60 << 10, (10, 0, 3)), (40 << 10, 7)),
        (answer(100, 50, 200 << 10, (0, 5, 9)), (0, 0)),
        (answer(0, 0, 60 << 10, (0, 0, 3)), (None, None)),
        (answer(100, 100, 0, (10, 10, 0), valid=0), (None, None)),
        (None, (None, None)),
    ],
    ids=["bytes", "soft limit", "over", "unlimited", "nothing valid", "no quota"],
)
def test_what_is_left_is_the_limit_without_what_is_used(
    tmp_path: Path, user: bytes | None, left: tuple[int | None, int | None]
) -> None:
    assert (
        free_space.quota_left(str(tmp_path), ask=lambda fd, command, who: None if command & 0xFF == GROUP else user)
        == left
    )


def test_the_tighter_of_user_and_group_counts(tmp_path: Path) -> None:
    answers = {USER: answer(100, 0, 0, (50, 0, 0)), GROUP: answer(70, 0, 0, (80, 0, 0))}
    asked: list[tuple[int, int]] = []

    def ask(fd: int, command: int, who: int) -> bytes:
        assert command >> 8 == 0x800007 and os.path.samestat(os.fstat(fd), os.stat(tmp_path))
        asked.append((command & 0xFF, who))
        return answers[command & 0xFF]

    assert free_space.quota_left(str(tmp_path), ask=ask) == (70 << 10, 50)
    assert asked == [(USER, 1000), (GROUP, os.getegid())]


def test_a_quota_is_the_most_that_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = free_space.space(str(tmp_path / "not" / "there"))  # the kernel is really asked
    assert before.size > 0 and before.inodes > 0
    monkeypatch.setattr(free_space, "quota_left", lambda path: (5, 6))
    assert free_space.space(str(tmp_path / "not" / "there")) == free_space.Space(before.device, 5, 6)


def test_root_has_no_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert free_space.quota_left(str(tmp_path), ask=lambda fd, command, who: answer(1, 1, 0, (1, 1, 0))) == (None, None)


def test_a_file_system_that_counts_no_blocks_has_no_end() -> None:
    assert os.statvfs("/proc").f_blocks == 0  # as ramfs and many network file systems
    found = free_space.space("/proc")
    assert (found.size, found.inodes) == (free_space.UNLIMITED, free_space.UNLIMITED)
