"""Running a program that knows credentials: off the loop, never by a shell, within bounds of time and output.

What it writes is the caller's, who shows none of it: output of such programs holds secrets, also when they fail.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, cast

from fastoci.aio import wait_to_end
from fastoci.errors import CredentialError

_OUTPUT: Final = 1 << 20  # bytes; a real answer has a few kilobytes
_CHILDREN_S: Final = 1.0  # for what an ended program left behind, and which holds its stdout open
_GONE_S: Final = 5.0  # for a program that was killed; one that runs as another user cannot be, and is left alone


async def run(
    command: Sequence[str], given: bytes, *, environ: Mapping[str, str], timeout_s: float
) -> tuple[int, bytes]:
    """Run ``command`` with ``given`` on its stdin; its exit status and stdout.

    It is killed, with all it started in its session, when this task is cancelled. What it leaves behind when it ends is
    neither waited for nor killed: an agent may hold its stdout open.

    Args:
        command: the program's path, and its arguments.
        environ: what it sees, but ``FASTOCI_*``.
    Raises:
        CredentialError: it cannot be run, takes longer than ``timeout_s``, or writes more than 1 MiB.
    """
    program = os.path.basename(command[0])
    try:
        # Whatever happens to this task: asyncio's, cancelled before the pipes are there, has no end (CPython 3.11).
        (transport, output), cancelled = await wait_to_end(_start(command, environ))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "a bad argument"
        raise CredentialError(f"{program}: cannot be run: {reason}", program=program) from error
    try:
        if cancelled:
            raise asyncio.CancelledError
        stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))  # uvloop has a class of its own
        if not stdin.is_closing():  # a program that reads nothing may be gone
            stdin.write(given)
            stdin.close()
        async with asyncio.timeout(timeout_s):
            whole = await output.done
    except TimeoutError as error:
        raise CredentialError(f"{program}: no answer within {timeout_s:g} s", program=program) from error
    finally:
        if not output.gone.done() and not output.left:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(transport.get_pid(), signal.SIGKILL)
        transport.close()
        await asyncio.wait([output.gone], timeout=_GONE_S)
    if not whole:
        raise CredentialError(f"{program}: answers with more than {_OUTPUT} bytes", program=program)
    return transport.get_returncode() or 0, bytes(output.data)


async def _start(command: Sequence[str], environ: Mapping[str, str]) -> tuple[asyncio.SubprocessTransport, _Output]:
    loop = asyncio.get_running_loop()
    return await loop.subprocess_exec(
        lambda: _Output(loop.create_future(), loop.create_future()),
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=_without_ours(environ),
        start_new_session=True,  # so that all it starts can be ended together
    )


def _without_ours(environ: Mapping[str, str]) -> dict[str, str]:
    """All but this program's own settings, which may be secret."""
    return {name: value for name, value in environ.items() if not name.startswith("FASTOCI_")}


class _Output(asyncio.SubprocessProtocol):
    """Collects stdout. ``done``: True at the program's end, False at the bound; ``gone``: nothing is open any more.

    ``left``: the program has ended, and something that it started has its stdout.
    """

    def __init__(self, done: asyncio.Future[bool], gone: asyncio.Future[None]) -> None:
        self.data = bytearray()
        self.done = done
        self.gone = gone
        self.left = False

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Keep what fits; one piece beyond the bound ends the program."""
        if len(self.data) <= _OUTPUT:
            self.data += data
        if len(self.data) > _OUTPUT and not self.done.done():
            self.done.set_result(False)

    def process_exited(self) -> None:
        """All that it wrote is in the pipe; the end of the pipe, which tells so, may never come."""
        asyncio.get_running_loop().call_later(_CHILDREN_S, self._leave)

    def _leave(self) -> None:
        if not self.done.done():
            self.left = True
            self.done.set_result(True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is open any more."""
        if not self.done.done():
            self.done.set_result(True)
        if not self.gone.done():
            self.gone.set_result(None)
