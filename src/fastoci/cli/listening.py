"""The listening socket of a service: the one that a service manager passes, else one of this process's own.

A passed listener outlives the process: whoever connects while there is none waits, and is refused by nobody.
Spec: sd_listen_fds(3); systemd.socket(5), ``Accept=no``; unix(7).
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from fastoci.errors import ConfigError, StoreBusyError, StoreError

_FIRST_FD: Final = 3
_MODE: Final = 0o600
_WAITING: Final = 128  # connections that nobody has accepted yet
_VARIABLES: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def passed_listener(environ: MutableMapping[str, str], *, first: int = _FIRST_FD) -> socket.socket | None:
    """The listener that the service manager passed to this process, None when it passed none.

    Takes what says so out of the environment: children are not meant.

    Raises:
        ConfigError: it passed several, or something else than a listening Unix socket.
    """
    given = {name: environ.pop(name, "") for name in _VARIABLES}
    if given["LISTEN_PID"] != str(os.getpid()) or given["LISTEN_FDS"] in ("", "0"):
        return None
    if given["LISTEN_FDS"] != "1":
        raise ConfigError(f"LISTEN_FDS={given['LISTEN_FDS'][:20]}: one listening socket is taken")
    try:
        listener = socket.socket(fileno=first)
    except OSError as error:
        raise ConfigError(f"what was passed as LISTEN_FDS is not a socket: {error.strerror}") from error
    is_listening = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if (listener.family, listener.type, is_listening) != (socket.AF_UNIX, socket.SOCK_STREAM, 1):
        listener.detach()
        raise ConfigError("what was passed as LISTEN_FDS is not a listening Unix socket (ListenStream=PATH, Accept=no)")
    os.set_inheritable(first, False)
    listener.setblocking(False)
    return listener


@contextmanager
def own_listener(path: Path) -> Iterator[socket.socket]:
    """A listener at a path, for this user alone; its name goes at the end.

    What a process that was killed left there is replaced.

    Raises:
        StoreBusyError: another process listens there.
        StoreError: something else is there, or the disk refused.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        _bind(listener, path)
        made = os.lstat(path)
        listener.listen(_WAITING)
        listener.setblocking(False)
        try:
            yield listener
        finally:
            with suppress(OSError):
                if os.path.samestat(os.lstat(path), made):
                    os.unlink(path)
    finally:
        listener.close()


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens at."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _failure(error, path) from error
    if not stat.S_ISSOCK(found.st_mode):
        raise StoreError(f"{path}: something else is there, no socket", path=str(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            if not isinstance(error, BlockingIOError):  # its queue is full: somebody listens
                raise _failure(error, path) from error
    raise StoreBusyError(f"{path}: another process listens there", path=str(path))


def _bind(listener: socket.socket, path: Path) -> None:
    """Bind, so that nobody else can connect at any time."""
    before = os.umask(0o777 & ~_MODE)
    try:
        listener.bind(str(path))
    except OSError as error:
        raise _failure(error, path) from error
    finally:
        os.umask(before)


def _failure(error: OSError, path: Path) -> StoreError:
    failure = StoreError(f"cannot listen at {path}: {error.strerror or error}", path=str(path))
    failure.errno = error.errno
    return failure
