"""What a tree is not given, by a report beside it: of layers that are made by an extractor without rights.

tests/system/test_rootless.py does the same as another user.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fastoci import _extract
from fastoci.errors import StoreError
from fastoci.testing.layers import Entry, directory, hardlink, opaque, tar, whiteout
from fastoci.unpack import losses
from fastoci.unpack.losses import Lost, Notes, Settled
from fastoci.unpack.sorted_records import SortedRecords, TooManyError
from fastoci.unpack.target import report_name
from support.scratch import opened

RIGHTS: Any = {"owners": False, "privileged": False, "max_entries": 1 << 20, "max_bytes": 1 << 30}
CAPABILITY = ("security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
USER = os.geteuid()


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Notes]:
    (tmp_path / "private").mkdir()
    with opened(tmp_path / "private") as fd, closing(Notes.make(fd)) as made:
        yield made


def unpack(at: Path, notes: Notes, layers: Sequence[list[Entry]], *, staged: bool = False) -> Path:
    """Make a tree of layers, each at once or aside."""
    tree = at / "tree"
    tree.mkdir()
    with opened(tree) as root:
        for number, layer in enumerate(layers):
            extractor = _extract.Extractor(root, base=number > 0, max_directories=1 << 20, **RIGHTS)
            extractor.note(notes.native)
            data = b"".join(tar(layer))
            if staged:
                (at / f"stage{number}").mkdir()
                with opened(at / f"stage{number}") as aside:
                    stager = _extract.Stager(aside, **RIGHTS)
                    stager.note(notes.native)
                    assert (stager.feed(data), stager.finish()) == (0, 0)
                    assert extractor.adopt(stager, 1 << 30) == 0
                    stager.close()
            else:
                assert extractor.feed(data) == 0
            assert extractor.finish() == 0
            extractor.close()
    return tree


def settle(tree: Path, notes: Notes, limit: int = 1 << 20) -> tuple[dict[str, Lost], Settled]:
    with opened(tree) as root, opened(tree.parent / "private") as aside, closing(SortedRecords(aside, limit)) as lost:
        settled = losses.settle(root, notes.native, lost, stop=_extract.Stop())
        return {(each := Lost.parse(line)).path.decode(): each for _, line in lost}, settled


FIRST = [
    directory("dev"),
    Entry("dev/null", "character", mode=0o666, device=(1, 3)),
    Entry("dev/disk", "block", mode=0o660, gid=6, device=(8, 0)),
    hardlink("dev/again", "dev/null"),
    Entry("su", data=b"x", uid=12, mode=0o4755),
    Entry("mine", data=b"x", mode=0o644),
    Entry("theirs", data=b"x", uid=5, gid=6),
    Entry("closed", "directory", mode=0, uid=7, gid=7),
    Entry("closed/inner", "directory", mode=0o2755, gid=8),
    Entry("closed/inner/file", data=b"1", gid=9),
    Entry("capable", data=b"x", xattrs=(CAPABILITY, ("user.mine", b"1"))),
    Entry("link", "symlink", link="x", uid=3, mode=0o777),
    Entry("pipe", "fifo", uid=4, mode=0o600),
]


@pytest.mark.parametrize("staged", [False, True])
def test_what_is_not_given_is_told_and_devices_are_not_there(tmp_path: Path, notes: Notes, staged: bool) -> None:
    tree = unpack(tmp_path, notes, [FIRST], staged=staged)
    before = (tree / "dev").stat().st_mtime_ns
    found, settled = settle(tree, notes)
    facts = {path: (each.uid, each.gid, each.mode, each.device) for path, each in found.items()}
    assert list(facts.items()) == [
        ("capable", (0, 0, 0o644, None)),
        ("closed", (7, 7, 0, None)),
        ("closed/inner", (0, 8, 0o2755, None)),
        ("closed/inner/file", (0, 9, 0o644, None)),
        ("dev/again", (0, 0, 0o666, ("c", 1, 3))),
        ("dev/disk", (0, 6, 0o660, ("b", 8, 0))),
        ("dev/null", (0, 0, 0o666, ("c", 1, 3))),
        ("link", (3, 0, 0o777, None)),
        ("pipe", (4, 0, 0o600, None)),
        ("su", (12, 0, 0o4755, None)),
        ("theirs", (5, 6, 0o644, None)),
    ]
    assert found["capable"].xattrs == dict([CAPABILITY])
    assert found["dev/null"].mtime_ns == FIRST[1].mtime_ns
    assert settled.counts == {"owners": 7, "modes": 2, "devices": 3, "xattrs": 1}
    assert sorted(settled.devices) == ["dev/again", "dev/disk", "dev/null"]
    assert os.listdir(tree / "dev") == []
    assert (tree / "dev").stat().st_mtime_ns == before
    assert (tree / "closed").stat().st_mode & 0o7777 == 0
    assert os.stat(tree / "su").st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("staged", [False, True])
def test_what_layers_above_take_away_is_not_told(tmp_path: Path, notes: Notes, staged: bool) -> None:
    second = [
        whiteout("dev/null"),
        whiteout("theirs"),
        opaque("closed"),
        Entry("closed", "directory"),
        Entry("su", data=b"other", mode=0o755),
        Entry("dev/disk", data=b"a file"),
        *(Entry(f"new{number}", data=b"1") for number in range(100)),  # perhaps by the inodes of what is gone
        Entry("link", "symlink", link="y", gid=11, mode=0o777),
        Entry("dev/late", "character", device=(1, 5)),
    ]
    tree = unpack(tmp_path, notes, [FIRST, second, [whiteout("dev/late")]], staged=staged)
    found, settled = settle(tree, notes)
    assert list(found) == ["capable", "dev/again", "link", "pipe"]
    assert (found["link"].uid, found["link"].gid) == (0, 11)
    assert settled.devices == ("dev/again",)
    assert (tree / "dev" / "disk").read_bytes() == b"a file"


def test_an_inode_that_was_another_files_is_the_new_ones(tmp_path: Path, notes: Notes) -> None:
    """tmpfs and ext4 give the number of a removed file to the next."""
    layers = [[Entry(f"f{number}", data=b"1", uid=number % 2) for number in range(50)] for _ in range(6)]
    tree = unpack(tmp_path, notes, layers)
    assert sorted(settle(tree, notes)[0]) == sorted(f"f{number}" for number in range(1, 50, 2))


def test_the_root_and_directories_that_no_entry_names_are_told_as_they_are(tmp_path: Path, notes: Notes) -> None:
    tree = unpack(tmp_path, notes, [[Entry("./", "directory", mode=0o755, uid=9), Entry("a/b", data=b"", uid=1)]])
    found, _ = settle(tree, notes)
    assert {path: each.uid for path, each in found.items()} == {"": 9, "a/b": 1}


def test_a_deep_tree_is_walked_with_few_descriptors(tmp_path: Path, notes: Notes) -> None:
    deep = "/".join("d" * 500)
    tree = unpack(tmp_path, notes, [[Entry(f"{deep}/file", data=b"", uid=1)]])
    before = len(os.listdir("/proc/self/fd"))
    found = list(settle(tree, notes)[0])
    assert len(os.listdir("/proc/self/fd")) == before
    with opened(tmp_path) as fd:
        _extract.remove_tree(fd, b"tree")  # which is too deep for those who clean up
    assert found == [f"{deep}/file"]


def test_names_of_any_bytes_are_told(tmp_path: Path, notes: Notes) -> None:
    names = [b"new\nline", b"\xff\xfe", "\u00e4".encode(), b'"']
    tree = unpack(tmp_path, notes, [[Entry(os.fsdecode(name), data=b"", uid=1) for name in names]])
    with opened(tree) as root, opened(tmp_path) as aside, closing(SortedRecords(aside, 1 << 20)) as lost:
        losses.settle(root, notes.native, lost, stop=_extract.Stop())
        assert [Lost.parse(line).path for _, line in lost] == sorted(names)


def test_a_report_has_a_bound(tmp_path: Path, notes: Notes) -> None:
    tree = unpack(tmp_path, notes, [[Entry(f"{number}", data=b"", uid=1) for number in range(100)]])
    with pytest.raises(TooManyError):
        settle(tree, notes, limit=1000)


def test_a_stop_ends_it(tmp_path: Path, notes: Notes) -> None:
    tree = unpack(tmp_path, notes, [FIRST])
    stop = _extract.Stop()
    stop.set()
    with opened(tree) as root, closing(SortedRecords(root, 1 << 20)) as lost, pytest.raises(OSError, match="anceled"):
        losses.settle(root, notes.native, lost, stop=stop)


def reported(tmp_path: Path, notes: Notes) -> Path:
    tree = unpack(tmp_path, notes, [FIRST])
    with opened(tree) as root, opened(tmp_path / "private") as aside, closing(SortedRecords(aside, 1 << 20)) as lost:
        losses.settle(root, notes.native, lost, stop=_extract.Stop())
        with (tmp_path / report_name("tree")).open("wb") as file:
            losses.write_report(file.fileno(), lost, root, "sha256:" + "a" * 64)
    return tree


def test_a_report_is_read_as_it_was_written(tmp_path: Path, notes: Notes) -> None:
    tree = reported(tmp_path, notes)
    found = list(losses.read_report(tree))
    assert len(found) == 11
    assert found[0].xattrs == dict([CAPABILITY])
    assert list(losses.read_report(tmp_path / "private")) == []


def test_a_report_of_another_tree_is_refused(tmp_path: Path, notes: Notes) -> None:
    tree = reported(tmp_path, notes)
    tree.rename(tmp_path / "old")
    tree.mkdir()
    with pytest.raises(StoreError, match="is of another tree"):
        list(losses.read_report(tree))


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"path":1}', b'{"path":"a","uid":0,"gid":0,"mode":"x"}', b"\xff"])
def test_a_report_that_is_damaged_is_refused(tmp_path: Path, notes: Notes, line: bytes) -> None:
    tree = reported(tmp_path, notes)
    with (tmp_path / report_name("tree")).open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(StoreError, match="is damaged"):
        list(losses.read_report(tree))


@pytest.mark.skipif(USER != 0, reason="needs root, to make another user's file")
def test_a_report_of_another_user_is_refused(tmp_path: Path, notes: Notes) -> None:
    tree = reported(tmp_path, notes)
    os.chown(tmp_path / report_name("tree"), 65534, 65534)
    with pytest.raises(StoreError, match="not a file of this user"):
        list(losses.read_report(tree))


def test_lines_are_what_the_page_says() -> None:
    lost = Lost(b"dev/null", 0, 5, 0o4666, {"trusted.x": b"\0"}, ("c", 1, 3), 7)
    assert json.loads(lost.line()) == {
        "path": "dev/null",
        "uid": 0,
        "gid": 5,
        "mode": "4666",
        "xattrs": {"trusted.x": "AA=="},
        "device": "c",
        "major": 1,
        "minor": 3,
        "mtime_ns": 7,
    }
    assert Lost.parse(lost.line()) == lost
    plain = Lost(lost.path, lost.uid, lost.gid, lost.mode, {}, None, 0)
    assert Lost.parse(plain.line()) == plain
