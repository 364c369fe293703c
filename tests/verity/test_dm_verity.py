"""Hash trees of dm-verity, against Debian's veritysetup. No device-mapper here: files alone are checked."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from fastoci.errors import StoreError
from fastoci.verity.dm_verity import BLOCK, SALT, Appended, append
from support.disks import disk

Peer = Callable[[str], str]
UUID_ = UUID("00112233-4455-6677-8899-aabbccddeeff")


def made(path: Path, blocks: int) -> Path:
    """A file of so many blocks, no two of which are equal."""
    path.write_bytes(hashlib.shake_128(b"dm-verity").digest(blocks * BLOCK))
    return path


def appended(path: Path) -> Appended:
    fd = os.open(path, os.O_RDWR)
    try:
        return append(fd, str(path), UUID_)
    finally:
        os.close(fd)


@pytest.mark.parametrize("blocks", [1, 2, 128, 129, 4000], ids=["one", "two", "one level", "two levels", "many"])
def test_the_same_bytes_come_from_veritysetup(blocks: int, tmp_path: Path, peer: Peer) -> None:
    ours, theirs, root = made(tmp_path / "ours", blocks), made(tmp_path / "theirs", blocks), tmp_path / "root"
    options = ["--hash=sha256", f"--salt={SALT.hex()}", f"--uuid={UUID_}", f"--data-blocks={blocks}"]
    sizes = [f"--data-block-size={BLOCK}", f"--hash-block-size={BLOCK}", f"--hash-offset={blocks * BLOCK}"]
    command = [peer("veritysetup"), "format", *options, *sizes, f"--root-hash-file={root}", str(theirs), str(theirs)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found = appended(ours)
    assert found.root == root.read_text().strip()
    assert found.size == ours.stat().st_size
    assert ours.read_bytes() == theirs.read_bytes()


def verified(peer: Peer, path: Path, found: Appended) -> int:
    command = [peer("veritysetup"), "verify", f"--hash-offset={found.offset}", str(path), str(path), found.root]
    return subprocess.run(command, check=False, capture_output=True).returncode


def test_veritysetup_verifies_what_was_appended_and_finds_a_byte_that_changed(tmp_path: Path, peer: Peer) -> None:
    path = made(tmp_path / "file", 300)
    found = appended(path)
    assert verified(peer, path, found) == 0
    for at in (0, 100 * BLOCK + 7, 300 * BLOCK - 1, found.size - 3 * BLOCK):
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        (tmp_path / "changed").write_bytes(data)
        assert verified(peer, tmp_path / "changed", found) != 0, at


def test_the_sidecar_says_what_containerd_reads(tmp_path: Path) -> None:
    found = appended(made(tmp_path / "file", 3))
    assert json.loads(found.sidecar()) == {"roothash": found.root, "hashoffset": 3 * BLOCK}
    assert found.size == 5 * BLOCK, "a superblock and one block of hashes"


@pytest.mark.parametrize("size", [0, BLOCK + 512], ids=["empty", "half a block"])
def test_a_file_that_is_not_of_whole_blocks_is_refused_and_stays(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    with pytest.raises(StoreError, match="not whole blocks"):
        appended(path)
    assert path.stat().st_size == size


def test_a_full_disk_is_an_error_of_the_store(tmp_path: Path) -> None:
    with disk(tmp_path, "ext4", 4 << 20, "-b", "4096", "-O", "^has_journal") as mounted:
        path = made(mounted / "file", 300)
        with (mounted / "rest").open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(BLOCK))
        with pytest.raises(StoreError, match=r"cannot append a hash tree to .*No space left"):
            appended(path)
