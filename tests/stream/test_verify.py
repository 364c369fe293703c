"""Only bytes that are exactly the promised ones make a proof."""

from __future__ import annotations

import hashlib

import pytest

from fastoci import _core
from fastoci.errors import DigestMismatchError, SizeMismatchError
from fastoci.image.digest import Digest
from fastoci.stream.verify import Verified, Verifier, hash_buffers


def buffers(*pieces: bytes) -> list[_core.Buffer]:
    pool = _core.Pool(len(pieces) * _core.BUFFER_SIZE)
    made = []
    for piece in pieces:
        buffer = pool.take()
        assert buffer is not None
        buffer.append(piece)
        made.append(buffer)
    return made


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_stream_of_the_promised_bytes_is_verified(algorithm: str) -> None:
    verifier = Verifier(Digest.of(b"hello world", algorithm), 11)
    for buffer in buffers(b"hello", b" world"):
        hash_buffers([(verifier, buffer)])
    proof = verifier.proof()
    assert (proof.digest, proof.size) == (Digest.of(b"hello world", algorithm), 11)


def test_a_proof_cannot_be_made_by_hand() -> None:
    with pytest.raises(TypeError):
        Verified(Digest.of(b""), 0, object())


def test_other_bytes_raise_digest_mismatch_with_both_digests() -> None:
    verifier = Verifier(Digest.of(b"good"), 4)
    hash_buffers([(verifier, buffers(b"evil")[0])])
    with pytest.raises(DigestMismatchError) as caught:
        verifier.proof()
    assert caught.value.actual == "sha256:" + hashlib.sha256(b"evil").hexdigest()
    assert caught.value.expected == str(Digest.of(b"good"))


def test_a_longer_stream_raises_before_it_is_hashed() -> None:
    verifier = Verifier(Digest.of(b"good"), 4)
    with pytest.raises(SizeMismatchError) as caught:
        verifier.expect(buffers(b"goods")[0])
    assert (caught.value.expected, caught.value.actual, verifier.offset) == (4, 5, 0)


def test_a_shorter_stream_raises_size_mismatch_at_its_end() -> None:
    verifier = Verifier(Digest.of(b"good"), 4)
    hash_buffers([(verifier, buffers(b"goo")[0])])
    with pytest.raises(SizeMismatchError):
        verifier.proof()


def test_a_stream_resumes_from_its_saved_state() -> None:
    first = Verifier(Digest.of(b"hello world"), 11)
    hash_buffers([(first, buffers(b"hello")[0])])
    second = Verifier(Digest.of(b"hello world"), 11, offset=5, state=first.state())
    hash_buffers([(second, buffers(b" world")[0])])
    assert second.proof().size == 11


def test_a_diff_id_is_held_without_a_size() -> None:
    verifier = Verifier(Digest.of(b"tar"), None)
    hash_buffers([(verifier, buffers(b"tar")[0])])
    assert verifier.proof().size == 3
