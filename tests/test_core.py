"""The native core against its oracles: gzip, zstandard; and the rules of pools and buffers. SHA-256: test_sha256.py."""

from __future__ import annotations

import gzip
import os
import threading

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fastoci import _core
from fastoci.stream.inflate import bind_decoders

BUFFER = _core.BUFFER_SIZE


def test_a_pool_hands_out_its_capacity_and_not_more() -> None:
    pool = _core.Pool(3 * BUFFER)
    buffers = [pool.take() for _ in range(4)]
    assert buffers[3] is None
    assert pool.in_use == pool.capacity == 3 * BUFFER
    assert buffers[0] is not None
    buffers[0].release()
    assert pool.take() is not None


def test_memory_that_is_set_aside_is_not_handed_out_until_it_is_put_back() -> None:
    pool = _core.Pool(4 * BUFFER)
    buffers = [pool.take(), pool.take()]
    released = []
    pool.on_release = lambda: released.append(pool.aside)
    assert not pool.set_aside(2 * BUFFER + 1), "two buffers are out"
    assert pool.aside == 0
    assert pool.set_aside(BUFFER + 1), "one buffer and a byte cost two buffers"
    assert (pool.aside, pool.in_use, pool.capacity) == (2 * BUFFER, 2 * BUFFER, 4 * BUFFER)
    assert pool.take() is None
    assert not pool.set_aside(1)
    with pytest.raises(ValueError, match="more than was set aside"):
        pool.put_back(3 * BUFFER)
    assert not released
    pool.put_back(BUFFER + 1)
    assert released == [0]
    buffers += [pool.take(), pool.take()]
    assert None not in buffers
    assert pool.take() is None


def test_setting_memory_aside_unmaps_the_free_buffers_it_takes_the_place_of() -> None:
    def mapped() -> int:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")

    pool = _core.Pool(64 * BUFFER)
    buffers = [pool.take() for _ in range(64)]
    before = mapped()
    for buffer in buffers:
        assert buffer is not None
        buffer.release()
    assert mapped() >= before, "free buffers are kept"
    assert pool.set_aside(48 * BUFFER)
    assert before - mapped() >= 47 * BUFFER
    assert len([buffer for buffer in (pool.take() for _ in range(17)) if buffer is not None]) == 16


def test_a_buffer_goes_back_when_its_last_reference_and_its_last_view_are_gone() -> None:
    pool = _core.Pool(BUFFER, poison=True)
    released: list[int] = []
    pool.on_release = lambda: released.append(pool.in_use)
    buffer = pool.take()
    assert buffer is not None
    assert buffer.append(b"abc") == 3
    buffer.retain()
    view = memoryview(buffer)
    buffer.release()
    assert pool.in_use == BUFFER
    buffer.release()
    assert (pool.in_use, bytes(view)) == (BUFFER, b"abc")  # a view keeps the bytes whole
    view.release()
    assert (pool.in_use, released) == (0, [0])
    with pytest.raises(ValueError, match="released"):
        buffer.release()
    with pytest.raises(ValueError, match="released"):
        buffer.append(b"x")
    again = pool.take()
    assert again is not None
    assert len(again) == 0


def test_a_lost_buffer_gives_its_memory_back() -> None:
    pool = _core.Pool(BUFFER)
    pool.take()
    assert pool.in_use == 0


def test_a_buffer_takes_no_more_than_it_has_room_for() -> None:
    buffer = _core.Pool(BUFFER).take()
    assert buffer is not None
    data = bytes(BUFFER) + b"tail"
    assert buffer.append(data) == BUFFER
    assert (buffer.room, buffer.append(data, BUFFER)) == (0, 0)


def test_a_buffer_reads_and_writes_files_at_an_offset(tmp_path: os.PathLike[str]) -> None:
    fd = os.open(f"{tmp_path}/file", os.O_RDWR | os.O_CREAT)
    try:
        os.pwrite(fd, b"0123456789", 0)
        pool = _core.Pool(BUFFER)
        buffer = pool.take()
        assert buffer is not None
        assert buffer.pread(fd, 4) == 6
        assert bytes(buffer) == b"456789"
        assert buffer.pwrite(fd, 10) == 0
        assert os.pread(fd, 100, 0) == b"0123456789456789"
        assert buffer.pwrite(-1, 0) == -9
    finally:
        os.close(fd)


def test_buffers_may_be_released_on_any_thread() -> None:
    pool = _core.Pool(16 * BUFFER, poison=True)

    def work() -> None:
        for number in range(2000):
            buffer = pool.take()
            if buffer is not None:
                buffer.append(number.to_bytes(4, "big"))
                assert bytes(buffer) == number.to_bytes(4, "big")
                buffer.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.in_use == 0


def inflate(data: bytes, form: str, step: int, window: int = 8 << 20) -> bytes | str:
    """All output, or the sentence of the error."""
    bind_decoders()
    pool = _core.Pool(2 * BUFFER)
    source, out = pool.take(), pool.take()
    assert source is not None
    assert out is not None
    stream = _core.Inflate(form, window=window)
    result = bytearray()
    for at in range(0, len(data), step):
        source.clear()
        source.append(data[at : at + step])
        start = 0
        while True:
            consumed = stream.run(source, start, out)
            if consumed < 0:
                return _core.INFLATE_CODES[stream.code]
            start += consumed
            made = len(out)
            result += bytes(out)
            out.clear()
            if start == len(source) and made < _core.WINDOW_SIZE:
                break
    code = stream.finish()
    return _core.INFLATE_CODES[code] if code else bytes(result)


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


def test_a_zstd_frame_may_not_demand_more_history_than_allowed() -> None:
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
    stream = _core.Inflate("zstd", window=8 << 20)
    stream.run(source, 0, out)
    assert len(out) == _core.WINDOW_SIZE
