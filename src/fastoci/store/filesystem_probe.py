"""Whether a file system keeps what the store is built on: locks between processes, renames that replace.

Asked once a store and mount, by whoever is the first to write; a small file remembers the answer. Network file systems
are refused by their kind: their locks may hold on this machine and not between two. Knows nothing of blobs.
Spec: docs/store-format.md 2.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import Final

from fastoci import files, locks
from fastoci._core import file_system
from fastoci.directory import Directory
from fastoci.errors import StoreError
from fastoci.store.layout import LOCK, PROBED, StoreLayout

# f_type, from linux/magic.h and the file systems' own sources. FUSE is not here: it is asked like a local one.
_NETWORK: Final = {
    0x00006969: "NFS",
    0x0000517B: "SMB",
    0xFF534D42: "CIFS",
    0xFE534D42: "SMB",
    0x01021997: "9p",
    0x00C36400: "Ceph",
    0x5346414F: "AFS",
    0x6B414653: "AFS",
    0x73757245: "Coda",
    0x0BD00BD0: "Lustre",
    0x47504653: "GPFS",
    0x7461636F: "OCFS2",
    0x01161970: "GFS2",
    0x19830326: "BeeGFS",
    0x20030528: "OrangeFS",
    0xAAD7AAEA: "PanFS",
    0x786F4256: "vboxsf",
}
_TRIAL: Final = ".probe"
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_UNABLE: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.EPERM})


def check(paths: StoreLayout) -> None:
    """Refuse a file system on which the store's promises would not hold.

    Raises:
        StoreError: it does not keep locks or renames, or buffers machines; says which. Or the disk refused.
    """
    with files.translated("probe the file system of", paths.root):
        devices = f"{os.fstat(paths.ingests.fd).st_dev} {os.fstat(paths.blobs('sha256').fd).st_dev}".encode()
        leases = paths.make("leases", 0o700)
        if files.read(leases, PROBED, 256) == devices:
            return
        held = locks.acquire(paths.top, LOCK, wait=True)
        assert held is not None
        try:
            reason = _network(paths.top) or _broken(paths.ingests, paths.blobs("sha256"))
            if reason:
                raise StoreError(f"{paths.root} cannot hold a store: {reason}", path=paths.root)
            with suppress(FileNotFoundError):
                leases.unlink(PROBED)
            fd = leases.open(PROBED, _NEW)
            try:
                files.write_all(fd, devices)
            finally:
                os.close(fd)
        finally:
            os.close(held)


def _network(top: Directory) -> str:
    kind = _NETWORK.get(file_system(top.fd))
    return f"it is on a network file system ({kind}), whose locks do not hold between machines" if kind else ""


def _broken(first: Directory, second: Directory) -> str:
    """What a small trial showed, in the two directories between which blobs move; the caller holds the store's lock."""
    try:
        for directory in (first, second):  # a rest, or a link that leads out of the store
            with suppress(FileNotFoundError):
                directory.unlink(_TRIAL)
        held = locks.acquire(first, _TRIAL, wait=True)
        assert held is not None
        try:
            other = locks.acquire(first, _TRIAL, wait=False)
            if other is not None:
                os.close(other)
            if other is not None or not locks.is_held(first, _TRIAL):
                return "its file system does not keep locks"
            before = os.fstat(held)
            os.close(second.open(_TRIAL, _NEW))
            first.rename(_TRIAL, second, _TRIAL)
            if first.has(_TRIAL) or not os.path.samestat(second.stat(_TRIAL), before):
                return "its file system does not rename a file over another"
            second.unlink(_TRIAL)
            if os.fstat(held).st_size != 0 or second.has(_TRIAL):
                return "its file system does not keep a deleted file that is open"
        finally:
            os.close(held)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise
        return f"its file system does not do what a store needs ({error.strerror or error})"
    finally:
        for directory in (first, second):
            with suppress(OSError):
                directory.unlink(_TRIAL)
    return ""
