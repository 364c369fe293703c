"""The native inflater against its oracles, gzip and zstandard."""

from __future__ import annotations

import gzip

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fastoci import _core, _inflate
from fastoci.stream.inflate import bind_decoders

BUFFER = _core.BUFFER_SIZE


def inflate(data: bytes, form: str, step: int, window: int = 8 << 20) -> bytes | str:
    """All output, or the sentence of the error."""
    bind_decoders()
    pool = _core.Pool(2 * BUFFER)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    stream = _inflate.Inflate(form, window=window)
    result = bytearray()
    for at in range(0, len(data), step):
        source.clear()
        source.append(data[at : at + step])
        start = 0
        while True:
            consumed = stream.run(source, start, out)
            if consumed < 0:
                return _inflate.INFLATE_CODES[stream.code]
            start += consumed
            made = len(out)
            result += bytes(out)
            out.clear()
            if start == len(source) and made < _inflate.WINDOW_SIZE:
                break
    code = stream.finish()
    return _inflate.INFLATE_CODES[code] if code else bytes(result)


TEXT = b"".join(b"%d squared is %d\n" % (n, n * n) for n in range(60_000)) + bytes(400_000)
BODIES = {
    "gzip": [gzip.compress(TEXT), gzip.compress(b""), gzip.compress(TEXT[:100])],
    "zstd": [zstandard.compress(TEXT), b"\x50\x2a\x4d\x18\x03\0\0\0abc", zstandard.compress(TEXT[:100])],
}


@pytest.mark.parametrize("form", ["gzip", "zstd"])
@pytest.mark.parametrize("step", [7, 4096, BUFFER])
def test_all_members_and_frames_are_read(form: str, step: int) -> None:
    assert inflate(b"".join(BODIES[form]), form, step) == TEXT + TEXT[:100]


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_a_cut_anywhere_is_an_error_and_never_an_end(form: str) -> None:
    whole = {"gzip": gzip.compress(TEXT[:500]), "zstd": zstandard.compress(TEXT[:500])}[form]
    for size in range(len(whole)):
        assert isinstance(inflate(whole[:size], form, 64), str), size


@given(st.binary(min_size=1, max_size=40))
def test_garbage_after_a_gzip_member_is_refused(garbage: bytes) -> None:
    assert isinstance(inflate(gzip.compress(b"x") + b"\xff" + garbage, "gzip", 9), str)


@given(st.integers(0, 300), st.integers(1, 255))
def test_a_flipped_byte_in_a_gzip_member_is_found_or_harmless(at: int, flip: int) -> None:
    whole = bytearray(gzip.compress(TEXT[:2000], mtime=0))
    at %= len(whole)
    whole[at] ^= flip
    result = inflate(bytes(whole), "gzip", 50)
    assert isinstance(result, str) or result == TEXT[:2000]


def test_a_gzip_header_with_every_field_is_read_and_its_checksum_held() -> None:
    body = gzip.compress(TEXT[:100])
    fields = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x05\0extra" + b"name" * 600 + b"\0comment\0"
    crc = (__import__("zlib").crc32(fields) & 0xFFFF).to_bytes(2, "little")
    assert inflate(fields + crc + body[10:], "gzip", 11) == TEXT[:100]
    assert "header" in inflate(fields + b"\0\0" + body[10:], "gzip", 11)


@pytest.mark.parametrize("byte", [(2, 9), (3, 0x20), (3, 0x80)])
def test_a_gzip_header_of_an_unknown_kind_is_refused(byte: tuple[int, int]) -> None:
    body = bytearray(gzip.compress(b"x"))
    body[byte[0]] = byte[1]
    assert "header" in inflate(bytes(body), "gzip", 100)


def test_a_zstd_frame_may_not_demand_a_larger_window_than_allowed() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=False)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = stream.compress(TEXT) + stream.flush()
    assert "window" in inflate(frame, "zstd", BUFFER, window=8 << 20)
    assert inflate(frame, "zstd", BUFFER, window=16 << 20) == TEXT


def test_a_bomb_costs_one_window_at_a_time() -> None:
    bomb = zstandard.compress(bytes(300 << 20))
    bind_decoders()
    pool = _core.Pool(2 * BUFFER)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    source.append(bomb)
    stream = _inflate.Inflate("zstd", window=8 << 20)
    stream.run(source, 0, out)
    assert len(out) == _inflate.WINDOW_SIZE
