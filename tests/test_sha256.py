"""SHA-256 of the native core: every tier against NIST's vectors and hashlib, and what a state may be."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastoci import _core
from support import sha256_process

CHILD = sha256_process.__file__
WITHOUT_SHA = {"OPENSSL_ia32cap": ":~0x20000000"}  # bit 29 of EBX of CPUID leaf 7: the SHA instructions
WITHOUT_ANY = {"OPENSSL_ia32cap": "0:0", "OPENSSL_armcap": "0"}  # libcrypto's portable code


def run(tier: str, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python that has this tier."""
    variables = {**os.environ, **environment, "FASTOCI_SHA256": tier, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([sys.executable, *arguments], env=variables, capture_output=True, text=True, check=False)


def check(tier: str, *files: Path, **environment: str) -> None:
    done = run(tier, CHILD, *files, **environment)
    if tier.startswith("sha-") and "this machine cannot run it" in done.stderr:
        pytest.skip(f"this processor has no {tier}")
    assert done.stdout.strip() == tier, done.stderr


TIERS = pytest.mark.parametrize(
    ("tier", "environment"),
    [
        pytest.param("sha-ni", {}, id="sha-ni"),
        pytest.param("sha-arm", {}, id="sha-arm"),
        pytest.param("openssl", {}, id="openssl"),
        pytest.param("openssl", WITHOUT_SHA, id="openssl-without-sha"),
        pytest.param("openssl", WITHOUT_ANY, id="openssl-portable"),
        pytest.param("scalar", {}, id="scalar"),
    ],
)


@TIERS
def test_every_tier_agrees_with_hashlib_however_data_is_split_and_streams_are_mixed(
    tier: str, environment: dict[str, str]
) -> None:
    check(tier, **environment)


@TIERS
def test_nist_vectors_hold_for_every_tier(tier: str, environment: dict[str, str], shared: Path) -> None:
    names = ("SHA256ShortMsg.rsp", "SHA256LongMsg.rsp", "SHA256Monte.rsp")
    check(tier, *(shared / "corpora" / "nist-cavp" / name for name in names), **environment)


def test_a_tier_that_does_not_exist_fails_the_import() -> None:
    done = run("nonsense", "-c", "import fastoci._core")
    assert done.returncode == 1
    assert "ImportError: FASTOCI_SHA256=nonsense" in done.stderr


@pytest.mark.parametrize("state", [b"", bytes(103), bytes(105), bytes(103) + b"\x01"])
def test_bytes_that_are_no_state_are_refused(state: bytes) -> None:
    with pytest.raises(ValueError, match="not a saved state"):
        _core.Sha256().restore(state)


def test_a_copy_goes_its_own_way() -> None:
    first = _core.Sha256(b"ab")
    second = first.copy()
    first.update(b"c")
    assert first.hexdigest() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert second.digest() == _core.Sha256(b"ab").digest()


def test_buffers_of_any_size_hashed_together_give_each_its_digest() -> None:
    pool = _core.Pool(6 * _core.BUFFER_SIZE)
    pairs = []
    for size in (0, 1, 63, 64, 100_000, _core.BUFFER_SIZE):
        buffer = pool.take()
        assert buffer is not None
        buffer.append(os.urandom(size))
        pairs.append((_core.Sha256(), buffer))
    _core.update_many(pairs)
    assert [state.digest() for state, _ in pairs] == [hashlib.sha256(buffer).digest() for _, buffer in pairs]
    assert 1 <= _core.lanes() <= 3
