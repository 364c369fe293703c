"""The C unit tests, which need no Python: built and run as `make check`, `make asan` and `make arm` do."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.scratch import scratch

CSRC = Path(__file__).resolve().parent.parent / "src" / "fastoci" / "csrc"


@pytest.fixture(scope="module")
def tests() -> Iterator[Path]:
    """A copy of the C tests and their sources, so that nothing is built in the source tree."""
    with scratch("csrc") as folder:
        shutil.copytree(CSRC, folder / "csrc", ignore=shutil.ignore_patterns("build"))
        yield folder / "csrc" / "tests"


def output(tests: Path, *command: str | Path, **variables: str) -> str:
    """What a command prints; its temporary files are beside the tests, in memory."""
    # what Python runs under is not theirs
    environment = {**os.environ, "TMPDIR": str(tests), "LD_PRELOAD": "", **variables}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def make(tests: Path, *targets: str) -> str:
    # another compiler's new warnings are for `make check` and `make arm` to refuse, not for whoever runs the tests
    return output(tests, "make", "-C", tests, "STRICT=-std=gnu11", "CFLAGS=-O1", *targets)


def emulated(tests: Path, name: str, *arguments: str | Path) -> str:
    """What one of the tests prints on a 64-bit ARM, in its short form; `make arm` runs the long one."""
    command = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", tests / "build/arm" / name)
    return output(tests, *command, *arguments, SHORT="1")


@pytest.mark.timeout(300)
def test_the_c_unit_tests_pass(tests: Path) -> None:
    if shutil.which("make") is None or shutil.which("cc") is None:
        pytest.skip("needs make and a C compiler")
    assert "\ntest_sha256: ok: " in make(tests, "test")


@pytest.mark.timeout(300)
def test_threads_that_look_at_a_layer_under_way_race_with_nothing(tests: Path) -> None:
    """`make tsan` runs all of them so."""
    if shutil.which("make") is None or shutil.which("gcc") is None:
        pytest.skip("needs make and gcc")
    if not os.path.isabs(output(tests, "gcc", "-print-file-name=libtsan.so").strip()):
        pytest.skip("this gcc has no ThreadSanitizer")
    make(tests, "build/tsan/extract/test_threads")
    assert output(tests, "setarch", "-R", tests / "build/tsan/extract/test_threads") == "test_threads: ok\n"


@pytest.mark.timeout(300)
def test_what_isal_and_libzstd_say_is_not_believed(tests: Path, peer: Callable[[str], str]) -> None:
    for program in ("make", "cc", "igzip"):  # Debian's isal has the library, too
        peer(program)
    make(tests, "build/inflate/test_inflate")
    assert output(tests, tests / "build/inflate/test_inflate") == "test_inflate: ok: isa-l libzstd\n"


@pytest.mark.timeout(300)
def test_the_c_unit_tests_pass_on_an_emulated_arm(tests: Path, peer: Callable[[str], str]) -> None:
    for program in ("make", "aarch64-linux-gnu-gcc", "qemu-aarch64"):
        peer(program)
    names = [str(path.relative_to(tests).with_suffix("")) for path in sorted(tests.glob("*/test_*.c"))]
    make(tests, *(f"build/arm/{name}" for name in names))
    for name in names:
        assert emulated(tests, name).startswith(f"{Path(name).name}: ok")


@pytest.mark.timeout(300)
def test_nist_vectors_hold_on_an_emulated_arm(tests: Path, shared: Path, peer: Callable[[str], str]) -> None:
    for program in ("make", "aarch64-linux-gnu-gcc", "qemu-aarch64"):
        peer(program)
    make(tests, "build/arm/sha256/test_sha256")
    vectors = [shared / "corpora" / "nist-cavp" / name for name in ("SHA256ShortMsg.rsp", "SHA256LongMsg.rsp")]
    assert emulated(tests, "sha256/test_sha256", *vectors).startswith("test_sha256: ok: sha-arm ")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="emulates an older processor of this kind")
def test_an_x86_without_sha_instructions_gets_the_next_tier(tests: Path, peer: Callable[[str], str]) -> None:
    for program in ("make", "cc", "qemu-x86_64"):
        peer(program)
    make(tests, "build/sha256/test_sha256")
    said = output(tests, "qemu-x86_64", "-cpu", "Nehalem", tests / "build/sha256/test_sha256")
    assert said.startswith("test_sha256: ok: ") and "sha-ni" not in said
