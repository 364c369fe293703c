"""Files of blobs come into a content store: whole, durable, and never over what is there."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastoci.containerd.blob_files import BlobFiles
from fastoci.errors import StoreError, StoreFullError
from fastoci.image.descriptor import Descriptor
from fastoci.threads import go_on
from support.disks import mounted

DATA = os.urandom(300_000)
BLOB = Descriptor.of(DATA, "application/vnd.oci.image.layer.v1.tar")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files away")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir(mode=0o700)
    return tmp_path / "root"


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "blob").write_bytes(DATA)
    (tmp_path / "blob").chmod(0o444)
    fd = os.open(tmp_path / "blob", os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def opened(root: Path) -> Iterator[BlobFiles]:
    found = BlobFiles(root, os.geteuid(), os.getpid())
    yield found
    found.close()


def there(root: Path) -> Path:
    return root / "blobs" / "sha256" / BLOB.digest.hex


def test_a_blob_becomes_a_link_once(opened: BlobFiles, root: Path, source: int) -> None:
    assert not opened.holds(BLOB)
    assert [opened.put(BLOB, source, go_on).is_new for _ in range(2)] == [True, False]
    assert opened.holds(BLOB)
    assert os.path.samestat(there(root).stat(), os.fstat(source))
    assert there(root).parent.stat().st_mode & 0o777 == 0o755


def test_a_content_store_that_has_had_no_blob_is_made_where_containerd_has_its_root(root: Path, source: int) -> None:
    """As containerd 1.7.34 leaves it to its first blob."""
    for place, is_made in ((root / "none yet", True), (root / "no root" / "none yet", False)):
        try:
            found = BlobFiles(place, os.geteuid(), os.getpid())
        except StoreError:
            assert not is_made
        else:
            found.close()
        assert place.is_dir() is is_made
    assert (root / "none yet").stat().st_mode & 0o777 == 0o755


def test_a_file_that_others_may_write_is_copied(opened: BlobFiles, root: Path, source: int) -> None:
    os.fchmod(source, 0o664)
    placed = opened.put(BLOB, source, go_on)
    assert (placed.way in ("copy", "reflink"), placed.why) == (True, "others may write the store's file")
    assert there(root).read_bytes() == DATA
    assert there(root).stat().st_mode & 0o777 == 0o444
    assert there(root).stat().st_ino != os.fstat(source).st_ino


@needs_root
def test_a_file_of_another_user_is_copied(opened: BlobFiles, root: Path, source: int) -> None:
    os.fchown(source, 12345, 12345)
    assert opened.put(BLOB, source, go_on).why == "the store's file belongs to user 12345"
    assert there(root).stat().st_uid == 0


def test_a_copy_that_is_ended_leaves_nothing(opened: BlobFiles, root: Path, source: int) -> None:
    def end() -> None:
        raise KeyboardInterrupt

    os.fchmod(source, 0o666)
    try:
        opened.put(BLOB, source, end)
    except KeyboardInterrupt:
        assert list(there(root).parent.iterdir()) == []


def test_a_file_of_another_size_is_damage(opened: BlobFiles, root: Path, source: int) -> None:
    there(root).parent.mkdir(parents=True)
    there(root).write_bytes(DATA[:-1])
    assert not opened.holds(BLOB)
    with pytest.raises(StoreError, match="content store is damaged"):
        opened.put(BLOB, source, go_on)
    assert there(root).read_bytes() == DATA[:-1]


@needs_root
def test_a_full_disk_is_said_and_leaves_nothing(root: Path, source: int) -> None:
    with mounted(root, "-t", "tmpfs", "-o", "size=100k,mode=700", "tmpfs"):
        small = BlobFiles(root, 0, 0)
        try:
            with pytest.raises(StoreFullError) as raised:
                small.put(BLOB, source, go_on)
            assert raised.value.errno == errno.ENOSPC
            assert list(there(root).parent.iterdir()) == []
        finally:
            small.close()


@needs_root
@pytest.mark.parametrize(("owner", "mode", "text"), [(12345, 0o700, "belongs to user"), (0, 0o777, "by everyone")])
def test_a_directory_that_is_not_containerds_alone_is_refused(root: Path, owner: int, mode: int, text: str) -> None:
    os.chown(root, owner, owner)
    root.chmod(mode)
    with pytest.raises(StoreError, match=text):
        BlobFiles(root, 0, 0)


def test_a_link_in_place_of_the_blobs_is_refused(root: Path, tmp_path: Path, source: int) -> None:
    (root / "blobs").symlink_to(tmp_path)
    found = BlobFiles(root, os.geteuid(), 0)
    try:
        with pytest.raises(StoreError):
            found.put(BLOB, source, go_on)
    finally:
        found.close()


def test_a_path_that_is_another_directory_for_containerd_is_refused(root: Path) -> None:
    script = f"mount -t tmpfs x {root} && echo mounted && exec cat"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as other:  # type: ignore[call-overload]
        if other.stdout.readline() != b"mounted\n":
            pytest.skip("no mount namespaces here")
        with pytest.raises(StoreError, match="another directory for containerd"):
            BlobFiles(root, os.geteuid(), other.pid)
        other.communicate()
