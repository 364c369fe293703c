"""On ordinary archives the tar reader and CPython's tarfile say the same, whoever made them."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci import _extract

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
TYPES = {
    tarfile.REGTYPE: "f",
    tarfile.AREGTYPE: "f",
    tarfile.CONTTYPE: "f",
    tarfile.GNUTYPE_SPARSE: "f",
    tarfile.DIRTYPE: "d",
    tarfile.SYMTYPE: "l",
    tarfile.LNKTYPE: "h",
    tarfile.FIFOTYPE: "p",
    tarfile.CHRTYPE: "c",
    tarfile.BLKTYPE: "b",
}

# path, type, link, mode, uid, gid, size of a file, mtime_ns, device, xattrs
Facts = tuple[bytes, str, bytes, int, int, int, int, int, tuple[int, int], dict[bytes, bytes]]


def by_tarfile(archive: bytes) -> list[Facts]:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        return [_facts(member) for member in tar]


def _facts(member: tarfile.TarInfo) -> Facts:
    seconds = Decimal(member.pax_headers.get("mtime", str(member.mtime)))  # tarfile's own is a float
    xattrs = {
        os.fsencode(key.removeprefix("SCHILY.xattr.")): os.fsencode(value)
        for key, value in member.pax_headers.items()
        if key.startswith("SCHILY.xattr.")
    }
    device = (member.devmajor, member.devminor) if member.ischr() or member.isblk() else (0, 0)
    return (
        os.fsencode(member.name),
        TYPES[member.type],
        os.fsencode(member.linkname) if member.issym() or member.islnk() else b"",
        member.mode & 0o7777,
        member.uid,
        member.gid,
        member.size if member.isfile() else 0,
        int(seconds * 10**9),
        device,
        xattrs,
    )


def by_reader(archive: bytes, window: int) -> list[Facts]:
    reader = _extract.TarReader()
    for at in range(0, len(archive), window):
        assert _extract.TAR_CODES.get(reader.feed(archive[at : at + window])) is None
    assert _extract.TAR_CODES.get(reader.finish()) is None
    return [
        (
            entry.path.rstrip(b"/"),
            entry.type,
            entry.link,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.size,
            entry.mtime_ns,
            entry.device if entry.type in "cb" else (0, 0),
            entry.xattrs,
        )
        for entry in reader.entries()
    ]


# Any bytes but NUL and "/", as a file system has them: mostly short, sometimes longer than a header's field.
components = st.one_of(
    st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.binary(min_size=1, max_size=20).map(lambda name: os.fsdecode(name.translate(None, b"\0/") or b"x")),
    st.integers(1, 160).map("n".__mul__),
)
paths = st.lists(components, min_size=1, max_size=4).map("/".join)


@st.composite
def members(draw: st.DrawFn, kind: str) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(draw(paths))
    member.type = draw(st.sampled_from([type for type in TYPES if type not in (b"\0", tarfile.GNUTYPE_SPARSE)]))
    largest = 0o7777777 if kind == "ustar" else (1 << 32) - 2
    member.uid, member.gid = draw(st.integers(0, largest)), draw(st.integers(0, largest))
    member.mode = draw(st.integers(0, 0o7777))
    member.mtime = draw(st.integers(0 if kind == "ustar" else -(1 << 40), (1 << 33) - 1))
    content = b""
    if member.issym() or member.islnk():
        member.linkname = draw(paths)
    elif member.ischr() or member.isblk():
        member.devmajor, member.devminor = draw(st.integers(0, 4095)), draw(st.integers(0, 0o7777777))
    elif member.isfile():
        content = bytes(draw(st.integers(0, 3000)))
        member.size = len(content)
    if kind == "pax":
        names = st.text("abcdefghijklmnopqrstuvwxyz._", min_size=1, max_size=20)
        values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=40)
        xattrs = draw(st.dictionaries(names.map("SCHILY.xattr.user.".__add__), values, max_size=3))
        member.pax_headers = xattrs
        if draw(st.booleans()):
            member.pax_headers = {**xattrs, "mtime": f"{member.mtime}.{draw(st.integers(0, 10**9 - 1)):09d}"}
    return member, content


@pytest.mark.parametrize("kind", FORMATS)
@given(data=st.data(), window=st.integers(1, 3000))
def test_an_archive_of_tarfile_is_read_as_tarfile_reads_it(kind: str, data: st.DataObject, window: int) -> None:
    archive = io.BytesIO()
    written = 0
    with tarfile.open(
        fileobj=archive, mode="w:", format=FORMATS[kind], encoding="utf-8", errors="surrogateescape"
    ) as tar:
        for member, content in data.draw(st.lists(members(kind), max_size=5)):
            try:
                tar.addfile(member, io.BytesIO(content))
            except ValueError:  # a name that ustar has no room for
                assert kind == "ustar"
                continue
            written += 1
    expected = by_tarfile(archive.getvalue())
    assert len(expected) == written
    assert by_reader(archive.getvalue(), window) == expected


def _tree(root: Path) -> None:
    """Files of every kind that a user can make, with names and sizes beyond what a header holds."""
    (root / "dir" / ("d" * 90) / ("e" * 120)).mkdir(parents=True)
    (root / "dir" / ("d" * 90) / ("e" * 120) / "file").write_bytes(b"content")
    (root / "dir" / ("n" * 101)).write_bytes(b"x" * 513)
    (root / "dir" / "näme \udcff").write_bytes(b"")
    (root / "dir" / "hard").hardlink_to(root / "dir" / ("n" * 101))
    (root / "dir" / "soft").symlink_to("t" * 140)
    (root / "dir" / "odd").write_bytes(b"odd")
    (root / "dir" / "odd").chmod(0o6751)
    os.mkfifo(root / "dir" / "fifo")
    with (root / "dir" / "holes").open("wb") as file:
        for at in range(0, 40 << 20, 1 << 20):
            os.pwrite(file.fileno(), b"data", at)
    os.utime(root / "dir" / "odd", ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    os.utime(root / "dir" / "hard", ns=(-1_500_000_000, -1_500_000_000))


@pytest.mark.parametrize(
    "options",
    [
        ["--format=v7"],
        ["--format=oldgnu"],
        ["--format=gnu"],
        ["--format=ustar"],
        ["--format=posix"],
        ["--format=gnu", "--sparse"],
        ["--format=posix", "--sparse", "--sparse-version=0.0"],
        ["--format=posix", "--sparse", "--sparse-version=0.1"],
        ["--format=posix", "--sparse", "--sparse-version=1.0"],
        ["--format=gnu", "--owner=:3000000", "--group=:4000000000"],
        ["--format=posix", "--owner=:3000000", "--group=:4000000000"],
    ],
    ids=" ".join,
)
def test_an_archive_of_gnu_tar_is_read_as_tarfile_reads_it(options: list[str], tmp_path: Path) -> None:
    program = shutil.which("tar")
    if program is None or b"GNU tar" not in subprocess.run([program, "--version"], capture_output=True).stdout:
        pytest.skip("needs GNU tar")
    _tree(tmp_path)
    # v7 and ustar say on stderr what they have no room for, and leave it out
    command = [program, "-C", str(tmp_path), "--sort=name", "-cf", "-", *options, "dir"]
    archive = subprocess.run(command, capture_output=True, check=False).stdout
    expected = by_tarfile(archive)
    assert len(expected) >= 6
    assert by_reader(archive, 5000) == expected
