"""The versions and the tiers of the native core that are in use. Decides nothing: each tier is asked where it lives."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

from fastoci import _core
from fastoci.release import VERSION
from fastoci.stream.inflate import bind_decoders

_PACKAGES = ("aiohttp", "uvloop", "isal", "zstandard", "msgspec")


def info() -> dict[str, str]:
    """Versions of fastoci, Python and its packages; a tier each for sha256, gzip, zstd, receive and mounts."""
    from fastoci.mount.probe import probe
    from fastoci.registry.http.direct_receiver import supported

    versions = {name: _version(name) for name in _PACKAGES}
    return {
        "fastoci": VERSION,
        **versions,
        "python": platform.python_version(),
        "sha256": _core.tier(),
        **bind_decoders(),
        "receive": "direct" if supported() else "aiohttp",
        "mounts": probe(),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
