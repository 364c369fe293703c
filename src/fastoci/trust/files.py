"""Which ``policy.json`` counts on this machine, and the files of keys that it names.

Spec: containers-policy.json(5); the order of files is that of all configuration of containers/image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from fastoci import path_walk
from fastoci.registry.config import files
from fastoci.registry.config.certs_d import config_home
from fastoci.trust.policy import TrustPolicy

VARIABLE: Final = "CONTAINERS_POLICY_JSON"
_NAME: Final = "containers/policy.json"
_KIND: Final = "policy of trust"


def load(environ: Mapping[str, str], root: Path = Path("/")) -> TrustPolicy:
    """The machine's policy; where there is none, every image may be had.

    Args:
        root: what ``/etc`` and ``/usr`` are below.
    Raises:
        ConfigError: the file that counts cannot be read, or is not a policy; the one that is named is absent.
    """
    if named := environ.get(VARIABLE):
        return read_trust_policy(named)
    for path in _usual(environ, root):
        data = files.read_if_there(path, _KIND)
        if data is not None:
            return TrustPolicy.parse(data, str(path))
    return TrustPolicy.accept_anything()


def read_trust_policy(path: str | os.PathLike[str]) -> TrustPolicy:
    """The policy in a file, in the form of ``policy.json``.

    Raises:
        ConfigError: it cannot be read, or is not a policy.
        StoreError: it cannot be a path.
    """
    path = path_walk.absolute(path)
    return TrustPolicy.parse(files.read(path, _KIND), str(path))


def read_key(path: str) -> bytes:
    """The bytes of a file of keys.

    Raises:
        ConfigError: it cannot be read.
    """
    return files.read(Path(path), "public key")


def _usual(environ: Mapping[str, str], root: Path) -> Iterator[Path]:
    if home := config_home(environ):
        # What this user may not read there is another user's, whose HOME was kept: it is as absent.
        own = home / _NAME
        if os.access(own, os.R_OK):
            yield own
    yield root / "etc" / _NAME
    yield root / "usr/share" / _NAME
