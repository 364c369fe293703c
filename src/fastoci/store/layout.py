"""The names in a store's directory, and the descriptors by which everything in it is reached.

Knows where things are, not what they hold. Spec: docs/store-format.md 1 and 2.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from typing import Final

from fastoci import files
from fastoci.directory import Directory
from fastoci.image.digest import HEX_DIGITS, Digest
from fastoci.store import trust

LOCK: Final = ".lock"  # held while the store is made and while ``index.json`` is replaced
MARK: Final = "fastoci.json"
INDEX: Final = "index.json"
GATE: Final = ".gate"  # in ``leases``; two bytes are locked: 0 while a collector is at work, 1 while it deletes
PROBED: Final = ".probed"  # in ``leases``; what is known of the file system


class StoreLayout:
    """Where everything is in one store. Its directories are opened once, checked, and held until ``close``.

    What is done in one of them stays there, whatever somebody does to the path that led to the store. Used from any
    thread. Strings are absolute paths for people: nothing is opened by them.
    """

    def __init__(self, top: Directory) -> None:
        self.top = top
        self.root = top.path
        self._owners = (0, os.fstat(top.fd).st_uid)
        self._guard = threading.RLock()
        self._held: dict[str, Directory] = {}

    def close(self) -> None:
        """Let go of all directories; every later call fails. Idempotent."""
        with self._guard:
            for directory in (self.top, *self._held.values()):
                directory.close()
            self._held = {}

    def directory(self, name: str) -> Directory:
        """One of the store's own directories, as ``blobs/sha256``.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: it is not safe to trust.
        """
        held = self._held.get(name)
        if held is None:
            with self._guard:
                held = self._held.get(name)
                if held is None:
                    parent, _, last = name.rpartition("/")
                    held = self.enter(self.directory(parent) if parent else self.top, last)
                    self._held[name] = held
        return held

    def make(self, name: str, mode: int) -> Directory:
        """``directory``, made when absent, durable."""
        with self._guard:
            if name not in self._held:
                parent, _, last = name.rpartition("/")
                files.make_directory(self.directory(parent) if parent else self.top, last, mode)
            return self.directory(name)

    def enter(self, parent: Directory, name: str) -> Directory:
        """A directory in one of these, which the caller closes.

        Raises:
            FileNotFoundError: it is not there.
            StoreError: it is not a directory, or not safe to trust.
        """
        return trust.enter(parent, name, self._owners)

    @property
    def ingests(self) -> Directory:
        """The directory of all ingests."""
        return self.directory("ingest")

    @property
    def refs(self) -> Directory:
        """The directory of all references."""
        return self.directory("refs")

    @property
    def leases(self) -> Directory:
        """The directory of all leases."""
        return self.directory("leases")

    def blobs(self, algorithm: str) -> Directory:
        """The blobs of an algorithm, each under its digest's digits.

        Raises:
            FileNotFoundError: there are none.
        """
        if algorithm not in HEX_DIGITS:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{self.root}/blobs/{algorithm}")
        return self.directory(f"blobs/{algorithm}")

    def holds(self, digest: Digest) -> bool:
        """Whether anything has the name of this blob."""
        try:
            return self.blobs(digest.algorithm).has(digest.hex)
        except FileNotFoundError:
            return False

    def open_blob(self, digest: Digest) -> int:
        """Open what has the name of this blob, for reading."""
        return self.blobs(digest.algorithm).open(digest.hex, files.READ)

    def blob(self, digest: Digest) -> str:
        """The path of a blob, for people."""
        return f"{self.root}/blobs/{digest.algorithm}/{digest.hex}"

    def ingest(self, digest: Digest) -> str:
        """Needs no algorithm: the digests of two algorithms differ in length."""
        return f"{self.root}/ingest/{digest.hex}"

    def ref(self, name: str) -> tuple[str, str]:
        """In ``refs``, the directory and in it the file of a reference."""
        key = hashlib.sha256(name.encode()).hexdigest()
        return key[:2], key

    def ref_path(self, name: str) -> str:
        """The path of a reference's file, for people."""
        return "/".join((self.root, "refs", *self.ref(name)))
