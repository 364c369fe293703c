"""Making, adopting, checking and refusing a store's directory."""

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fastoci.errors import StoreError
from fastoci.image.layout import OCI_LAYOUT
from fastoci.store.opening import open_store


def _tree(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode) for path in [root, *root.rglob("*")]}


def test_a_new_store_has_its_files_and_modes_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        open_store(tmp_path / "a" / "store")
    finally:
        os.umask(before)
    assert _tree(tmp_path / "a" / "store") == {
        ".": 0o755,
        ".lock": 0o600,
        "blobs": 0o755,
        "blobs/sha256": 0o755,
        "fastoci.json": 0o644,
        "index.json": 0o644,
        "ingest": 0o700,
        "leases": 0o700,
        "oci-layout": 0o644,
        "refs": 0o755,
    }
    assert json.loads((tmp_path / "a" / "store" / "fastoci.json").read_bytes()) == {"format": 1}


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    open_store(tmp_path / "store")
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    open_store(tmp_path / "store")
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == before


def test_many_processes_make_one_store(tmp_path: Path) -> None:
    code = "import sys, pathlib; from fastoci.store.opening import open_store; open_store(pathlib.Path(sys.argv[1]))"
    makers = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "store"]) for _ in range(6)]
    assert [maker.wait() for maker in makers] == [0] * 6
    assert not [name for name in os.listdir(tmp_path / "store") if name.endswith(".new")]


def test_threads_that_open_a_new_store_at_once_all_see_it_as_one(tmp_path: Path) -> None:
    stores = [tmp_path / str(number) for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for store in stores:
            for opened in pool.map(open_store, [store] * 8):
                opened.close()


@pytest.mark.parametrize("left", [[], [".lock"], [".lock", ".fastoci.json.new"], ["lost+found"]])
def test_an_empty_or_hardly_begun_directory_becomes_a_store(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_bytes(b"")
    open_store(tmp_path)
    assert (tmp_path / "fastoci.json").is_file()


@pytest.mark.parametrize("lost", ["oci-layout", "index.json", "ingest", "refs", "leases", "blobs"])
def test_a_store_made_half_is_completed(tmp_path: Path, lost: str) -> None:
    open_store(tmp_path)
    path = tmp_path / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    open_store(tmp_path)
    assert path.exists()


def test_an_oci_layout_is_adopted_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "oci-layout").write_bytes(OCI_LAYOUT)
    (tmp_path / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "blobs" / "sha256" / "00").write_text("x")
    open_store(tmp_path)
    assert (tmp_path / "index.json").read_text() == '{"schemaVersion":2,"manifests":[]}'
    assert (tmp_path / "blobs" / "sha256" / "00").read_text() == "x"
    assert (tmp_path / "fastoci.json").exists()


@pytest.mark.parametrize("layout", [None, b"{}", b"", b'{"imageLayoutVersion":"2.0.0"}'])
def test_a_foreign_directory_is_refused_and_untouched(tmp_path: Path, layout: bytes | None) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    if layout is not None:
        (tmp_path / "oci-layout").write_bytes(layout)
    before = _tree(tmp_path)
    with pytest.raises(StoreError, match="not a store") as caught:
        open_store(tmp_path)
    assert caught.value.path == str(tmp_path)
    assert _tree(tmp_path) == before


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ('{"format": 2}', "format 2 is newer than 1"),
        ('{"format": true}', "names no format"),
        ('{"format": "1"}', "names no format"),
        ('{"format": 0}', "names no format"),
        ("[]", "names no format"),
        ("", "not JSON"),
        ("\xff", "not JSON"),
        ("[" * 60_000, "not JSON"),
    ],
)
def test_a_format_that_is_newer_or_none_is_refused(tmp_path: Path, mark: str, message: str) -> None:
    open_store(tmp_path)
    (tmp_path / "fastoci.json").write_bytes(mark.encode("latin-1"))
    with pytest.raises(StoreError, match=message) as caught:
        open_store(tmp_path)
    assert caught.value.path == str(tmp_path / "fastoci.json")


def test_unknown_fields_and_files_are_ignored(tmp_path: Path) -> None:
    open_store(tmp_path)
    (tmp_path / "fastoci.json").write_text('{"format": 1, "later": {}}')
    (tmp_path / "later").write_text("x")
    open_store(tmp_path)
    assert (tmp_path / "later").exists()


def test_a_file_and_a_link_are_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="not a directory"):
        open_store(tmp_path / "file")
    open_store(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(StoreError, match="symbolic link to real"):
        open_store(tmp_path / "link")


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "ingest", "refs"])
def test_a_directory_that_leads_out_of_the_store_is_refused(tmp_path: Path, name: str) -> None:
    store = tmp_path / "store"
    open_store(store)
    (store / name).rename(tmp_path / "elsewhere")
    (store / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreError, match="symbolic link"):
        open_store(store)


def test_a_directory_that_everyone_may_write_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path / "store")
    (tmp_path / "store" / "blobs").chmod(0o777)
    with pytest.raises(StoreError, match="by everyone"):
        open_store(tmp_path / "store")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
@pytest.mark.parametrize("name", [".", "blobs/sha256"])
def test_a_directory_of_another_user_is_refused(tmp_path: Path, name: str) -> None:
    open_store(tmp_path / "store")
    os.chown(tmp_path / "store" / name, 12345, 12345)
    with pytest.raises(StoreError, match="belongs to user 12345"):
        open_store(tmp_path / "store")


def test_a_read_only_store_opens_and_a_new_one_there_is_refused(
    tmp_path: Path, read_only: Callable[[Path], Path]
) -> None:
    (tmp_path / "place").mkdir()
    open_store(tmp_path / "place" / "store")
    place = read_only(tmp_path / "place")
    open_store(place / "store")
    with pytest.raises(StoreError, match="Read-only file system") as caught:
        open_store(place / "new")
    assert caught.value.path == str(place / "new")
