"""The tar that is made of an image's metadata gives the same tree again, whoever unpacks it."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci import _extract
from fastoci.errors import ImagePathError
from fastoci.testing.trees import differences, listing
from fastoci.unpack.erofs_reader import ErofsReader
from fastoci.unpack.erofs_tar import TarStream, needed
from support.scratch import opened, scratch

ROOT_USER = os.geteuid() == 0


def stream(image: Path, path: bytes = b"/") -> io.BufferedReader:
    file = io.FileIO(image)
    return io.BufferedReader(TarStream(ErofsReader(file.fileno(), "image"), path, {0: file}, "image"))


def test_the_tar_gives_the_tree_again(erofs_image: tuple[Path, Path]) -> None:
    tree, image = erofs_image
    with stream(image) as tar, scratch("export") as root, opened(root) as fd:
        bounds = {"max_entries": 100_000, "max_bytes": 1 << 30, "max_directories": 1000}
        extractor = _extract.Extractor(fd, owners=ROOT_USER, privileged=ROOT_USER, base=False, **bounds)
        while data := tar.read(10_007):
            assert extractor.feed(data) == 0
        assert extractor.finish() == 0
        extractor.close()
        assert differences(listing(tree), listing(root)) == []


def test_gnu_tar_reads_it(erofs_image: tuple[Path, Path], peer: Callable[[str], str]) -> None:
    tree, image = erofs_image
    with stream(image) as tar, scratch("export") as root:
        command = [peer("tar"), "-xpf", "-", "-C", f"{root}", "--xattrs", "--xattrs-include=*", "--numeric-owner"]
        subprocess.run(command, input=tar.read(), check=True)
        assert differences(listing(tree), listing(root)) == []


def test_it_is_the_same_each_time_and_sorted(erofs_image: tuple[Path, Path]) -> None:
    digests = set()
    for size in (511, 1 << 20):
        with stream(erofs_image[1], b"a") as tar:
            data = b""
            while piece := tar.read(size):
                data += piece
            digests.add(hashlib.sha256(data).hexdigest())
    assert len(digests) == 1
    with tarfile.open(fileobj=io.BytesIO(data)) as found:
        names = found.getnames()
        assert names == sorted(names)
        assert names[0] == "a"
        first, second = found.getmember("a/b/second"), found.getmember("a/file")
        assert (first.isreg(), second.islnk(), second.linkname) == (True, True, "a/b/second")


def test_one_file_is_a_tar_of_one_entry(erofs_image: tuple[Path, Path]) -> None:
    with stream(erofs_image[1], b"/bin/sh") as tar, tarfile.open(fileobj=io.BytesIO(tar.read())) as found:
        assert found.getnames() == ["usr/bin/sh"]
        file = found.extractfile("usr/bin/sh")
        assert file is not None
        assert file.read() == b"a shell"
    with pytest.raises(ImagePathError), stream(erofs_image[1], b"nothing") as tar:
        tar.read()


def test_nothing_is_needed_of_devices_that_there_are_not(erofs_image: tuple[Path, Path]) -> None:
    with io.FileIO(erofs_image[1]) as file:
        assert needed(ErofsReader(file.fileno(), "image"), b"/", threading.Event()) == {}
