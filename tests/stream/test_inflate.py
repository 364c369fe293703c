"""What a layer is compressed with is read from its bytes, and both tiers of gzip say the same of every stream.

Covers: stream/deflate.py.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fastoci import _core, _inflate
from fastoci.errors import FormatError, UnsupportedError
from fastoci.stream.deflate import Deflate
from fastoci.stream.inflate import Inflate
from support.inflate_pieces import MIB, inflate_pieces

BODY = bytes(range(256)) * 4000

Run = Callable[..., bytes]


def inflate(data: bytes, step: int = MIB, *, deflate: type[Deflate] | None = None, allow: bool = False) -> bytes:
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    return inflate_pieces(pieces, deflate=deflate, allow=allow)


@pytest.fixture(params=[None, Deflate], ids=["symbols", "python-isal"])
def run(request: pytest.FixtureRequest) -> Run:
    """``inflate`` over either tier of gzip."""
    return lambda data, step=MIB: inflate(data, step, deflate=request.param)


def zstd(data: bytes, window_log: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=window_log, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return stream.compress(data) + stream.flush()


@pytest.mark.parametrize("data", [gzip.compress(BODY), zstandard.compress(BODY), BODY], ids=["gzip", "zstd", "plain"])
@pytest.mark.parametrize("step", [1000, 1 << 20])
def test_every_compression_comes_out_whole(run: Run, data: bytes, step: int) -> None:
    assert run(data, step) == BODY


@pytest.mark.parametrize("step", [7, 4096, MIB])
def test_all_members_are_read(run: Run, step: int) -> None:
    members = [gzip.compress(BODY), gzip.compress(b""), gzip.compress(BODY, 0), gzip.compress(b"x" * 100)]
    assert run(b"".join(members), step) == BODY + BODY + b"x" * 100


def test_a_gzip_header_with_every_field_is_read_and_its_checksum_held(run: Run) -> None:
    content = gzip.compress(BODY)[10:]
    fields = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x05\0extra" + b"name" * 600 + b"\0comment\0"
    checksum = (zlib.crc32(fields) & 0xFFFF).to_bytes(2, "little")
    assert run(fields + checksum + content, 11) == BODY
    with pytest.raises(FormatError, match="header is damaged"):
        run(fields + b"\0\0" + content)


def test_a_wrong_trailer_is_refused(run: Run) -> None:
    data = gzip.compress(BODY)
    with pytest.raises(FormatError, match="checksum of a gzip member"):
        run(data[:-8] + b"\0\0\0\0" + data[-4:])
    with pytest.raises(FormatError, match="length at the end of a gzip member"):
        run(data[:-1] + b"\xff")


@pytest.mark.parametrize("step", [5, MIB])
def test_garbage_after_a_member_is_refused(run: Run, step: int) -> None:
    with pytest.raises(FormatError, match="begin no other one"):
        run(gzip.compress(b"x" * 100) + b"\0" * 512, step)


def test_a_member_cut_anywhere_is_an_error_and_never_an_end(run: Run) -> None:
    data = gzip.compress(BODY[:400])
    for size in range(4, len(data)):
        with pytest.raises(FormatError, match="ends early"):
            run(data[:size], 64)


def _outcome(data: bytes, step: int, deflate: type[Deflate] | None) -> bytes | str:
    try:
        return inflate(data, step, deflate=deflate)
    except FormatError as error:
        return str(error).partition(" (at byte")[0]


@given(st.binary(max_size=5000), st.integers(0, 300), st.integers(1, 255), st.integers(1, 200), st.integers(0, 9))
def test_both_tiers_say_the_same_of_a_damaged_member(body: bytes, at: int, flip: int, step: int, level: int) -> None:
    data = bytearray(gzip.compress(body, level, mtime=0) + gzip.compress(b"second", mtime=0))
    data[4 + at % (len(data) - 4)] ^= flip
    assert _outcome(bytes(data), step, None) == _outcome(bytes(data), step, Deflate)


def test_a_bomb_of_python_isal_costs_a_piece_at_a_time() -> None:
    pool = _core.Pool(2 * _core.BUFFER_SIZE)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    source.append(gzip.compress(bytes(64 * MIB)))
    made: list[int] = []

    class Watched(Deflate):
        def run(self, source: bytes, room: int) -> tuple[bytes, int]:
            result = super().run(source, room)
            made.append(len(result[0]) + len(source))
            return result

    stream = _inflate.Inflate("gzip", window=0, deflate=Watched)
    stream.run(source, 0, out)
    assert len(out) == _inflate.WINDOW_SIZE
    assert 0 < max(made) <= 64 << 10


def test_an_error_of_a_decoder_that_is_not_about_the_data_is_raised_as_it_is() -> None:
    pool = _core.Pool(2 * _core.BUFFER_SIZE)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    source.append(gzip.compress(BODY))

    class Broken(Deflate):
        def run(self, source: bytes, room: int) -> tuple[bytes, int]:
            raise KeyboardInterrupt

    stream = _inflate.Inflate("gzip", window=0, deflate=Broken)
    with pytest.raises(KeyboardInterrupt):
        stream.run(source, 0, out)


@pytest.mark.parametrize("said", [(b"", -17), (b"x", -17), (b"x", -1), (b"", 0)])
def test_what_a_decoder_cannot_have_done_is_damage(said: tuple[bytes, int]) -> None:
    class Liar(Deflate):
        def run(self, source: bytes, room: int) -> tuple[bytes, int]:
            return said

    with pytest.raises(FormatError, match="the compressed data is damaged"):
        inflate(gzip.compress(BODY), deflate=Liar)


@pytest.mark.parametrize(("made", "taken"), [(1, 1 << 40), ((32 << 10) + 1, 1)])
def test_more_than_a_decoder_was_given_is_its_fault(made: int, taken: int) -> None:
    class Liar(Deflate):
        def run(self, source: bytes, room: int) -> tuple[bytes, int]:
            return bytes(made), taken

    with pytest.raises(AssertionError, match="more than there was"):
        inflate(gzip.compress(BODY), deflate=Liar)


def test_where_no_symbols_can_be_bound_gzip_goes_through_python_isal_and_zstd_is_refused() -> None:
    program = (
        "from fastoci.stream import inflate; from fastoci.errors import UnsupportedError\n"
        "from fastoci import _core, _inflate\n"
        "inflate._LIBRARIES.update(gzip=('json', '/nowhere'), zstd=('json', '/nowhere'))\n"
        "print(inflate.bind_decoders()['gzip'], inflate.bind_decoders()['zstd'])\n"
        "import gzip, zstandard\n"
        "buffer, out = (pool := _core.Pool(2 << 20)).take(), pool.take()\n"
        "buffer.append(gzip.compress(b'content'))\n"
        "stage = inflate.Inflate(window=8 << 20)\n"
        "stage.take(buffer); stage.fill(out); stage.finish(); print(bytes(out))\n"
        "buffer.clear(); buffer.append(zstandard.compress(b'content'))\n"
        "try: inflate.Inflate(window=8 << 20).take(buffer)\n"
        "except UnsupportedError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[:2] == ["python-isal none", "b'content'"], done.stderr
    assert "no zstd decoder on this machine" in done.stdout


@pytest.mark.parametrize("step", [4, 9, MIB])
def test_a_zstd_frame_that_demands_a_larger_window_waits_until_it_is_allowed(step: int) -> None:
    small, large = zstd(b"small" * 50, 20), zstd(BODY, 24)
    assert inflate(small + large + small, step, allow=True) == b"small" * 50 + BODY + b"small" * 50
    with pytest.raises(FormatError, match=f"demands a window of {16 * MIB} bytes, {8 * MIB} are allowed"):
        inflate(small + large, step)


def test_what_a_frame_demands_is_a_fact_before_its_content_is_read() -> None:
    pool = _core.Pool(2 * _core.BUFFER_SIZE)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    source.append(zstd(BODY, 27))
    stage = Inflate(window=8 * MIB)
    stage.take(source)
    assert stage.demanded == 0
    assert stage.fill(out)
    assert (stage.demanded, len(out)) == (128 * MIB, 0)
    stage.allow(64 * MIB)
    assert stage.demanded == 128 * MIB
    stage.allow(128 * MIB)
    assert stage.demanded == 0
    assert not stage.fill(out) or len(out) == _core.BUFFER_SIZE
    assert bytes(out) == BODY[: len(out)]
    stage.close()
    stage.close()


@pytest.mark.parametrize("head", [b"BZh91AY", b"\xfd7zXZ\0", b"PK\x03\x04"])
def test_other_compressions_are_refused_by_name(run: Run, head: bytes) -> None:
    with pytest.raises(UnsupportedError, match="layers are tar, gzip or zstd"):
        run(head + bytes(100))


@pytest.mark.parametrize("head", ["27b52ffd", "26b52ffd", "25b52ffd", "1eb52ffd"], ids=["v0.7", "v0.6", "v0.5", "v0.1"])
def test_a_zstd_frame_of_a_format_before_1_0_is_refused(head: str) -> None:
    with pytest.raises(FormatError, match="damaged"):
        inflate(zstandard.compress(BODY) + bytes.fromhex(head) + bytes(100))


def test_a_cut_layer_raises_format_error_with_the_offset(run: Run) -> None:
    data = gzip.compress(BODY)
    with pytest.raises(FormatError, match=f"ends early .at byte {len(data) - 9} "):
        run(data[:-9])


def test_a_layer_of_no_bytes_is_a_tar_of_no_entries(run: Run) -> None:
    assert run(b"") == b""
