"""The native core: the rules of pools and buffers. SHA-256: test_sha256.py."""

from __future__ import annotations

import os
import threading

import pytest

from fastoci import _core, _extract

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


@pytest.mark.parametrize("pair", [(None, None), (_core.Sha256(), None), (None, _core.Pool(1 << 20).take()), (1, 2)])
def test_only_hashers_and_buffers_are_hashed(pair: object) -> None:
    with pytest.raises(TypeError):
        _core.update_many([pair])  # type: ignore[list-item]


def test_what_an_extractor_and_a_stager_have_in_common_is_neither() -> None:
    with pytest.raises(TypeError):
        _extract._Layer()  # type: ignore[attr-defined]
