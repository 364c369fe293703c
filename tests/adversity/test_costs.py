"""What a layer of at most 1 MiB costs: CPU, memory and disk, or it is refused with a typed error.

Each layer asks for as much as its few bytes can of one kind of work. The short form has smaller layers; all of it:
``FASTOCI_COSTS=all``.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest
import zstandard

from fastoci import _extract
from support.scratch import SOURCE, scratch

EVERYTHING = os.environ.get("FASTOCI_COSTS") == "all"  # before the fixture that cleans the environment
COMPRESSED = 1 << 20 if EVERYTHING else 32 << 10
MOST_TAR = 6 << 30 if EVERYTHING else 16 << 20
UNPACKED = 256 << 20  # --max-unpacked
CPU_S = 30
MEMORY = 256 << 20
INODE = 8 << 10  # of the disk, for a name

# What the command used, of memory since it was executed, told to a file that is named last.
CHILD = """
import resource, sys
from fastoci.cli.main import main
report = sys.argv.pop()
try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    open(report, "w").write(f"{int(1000 * (used.ru_utime + used.ru_stime))} {int(peak.split()[1]) * 1024}")
"""


class Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def header(name: str, kind: str = "0", size: int = 0, link: str = "") -> bytes:
    """One ustar header."""
    block = bytearray(512)
    block[0 : len(name)] = name.encode()
    block[100:108], block[108:116], block[116:124] = b"0000755\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = b"%011o\0" % size, b"00000001750\0"
    block[148:156] = b" " * 8
    block[156:157] = kind.encode()
    block[157 : 157 + len(link)] = link.encode()
    block[257:265] = b"ustar\x0000"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def records(fields: dict[str, bytes], kind: str = "x") -> bytes:
    """An extended header."""
    text = b""
    for key, value in fields.items():
        body = b" " + key.encode() + b"=" + value + b"\n"
        length = len(body) + 1
        while len(str(length)) + len(body) != length:
            length = len(str(length)) + len(body)
        text += str(length).encode() + body
    return header("x", kind, len(text)) + padded(text)


def long_name(name: str, kind: str = "0", link: str = "") -> bytes:
    fields = {"path": name.encode()} | ({"linkpath": link.encode()} if link else {})
    return records(fields) + header("x", kind)


def again(*blocks: bytes) -> Iterator[bytes]:
    block = b"".join(blocks)
    return itertools.repeat(block * max(1, (64 << 10) // len(block)))


def deep_directories() -> Iterator[bytes]:
    for number in itertools.count():
        yield long_name(f"{number}{'/d' * 2000}/f")


def two_deep_ways() -> Iterator[bytes]:
    return again(*(long_name(f"{name}{'/d' * 2000}/f") for name in "ab"))


def many_deep_ways() -> Iterator[bytes]:
    return again(*(long_name(f"{number}{'/d' * 2000}/f") for number in range(40)))


def links_through_links() -> Iterator[bytes]:
    yield header("l0", "2", link=".")
    for number in range(1, 250):
        yield header(f"l{number}", "2", link=f"l{number - 1}")
    yield from again(header("l249/f") + header("f"))


def links_with_long_ways() -> Iterator[bytes]:
    yield long_name("d/" * 1000, "5")
    for number in range(8):
        yield long_name(f"l{number}", "2", "d/../" * 400 + (f"l{number - 1}" if number else "d"))
    yield from again(header("l7/f") + header("f"))


def many_directories() -> Iterator[bytes]:
    for number in itertools.count():
        yield header(f"{number:x}/", "5")


def many_files() -> Iterator[bytes]:
    for number in itertools.count():
        yield header(f"{number:x}")


def one_file_again_and_again() -> Iterator[bytes]:
    return again(header("f"))


def a_file_in_the_place_of_a_directory() -> Iterator[bytes]:
    return again(header("d/", "5") + b"".join(header(f"d/{number}") for number in range(50)) + header("d"))


def hard_links_across_deep_ways() -> Iterator[bytes]:
    yield long_name(f"a{'/d' * 1000}/f")
    yield long_name(f"b{'/d' * 1000}/f")
    yield from again(long_name(f"b{'/d' * 1000}/g", "1", f"a{'/d' * 1000}/f") + header("other/f"))


def whiteouts_of_a_wide_directory() -> Iterator[bytes]:
    one = header("wide/.wh..wh..opq") + header("other/f")
    return again(*(header(f"wide/n{number}") + header(f"wide/.wh.{number}") + one for number in range(3000)))


def attributes_of_all_names() -> Iterator[bytes]:
    return again(records({f"SCHILY.xattr.user.{number}": b"1" for number in range(512)}) + header("f"))


def attributes_of_directories() -> Iterator[bytes]:
    return again(records({f"SCHILY.xattr.user.{number}": b"1" * 200 for number in range(100)}) + header("d/", "5"))


def large_attributes() -> Iterator[bytes]:
    fields = records({f"SCHILY.xattr.trusted.{number}": b"x" * 60000 for number in range(8)})
    for number in itertools.count():
        yield fields + header(f"f{number}")


def names_as_long_as_they_may_be() -> Iterator[bytes]:
    return again(long_name("l", "2", "x" * 4000) + header("d/l"))


def records_that_nobody_asked_for() -> Iterator[bytes]:
    return again(header("x", "x", 1 << 20) + b"8 a=bcd\n" * (1 << 17) + header("f"))


def global_records() -> Iterator[bytes]:
    return again(header("g", "g", 1 << 20) + b"8 a=bcd\n" * (1 << 17))


def sparse_files_of_single_bytes() -> Iterator[bytes]:
    count = 60000
    text = f"{count}\n" + "".join(f"{number * 8192}\n1\n" for number in range(count))
    body = padded(text.encode()) + b"x" * count
    fields = {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"%d" % (count * 8192)}
    return again(records(fields) + header("s", "0", len(body)) + padded(body))


def sparse_maps_without_data() -> Iterator[bytes]:
    count = 60000
    body = padded((f"{count}\n" + "0\n0\n" * count).encode())
    fields = {"GNU.sparse.major": b"1", "GNU.sparse.minor": b"0", "GNU.sparse.realsize": b"1"}
    return again(records(fields) + header("s", "0", len(body)) + body)


def a_file_of_zeros() -> Iterator[bytes]:
    yield header("zeros", "0", 0o77777777777)
    while True:
        yield bytes(1 << 20)


def nothing_but_padding() -> Iterator[bytes]:
    yield header("f") + bytes(1024)
    while True:
        yield bytes(1 << 20)


LAYERS: list[Callable[[], Iterator[bytes]]] = [
    deep_directories,
    two_deep_ways,
    many_deep_ways,
    links_through_links,
    links_with_long_ways,
    many_directories,
    many_files,
    one_file_again_and_again,
    a_file_in_the_place_of_a_directory,
    hard_links_across_deep_ways,
    whiteouts_of_a_wide_directory,
    attributes_of_all_names,
    attributes_of_directories,
    large_attributes,
    names_as_long_as_they_may_be,
    records_that_nobody_asked_for,
    global_records,
    sparse_files_of_single_bytes,
    sparse_maps_without_data,
    a_file_of_zeros,
    nothing_but_padding,
]


def gzip() -> Packer:
    return zlib.compressobj(6, wbits=31)


def zstd() -> Packer:
    """Repeated bytes cost next to nothing."""
    return zstandard.ZstdCompressor(level=3).compressobj()


def packed(pieces: Iterator[bytes], packer: Packer) -> bytes:
    """As much of a tar as fits."""
    made, size, read = [], 0, 0
    for piece in pieces:
        made.append(packer.compress(piece))
        size += len(made[-1])
        read += len(piece)
        if size > COMPRESSED * 0.85 or read > MOST_TAR:  # a packer holds some back
            break
    return b"".join([*made, packer.compress(bytes(1024)), packer.flush()])


def lower() -> bytes:
    """A layer below: a wide directory."""
    return b"".join(header(f"wide/{number}") for number in range(3000)) + bytes(1024)


def disk(root: Path) -> tuple[int, int]:
    """Bytes and names of a tree, however deep."""
    size = names = 0
    pending = [os.open(root, os.O_RDONLY | os.O_DIRECTORY)]
    while pending:
        directory = pending.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                names += 1
                size += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False) and len(pending) < 500:
                    pending.append(os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=directory))
        os.close(directory)
    return size, names


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pack", [gzip, zstd] if EVERYTHING else [gzip], ids=lambda pack: pack.__name__)
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.__name__)
@pytest.mark.attack
def test_a_small_layer_costs_little_or_is_refused(
    layer: Callable[[], Iterator[bytes]], pack: Callable[[], Packer]
) -> None:
    with scratch("costs") as place:
        (place / "lower.tar").write_bytes(lower())
        (place / "layer").write_bytes(packed(layer(), pack()))
        assert (place / "layer").stat().st_size <= 1 << 20
        command = [sys.executable, "-c", CHILD, "apply", "--progress", "none", "--max-unpacked", str(UNPACKED)]
        done = subprocess.run(
            [*command, place / "root", place / "lower.tar", place / "layer", place / "report"],
            env={**os.environ, "PYTHONPATH": str(SOURCE)},
            capture_output=True,
            text=True,
            check=False,
        )
        cpu, memory = map(int, (place / "report").read_text().split())
        size, names = disk(place / "root")
        parent = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        _extract.remove_tree(parent, b"root")
        os.close(parent)
    print(f"{cpu} ms, {memory >> 20} MiB, {size >> 20} MiB of disk, {names} names: {done.stderr[-200:] or 'accepted'}")
    assert done.returncode in (0, 6, 7), done.stderr  # not a tar; cannot become files
    assert cpu <= 1000 * CPU_S
    assert memory <= MEMORY
    assert size <= UNPACKED + INODE * names
