"""What ``strace`` says of a program's system calls: traced by it, and its log as values.

Knows the log's form, not what the calls mean.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.warm_program import Ended, Running

_WHOLE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (.*)$")
_BEGUN = re.compile(r"^(\d+) +(\w+)\((.*?) *<unfinished \.\.\.>$")
_ENDED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)\) += (.*)$")
_RESULT = re.compile(r"^(-?\d+)")

_CHANGING = """open openat creat close write pwrite64 writev pwritev pwritev2 fdatasync fsync rename renameat renameat2
    link linkat symlink symlinkat unlink unlinkat rmdir mkdir mkdirat mknod mknodat fallocate truncate ftruncate chmod
    fchmod fchmodat chown fchown lchown fchownat utimensat setxattr fsetxattr lsetxattr fcntl flock sendfile
    copy_file_range"""
_LOOKING = "read pread64 preadv getdents64 newfstatat fstat lstat stat statx fstatfs statfs"
CHANGING = frozenset(_CHANGING.split())  # what changes files, or holds them
LOOKING = frozenset(_LOOKING.split())


@dataclass(frozen=True, slots=True)
class Call:
    """One system call. ``started`` and ``ended`` are lines of the log; ``result`` is -1 for an error."""

    name: str
    thread: int
    arguments: str
    result: int
    started: int
    ended: int


def strace() -> str:
    """The program; skips the test without it."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed")
    return program


def trace(command: Running, options: Sequence[str], log: Path, *, calls: Iterable[str]) -> Ended:
    """Let a command go that waits, all its threads traced for these calls, to its end; ``log`` is a file of them."""
    kinds = ",".join(f"?{name}" for name in sorted(calls))  # "?": some machines lack some calls
    traced = ["-e", "signal=none", "-e", f"trace={kinds}", *options, "-p", str(command.pid)]
    with (
        command,
        subprocess.Popen([strace(), "-f", "-o", log, *traced], stderr=subprocess.PIPE, text=True) as tracer,
    ):
        assert tracer.stderr is not None
        said = tracer.stderr.readline()
        command.go()
        assert said.endswith("attached\n"), said + tracer.stderr.read()
        tracer.stderr.read()  # to its end, which is that of the command
        return command.wait()


def calls(log: Path) -> Iterator[Call]:
    """The calls that came to an end, in the order of their ends."""
    begun: dict[int, tuple[int, str]] = {}
    with log.open(errors="surrogateescape") as lines:
        for number, line in enumerate(lines):
            text = line.rstrip("\n")
            if match := _WHOLE.match(text):
                thread, name, arguments, result = match.groups()
                started = number
            elif match := _BEGUN.match(text):
                begun[int(match[1])] = number, match[3]
                continue
            elif match := _ENDED.match(text):
                thread, name, rest, result = match.groups()
                started, first = begun.pop(int(thread), (number, ""))
                arguments = first + rest
            else:
                continue  # signals and exits
            code = _RESULT.match(result)
            if code is not None:  # "?": the process ended in it
                yield Call(name, int(thread), arguments, int(code[1]), started, number)
