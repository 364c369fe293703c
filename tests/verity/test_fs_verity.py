"""The fs-verity digest, against hashlib, Debian's fsverity and a kernel that has it."""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci import _core
from fastoci.errors import StoreError
from fastoci.verity.fs_verity import BLOCK, FsVerity, enable_verity, measure_verity
from support.disks import disk

SIZES = pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="empty"),
        pytest.param(1, id="a byte"),
        pytest.param(BLOCK, id="a block"),
        pytest.param(BLOCK + 1, id="a block and a byte"),
        pytest.param(128 * BLOCK, id="a block of hashes"),
        pytest.param(128 * BLOCK + 1, id="two levels"),
    ],
)


def content(size: int) -> bytes:
    """Bytes of which no two blocks are equal."""
    return hashlib.shake_128(b"fs-verity").digest(size)


def plain_root(data: bytes, salt: bytes = b"") -> bytes:
    """The root as the definition has it, level by level."""
    while True:
        blocks = [data[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, len(data), BLOCK)]
        hashes = [hashlib.sha256(salt + block).digest() for block in blocks]
        if len(hashes) <= 1:
            return hashes[0] if hashes else bytes(32)
        data = b"".join(hashes)


def plain_digest(data: bytes) -> str:
    head = struct.pack("<BBBBIQ", 1, 1, 12, 0, 0, len(data))
    return f"sha256:{hashlib.sha256((head + plain_root(data)).ljust(256, bytes(1))).hexdigest()}"


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def digest(path: Path, fed: bytes = b"", piece: int = 1 << 20) -> str:
    """Of a file of which some bytes are fed before it is read."""
    verity = FsVerity()
    for at in range(0, len(fed), piece):
        verity.feed(fed[at : at + piece])
    with path.open("rb") as file:
        return verity.finish(file.fileno(), str(path))


@SIZES
def test_the_digest_is_that_of_the_definition(size: int, tmp_path: Path) -> None:
    data = content(size)
    path = written(tmp_path / "file", data)
    assert digest(path) == plain_digest(data)
    assert digest(path, data[BLOCK : size - 77]) == plain_digest(data)
    assert digest(path, data[BLOCK:], piece=77_777) == plain_digest(data)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="empty"),
        pytest.param(129 * BLOCK - 1, id="two levels"),
        pytest.param((128 * 128 + 1) * BLOCK, id="three levels"),
    ],
)
def test_the_tool_of_the_kernel_s_authors_says_the_same(size: int, tmp_path: Path, peer: Callable[[str], str]) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.write(content(size % (1 << 20)))
        file.truncate(size)
    said = subprocess.run([peer("fsverity"), "digest", "--compact", path], capture_output=True, text=True, check=True)
    assert digest(path) == f"sha256:{said.stdout.strip()}"


def test_a_buffer_of_the_pool_is_fed_as_it_is(tmp_path: Path) -> None:
    data = content(BLOCK + _core.BUFFER_SIZE)
    buffer = _core.Pool(_core.BUFFER_SIZE).take()
    assert buffer is not None
    buffer.append(data, BLOCK)
    verity = FsVerity()
    verity.feed(buffer)
    with written(tmp_path / "file", data).open("rb") as file:
        assert verity.finish(file.fileno(), "file") == plain_digest(data)
    buffer.release()


def test_a_file_that_cannot_be_read_is_an_error_of_the_store(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(StoreError, match="cannot read the-file"):
        FsVerity().finish(fd, "the-file")
    os.close(fd)


def test_a_tree_refuses_a_salt_or_a_first_block_that_is_too_long() -> None:
    with pytest.raises(ValueError, match="salt"):
        _core.VerityTree(bytes(33))
    with pytest.raises(ValueError, match="block"):
        _core.VerityTree().finish(bytes(BLOCK + 1))


def test_a_file_system_without_fs_verity_says_so(tmp_path: Path) -> None:
    path = written(Path("/dev/shm") / f"fs-verity-{os.getpid()}", b"data")
    try:
        with path.open("rb") as file:
            assert enable_verity(file.fileno(), "file") is False
            assert measure_verity(file.fileno()) is None
    finally:
        path.unlink()


def test_the_kernel_enables_what_was_computed(tmp_path: Path) -> None:
    data = content(300 * BLOCK + 9)
    with disk(tmp_path, "ext4", 64 << 20, "-O", "verity") as mounted:
        path = written(mounted / "file", data)
        with path.open("rb+") as writer, path.open("rb") as file:
            if not os.path.exists("/sys/fs/ext4/features/verity"):
                assert enable_verity(file.fileno(), "file") is False
                pytest.skip("this kernel has no fs-verity")
            with pytest.raises(StoreError, match="cannot enable fs-verity of file") as busy:
                enable_verity(file.fileno(), "file")
            assert busy.value.errno == errno.ETXTBSY
            writer.close()
            assert measure_verity(file.fileno()) is None
            assert enable_verity(file.fileno(), "file")
            assert enable_verity(file.fileno(), "file"), "a second time changes nothing"
            assert measure_verity(file.fileno()) == digest(path) == plain_digest(data)
