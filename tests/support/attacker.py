"""Another user of the machine, who changes what lies on the way of a program that runs as root.

``Attacker.between`` runs an operation again and again in this process, and lets the attacker act once in each run:
before its first call that names or opens a file, before its second, and so on. ``Attacker.beside`` lets the attacker
act all the time. The attacker is a process of an unprivileged user: what the kernel does not allow is not done.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from support.scratch import scratch

UID = 65534

_PROGRAM = """
import os, random, sys, time
place, canary, target = sys.argv[1:4]
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
count = 0

def swap(name, act):
    # take away what has the name, and put something else there
    global count
    count += 1
    path = os.path.join(place, name)
    try:
        os.rename(path, f"{path}.away{count}")
    except OSError:
        return
    try:
        act(path)
    except OSError:
        pass

def lookalike(path):
    # as a staging directory, with links in the place of all that may be in one
    os.mkdir(path, 0o700)
    for inner in ("rootfs", "lock", "layer0", "layer1", "blobs", "oci-layout", "index.json", "auth.json"):
        os.symlink(canary, os.path.join(path, inner))

def link(path):
    os.symlink(canary, path)

def link_file(path):
    os.symlink(os.path.join(canary, "file"), path)

def nothing(path):
    pass

ACTS = (link, lookalike, link_file, nothing)

def attack(choice):
    act = ACTS[choice % len(ACTS)]
    for name in os.listdir(place):
        if ".away" not in name and name != "keep":
            swap(name, act)
    for name in (target, f".{target}.00000000000000{choice % 256:02x}.fastoci"):
        try:
            act(os.path.join(place, name))
        except OSError:
            pass
    if choice // len(ACTS) % 2:
        up, name = os.path.split(place)
        count_path = f"{place}.away"
        try:
            os.rename(place, count_path)
            os.symlink(canary, place)
        except OSError:
            pass

def plant():
    # what a killed process of his may have left
    try:
        os.makedirs(os.path.join(place, f".{target}.0123456789abcdef.fastoci", "rootfs", "directory", "deep"), 0o700)
        os.chmod(os.path.join(place, f".{target}.0123456789abcdef.fastoci"), 0o700)
    except OSError:
        pass

def restore():
    # the place itself, when it was swapped
    try:
        if os.path.islink(place):
            os.unlink(place)
            os.rename(f"{place}.away", place)
    except OSError:
        pass

if sys.argv[4] == "beside":
    print(flush=True)
    while True:
        plant()
        attack(random.randrange(8))
        restore()
        time.sleep(random.random() / 100)  # so that something is done between two acts
for line in sys.stdin:
    if line.strip() == "restore":
        restore()
    elif line.strip() == "plant":
        plant()
    else:
        attack(int(line))
    print(flush=True)
"""


@dataclass(frozen=True, slots=True)
class Scene:
    """Where an operation takes place: ``place`` is a directory that the attacker can write to."""

    top: Path
    place: Path
    canary: Path

    @property
    def target(self) -> Path:
        """The path that the operation is given."""
        return self.place / "target"


@contextmanager
def scene(kind: str) -> Iterator[Scene]:
    """``sticky``: a directory as /tmp is. ``theirs``: one of the attacker's, in another one of his."""
    if os.geteuid() != 0:
        pytest.skip("needs root, and another user")
    with scratch("attack") as top:
        top.chmod(0o755)
        canary = top / "canary"
        (canary / "directory" / "deep").mkdir(parents=True)
        (canary / "file").write_text("{}")
        (canary / "directory" / "deep" / "file").write_text("{}")
        canary.chmod(0o755)
        home = top / "home"
        place = home / "place"
        place.mkdir(parents=True)
        if kind == "sticky":
            place.chmod(0o1777)
        else:
            os.chown(home, UID, UID)
            os.chown(place, UID, UID)
        yield Scene(top, place, canary)


class Attacker:
    """See the module."""

    def __init__(self, at: Scene) -> None:
        self._scene = at

    def between(self, operation: Callable[[Path], object], *, prepare: Callable[[], object] | None = None) -> int:
        """Run ``operation`` on the target, with one act at each of its calls; how many acts there were.

        Checked after each run: nothing that is root's outside of the place was touched.
        """
        acts = 0
        with self._process("between") as process:
            for choice in (0, 1, 2, 4):  # the last one swaps the place, too
                step, more = 0, True
                while more:
                    if prepare is not None:
                        prepare()
                    _tell(process, "plant")
                    before = _snapshot(self._scene)
                    more = _run_until(
                        step, partial(operation, self._scene.target), partial(_tell, process, str(choice))
                    )
                    _tell(process, "restore")
                    assert _snapshot(self._scene) == before, f"act {choice} before call {step}"
                    _clean(self._scene.place)
                    acts += more
                    step += 1
        return acts

    def beside(self, operation: Callable[[Path], object], times: int) -> None:
        """Run ``operation`` on the target while the attacker acts."""
        before = _snapshot(self._scene)
        with self._process("beside"):
            for _ in range(times):
                operation(self._scene.target)
        assert _snapshot(self._scene) == before

    @contextmanager
    def _process(self, mode: str) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-c", _PROGRAM, str(self._scene.place), str(self._scene.canary), "target", mode]
        process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if mode == "beside":
                process.stdout.readline()
            yield process
            assert process.poll() is None, "the attacker died"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdin.close()
            process.stdout.close()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "\n"


_on_call: list[Callable[[str], None]] = []  # an audit hook stays for ever: it asks here what to do


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _on_call and (event == "open" or event.startswith(("os.", "shutil.", "fcntl."))):
        _on_call[-1](event)


def _run_until(step: int, operation: Callable[[], object], act: Callable[[], object]) -> bool:
    """Whether the operation made so many calls that ``act`` came before one."""
    if not _installed:
        sys.addaudithook(_audit)
        _installed.append(True)
    calls = 0
    acted = False

    def on_call(event: str) -> None:
        nonlocal calls, acted
        if calls == step and not acted:
            acted = True
            _on_call.clear()
            act()
        calls += 1

    _on_call.append(on_call)
    try:
        operation()
    finally:
        _on_call.clear()
    return acted


_installed: list[bool] = []


def _snapshot(at: Scene) -> dict[str, tuple[object, ...]]:
    """Everything that the attacker may not touch: names, kinds, owners, times and content."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, names, filenames in os.walk(at.top):
        if Path(directory) == at.top:
            names.remove("home")
        for name in (".", *filenames, *(each for each in names if os.path.islink(os.path.join(directory, each)))):
            path = os.path.join(directory, name)
            info = os.lstat(path)
            data = Path(path).read_bytes() if stat.S_ISREG(info.st_mode) else b""
            if Path(directory) == at.top:
                continue
            found[path] = info.st_mode, info.st_uid, info.st_nlink, info.st_mtime_ns, info.st_ctime_ns, data
        if Path(directory) == at.top:
            found["top"] = tuple(sorted(names))
    return found


def _clean(place: Path) -> None:
    for path in place.iterdir():
        if path.name == "keep":
            continue
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            subprocess.run(["rm", "-rf", path], check=True)
