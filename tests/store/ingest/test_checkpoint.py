"""The 512 bytes from which an ingest goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastoci.store.ingest.checkpoint import STATE_SIZE, State

BOOT = "0a1b2c3d-0000-4000-8000-0123456789ab"
STATE = State(BOOT, 0, 12345, bytes(range(104)))


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1), st.binary(max_size=112))
def test_a_state_survives_its_record(one: int, other: int, hash_state: bytes) -> None:
    state = State(BOOT, min(one, other), max(one, other), hash_state)
    record = state.encode()
    assert len(record) == STATE_SIZE
    assert State.decode(record) == state


def test_a_cut_or_longer_record_is_none() -> None:
    record = STATE.encode()
    assert all(State.decode(record[:size]) is None for size in range(STATE_SIZE))
    assert State.decode(record + b"\n") is None


@given(st.integers(0, STATE_SIZE * 8 - 1))
def test_one_flipped_bit_makes_a_record_none(bit: int) -> None:
    record = bytearray(STATE.encode())
    record[bit // 8] ^= 1 << bit % 8
    assert State.decode(bytes(record)) is None


@pytest.mark.parametrize("cut", [100, 256, 503])
def test_a_record_torn_between_two_is_none(cut: int) -> None:
    other = State(BOOT, 0, 99999, bytes(reversed(range(104)))).encode()
    assert State.decode(STATE.encode()[:cut] + other[cut:]) is None


def test_a_state_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        State(BOOT, 0, 0, bytes(400)).encode()


@pytest.mark.parametrize(("synced", "offset"), [(-1, 5), (6, 5), (0, -1), (True, 5), (0.0, 5)])
def test_a_record_that_cannot_be_is_none(synced: int, offset: int) -> None:
    assert State.decode(State(BOOT, synced, offset, bytes(104)).encode()) is None
