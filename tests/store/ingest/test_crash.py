"""What a process leaves that is killed, or whose disk fails, at each step of a blob's way in."""

import hashlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastoci.store import filesystem_probe
from fastoci.store.ingest.checkpoint import State
from fastoci.store.opening import open_store
from support import ingest_process, strace_log
from support.warm_program import Running, WarmProgram

SIZE = 200_000
DATA = ingest_process.content(SIZE)
HEX = hashlib.sha256(DATA).hexdigest()
NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may reach."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix="fastoci-crash-", dir=memory))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


Child = Callable[..., tuple[int, str]]


@pytest.fixture
def child(warm_program: WarmProgram) -> Child:
    """Run the process; how it ends, and what it prints."""

    def run(store: Path, *, kill_at: int = 0, uid: int = 0) -> tuple[int, str]:
        words = map(str, (store, SIZE, kill_at, uid))
        done = warm_program.run(*words, program=ingest_process.__name__)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        return done.returncode, done.stdout.strip()

    return run


def _blob(store: Path) -> bytes | None:
    path = store / "blobs" / "sha256" / HEX
    return path.read_bytes() if path.exists() else None


@pytest.mark.parametrize("uid", [0, pytest.param(NOBODY, marks=pytest.mark.skipif(os.geteuid() != 0, reason="root"))])
def test_a_kill_before_any_file_operation_leaves_a_store_that_goes_on(child: Child, place: Path, uid: int) -> None:
    """Whatever is left, no wrong blob has a name, and the next process completes it and tidies up."""
    offsets = set()
    for kill_at in range(1, 100):
        store = place / str(kill_at)
        store.mkdir()
        if uid:  # else whoever runs the test
            os.chown(store, uid, uid)
        code, _ = child(store, kill_at=kill_at, uid=uid)
        assert _blob(store) in (None, DATA)
        if code == 0:
            break
        committed = _blob(store) is not None
        code, began = child(store, uid=uid)
        assert code == 0
        assert began == "there" if committed else began.isdigit()
        offsets.add(began)
        assert _blob(store) == DATA
        assert (store / "blobs" / "sha256" / HEX).stat().st_mode & 0o777 == 0o444
        left = [path.name for path in (store / "ingest").rglob("*")]
        # After the rename the digest is never begun again: what is left of its ingest waits for the sweep.
        assert set(left) <= ({HEX, "state", "lock"} if committed else set())
    assert kill_at > 12
    assert {"0", str(SIZE), "there"} <= offsets


def test_a_killed_process_loses_only_what_its_checkpoint_does_not_cover(
    child: Child, warm_program: WarmProgram, place: Path, tmp_path: Path
) -> None:
    open_store(place)
    # The first pwrite64 is the first half of the data, the second its checkpoint, the third the other half.
    inject = ("-e", "inject=pwrite64:signal=SIGKILL:when=3")
    strace_log.trace(_started(warm_program, place, waits=True), inject, tmp_path / "log", calls=["pwrite64"])
    state = State.decode((place / "ingest" / HEX / "state").read_bytes())
    assert state is not None
    assert state.offset == SIZE // 2
    assert child(place) == (0, str(SIZE // 2))
    assert _blob(place) == DATA


def _started(warm: WarmProgram, store: Path, *, waits: bool = False) -> Running:
    return warm.start(str(store), str(SIZE), "0", "0", program=ingest_process.__name__, waits=waits)


@pytest.mark.parametrize(
    ("call", "error", "next_offset"),
    [
        ("fdatasync", "EIO", "0"),  # the kernel may have dropped pages: nothing of it is believed
        ("fdatasync", "ENOSPC", "0"),
        ("fchmod", "EIO", str(SIZE)),
        ("renameat", "EIO", str(SIZE)),
        ("renameat", "ENOSPC", str(SIZE)),
        ("ftruncate", "EIO", "0"),
        ("fsync", "EIO", "there"),  # of the directory: the blob has its name
    ],
)
def test_a_failing_disk_is_a_typed_error_and_the_next_process_goes_on(
    child: Child, warm_program: WarmProgram, place: Path, tmp_path: Path, call: str, error: str, next_offset: str
) -> None:
    filesystem_probe.check(open_store(place))  # it renames, too
    inject = ("-e", f"inject={call}:error={error}:when=1+")
    done = strace_log.trace(_started(warm_program, place, waits=True), inject, tmp_path / "log", calls=[call])
    assert done.returncode == 0, done.stderr
    kind = "StoreFullError" if error == "ENOSPC" else "StoreError"
    assert kind in done.stdout.split()
    assert child(place) == (0, next_offset)
    assert _blob(place) == DATA


def test_of_many_processes_one_writes_the_blob(warm_program: WarmProgram, place: Path) -> None:
    children = [_started(warm_program, place, waits=True) for _ in range(6)]
    for child in children:
        child.go()
    printed = [child.wait().stdout.strip() for child in children]
    assert sorted(printed) == ["0", *["there"] * 5]
    assert _blob(place) == DATA
    assert os.listdir(place / "ingest") == []
