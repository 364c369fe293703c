"""A gzip member may end anywhere: where a window is full, where a buffer ends, where both do, and next to there.

ISA-L reads up to eight bytes ahead, and hands them back at a member's end, also when an earlier call took them, out of
a buffer that is gone. How it does that depends on its version, so ``make oldest`` runs this with the oldest one, and
with all levels of zlib.
"""

from __future__ import annotations

import gzip
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import permutations, product
from pathlib import Path

import pytest
from isal import igzip

from fastoci import _core, _inflate
from fastoci.stream.deflate import Deflate
from fastoci.stream.inflate import bind_decoders
from support.inflate_pieces import inflate_pieces

Encode = Callable[[bytes], bytes]
Tier = type[Deflate] | None
Peer = Callable[[str], str]

WINDOW, BUFFER = _inflate.WINDOW_SIZE, _core.BUFFER_SIZE
READ_AHEAD, TRAILER = 8, 8
BODIES = [
    *(("zeros", size) for size in (0, 1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, BUFFER - 1, BUFFER, BUFFER + 1)),
    *(("words", size) for size in (5, WINDOW - 1, WINDOW, WINDOW + 1, BUFFER)),
    *(("noise", size) for size in (3, WINDOW)),
]
PROGRAMS = {
    "gzip": ("gzip", "-n"),
    **{f"pigz-{level}": ("pigz", "-n", f"-{level}") for level in (0, 1, 6, 9)},
    "pigz-independent": ("pigz", "-n", "-i", "-b", "128"),
    **{f"libdeflate-{level}": ("libdeflate-gzip", f"-{level}") for level in (1, 6, 12)},
    "zopfli": ("zopfli", "--i1"),
}
LEVELS = range(10) if os.environ.get("FASTOCI_MEMBER_ENDS") == "all" else (0, 1, 6, 9)
LIBRARIES: dict[str, Encode] = {
    **{f"zlib-{level}": partial(gzip.compress, compresslevel=level, mtime=0) for level in LEVELS},
    **{f"igzip-{level}": partial(igzip.compress, compresslevel=level, mtime=0) for level in range(4)},
}


@pytest.fixture(params=[None, Deflate], ids=["symbols", "python-isal"])
def tier(request: pytest.FixtureRequest) -> Tier:
    found: Tier = request.param
    return found


@cache
def body(kind: str, size: int) -> bytes:
    """Zeros end with long copies, words with short ones, noise with literals or stored."""
    rng = random.Random(size)
    if kind == "words":
        return b"".join(rng.choices([b"layer", b"blob", b"digest", b"\n", b"descriptor"], k=size))[:size]
    return bytes(size) if kind == "zeros" else rng.randbytes(size)


def cut(data: bytes, at: int, step: int = BUFFER) -> Iterator[bytes]:
    """In two, and each of them in pieces of at most ``step``."""
    for part in (data[:at], data[at:]):
        yield from (part[start : start + step] for start in range(0, len(part), step))


def check_ends(members: list[bytes], content: bytes, tier: Tier) -> None:
    """The content comes out whole when the input is cut in two near the end of any member."""
    data, end = b"".join(members), 0
    for member in members:
        end += len(member)
        last = end - TRAILER  # of the deflate data
        for at in range(max(4, last - READ_AHEAD - 2), last + TRAILER + READ_AHEAD + 2):
            assert inflate_pieces(cut(data, at), deflate=tier) == content, (at - end, len(content))


@pytest.mark.parametrize("encode", LIBRARIES.values(), ids=LIBRARIES)
def test_a_member_may_end_at_every_boundary_of_windows_and_buffers(encode: Encode, tier: Tier) -> None:
    for kind, size in BODIES:
        check_ends([encode(body(kind, size))], body(kind, size), tier)


@pytest.mark.parametrize("program", PROGRAMS)
def test_members_of_other_programs_may_end_there_too(program: str, tmp_path: Path, peer: Peer) -> None:
    name, *options = PROGRAMS[program]
    command, file = [peer(name), *options, "-c", str(tmp_path / "file")], tmp_path / "file"
    for kind, size in BODIES:
        if name == "zopfli" and size > WINDOW + 1:  # seconds each
            continue
        file.write_bytes(body(kind, size))
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        for tier in (None, Deflate):
            check_ends([done.stdout], body(kind, size), tier)


@pytest.mark.parametrize("encode", LIBRARIES.values(), ids=LIBRARIES)
def test_two_and_three_members_may_each_end_there(encode: Encode, tier: Tier) -> None:
    contents = [body("zeros", WINDOW), b"", body("words", 5)]
    for chosen in [*product(contents, repeat=2), *permutations(contents)]:
        check_ends([encode(content) for content in chosen], b"".join(chosen), tier)


@pytest.mark.parametrize("encode", LIBRARIES.values(), ids=LIBRARIES)
def test_pieces_of_one_byte_to_one_mebibyte_give_the_same(encode: Encode, tier: Tier) -> None:
    for kind, size in BODIES:
        content = body(kind, size)
        data = encode(content) * 2
        for step in (1, 2, 3, 7, 64, 4096, 65_537, BUFFER):
            if len(data) // step < 10_000:
                assert inflate_pieces([data[:4], *cut(data[4:], 0, step)], deflate=tier) == content * 2, (
                    kind,
                    size,
                    step,
                )


@pytest.mark.parametrize("step", [1, 7, 4096, BUFFER])
def test_what_is_consumed_never_shrinks_and_is_all_in_the_end(step: int, tier: Tier) -> None:
    data = gzip.compress(body("zeros", WINDOW)) + gzip.compress(body("words", WINDOW)) + gzip.compress(b"")
    pool = _core.Pool(2 * BUFFER)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    bind_decoders()
    stream = _inflate.Inflate("gzip", window=0, deflate=tier)
    for at in range(0, len(data), step):
        source.clear()
        source.append(data[at : at + step])
        start = 0
        while start < len(source) or len(out) == WINDOW:
            out.clear()
            consumed = stream.run(source, start, out)
            assert 0 <= consumed <= len(source) - start
            start += consumed
            assert stream.consumed == at + start
    assert stream.finish() == 0
    assert (stream.consumed, stream.produced) == (len(data), 2 * WINDOW)
    source.release()
    out.release()
