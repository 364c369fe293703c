"""Programs that know credentials: real ones, within bounds."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import CredentialError
from fastoci.registry.auth.helper_process import run


async def python(code: str, given: bytes = b"", *, timeout_s: float = 20.0) -> tuple[int, bytes]:
    return await run([sys.executable, "-c", code], given, environ=os.environ, timeout_s=timeout_s)


async def test_what_a_program_is_given_and_answers_comes_through_with_its_status() -> None:
    code = "import sys; print(sys.stdin.read()[::-1]); print('hunter2', file=sys.stderr); sys.exit(3)"
    assert await python(code, b"abc") == (3, b"cba\n")


async def test_a_program_that_does_not_read_is_no_failure() -> None:
    assert await python("print(1)", b"x" * 300_000) == (0, b"1\n")


async def test_a_program_killed_by_a_signal_has_no_success() -> None:
    code, _ = await python("import os; os.kill(os.getpid(), 9)")
    assert code != 0


async def test_a_program_without_an_end_is_killed_with_what_it_started(tmp_path: Path) -> None:
    # The child holds stdout open, so only the end of both ends the answer.
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]).wait()"
    task = asyncio.create_task(python(code, timeout_s=600))
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110 - of a process
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pid = int((tmp_path / "pid").read_text())
    while _alive(pid):  # noqa: ASYNC110 - of a process
        await asyncio.sleep(0.01)


async def test_an_agent_that_a_program_leaves_behind_is_not_waited_for_and_lives_on() -> None:
    # It has the program's stdout, as gpg-agent may have a helper's.
    code, output = await run(["/bin/sh", "-c", "sleep 600 & echo $!"], b"", environ=os.environ, timeout_s=60)
    agent = int(output)
    try:
        assert (code, _alive(agent)) == (0, True)
    finally:
        os.kill(agent, signal.SIGKILL)


async def test_a_program_can_be_cancelled_at_any_moment_of_its_start() -> None:
    # The child of the shell holds the pipes that are not known yet when the shell is killed.
    command = ["/bin/sh", "-c", "cat > /dev/null; sleep 600"]
    async with asyncio.timeout(60):
        for yields in range(1, 8):
            task = asyncio.create_task(run(command, b"", environ=os.environ, timeout_s=600))
            for _ in range(yields):
                await asyncio.sleep(0)
            time.sleep(0.05)  # noqa: ASYNC251 - until the child runs, while the loop goes no further
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_the_time_limit_is_an_error_that_names_the_program() -> None:
    with pytest.raises(CredentialError, match=r"python.*: no answer within 0\.05 s") as caught:
        await python("import time; time.sleep(600)", timeout_s=0.05)
    assert caught.value.program == os.path.basename(sys.executable)


async def test_output_without_an_end_is_an_error() -> None:
    with pytest.raises(CredentialError, match="more than 1048576 bytes"):
        await python("while True: print('x' * 65536)")


@pytest.mark.parametrize("program", ["absent", ".", "plain"])
async def test_what_cannot_be_run_is_an_error(tmp_path: Path, program: str) -> None:
    (tmp_path / "plain").write_text("")
    with pytest.raises(CredentialError, match="cannot be run"):
        await run([str(tmp_path / program)], b"", environ={}, timeout_s=5)


async def test_no_shell_sees_the_arguments(tmp_path: Path) -> None:
    argument = f"; touch {tmp_path}/made; $(id) `id`"
    command = [sys.executable, "-c", "import sys; print(sys.argv[1])", argument]
    assert await run(command, b"", environ=os.environ, timeout_s=20) == (0, argument.encode() + b"\n")
    assert not (tmp_path / "made").exists()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


_ON_UVLOOP = """
import asyncio, os, sys, uvloop
from fastoci.errors import CredentialError
from fastoci.registry.auth.helper_process import run

async def python(code, given=b"", timeout_s=20.0):
    return await run([sys.executable, "-c", code], given, environ=os.environ, timeout_s=timeout_s)

async def work():
    # Each is over before it is written to, when the loop was slow: uvloop has closed the pipe by then.
    static = [run(["/bin/echo", "static"], b"r.test" * 1000, environ={}, timeout_s=20.0) for _ in range(60)]
    print(set(await asyncio.gather(*static)))
    print(await python("import sys; print(sys.stdin.read()[::-1]); sys.exit(3)", b"abc"))
    print(await python("print(1)", b"x" * 300_000))
    code, agent = await run(["/bin/sh", "-c", "sleep 600 & echo $!"], b"", environ=os.environ, timeout_s=60)
    print(code, os.kill(int(agent), 9))
    before = set(os.listdir("/proc/self/fd"))
    for code, timeout_s in (("import time; time.sleep(600)", 0.05), ("while True: print('x' * 65536)", 20.0)):
        try:
            await python(code, timeout_s=timeout_s)
        except CredentialError as error:
            print(error.message.partition(": ")[2])
    print(set(os.listdir("/proc/self/fd")) == before)

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(work())
"""


def test_on_uvloop_the_bounds_are_the_same() -> None:
    # A process of its own: uvloop keeps a pipe for the signals of children as long as the process lives.
    environment = {**os.environ, "PYTHONPATH": str(Path(fastoci.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _ON_UVLOOP], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        r"{(0, b'static\n')}",
        r"(3, b'cba\n')",
        r"(0, b'1\n')",
        "0 None",
        "no answer within 0.05 s",
        "answers with more than 1048576 bytes",
        "True",
    ], done.stderr
