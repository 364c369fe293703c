"""fastoci moves container images from registries onto machines. The public names, loaded when they are used."""

import importlib
import sys
from typing import TYPE_CHECKING, Any

if sys.platform != "linux":
    raise ImportError("fastoci runs on Linux only")

if TYPE_CHECKING:
    from fastoci import errors as errors
    from fastoci._core import Sha256 as Sha256
    from fastoci.image.descriptor import Descriptor as Descriptor
    from fastoci.image.digest import Digest as Digest
    from fastoci.image.platform import Platform as Platform
    from fastoci.image.reference import Reference as Reference
    from fastoci.registry.login import logged_in as logged_in
    from fastoci.registry.login import login as login
    from fastoci.registry.login import logout as logout
    from fastoci.store.gc import Doomed as Doomed
    from fastoci.store.gc import GcPlan as GcPlan
    from fastoci.store.retention import Retention as Retention
    from fastoci.store.usage import Amount as Amount
    from fastoci.store.usage import RefUsage as RefUsage
    from fastoci.store.usage import Usage as Usage
    from fastoci.transfer import events as events
    from fastoci.transfer.engine import Engine as Engine
    from fastoci.transfer.engine import Image as Image
    from fastoci.transfer.engine import apply as apply
    from fastoci.transfer.engine import pull as pull
    from fastoci.transfer.info import info as info
    from fastoci.transfer.limits import Limits as Limits
    from fastoci.transfer.repair import Repair as Repair
    from fastoci.transfer.upkeep import Listing as Listing
    from fastoci.transfer.verify import BadBlob as BadBlob
    from fastoci.transfer.verify import Verification as Verification

_PLACES = {
    "Amount": "store.usage",
    "BadBlob": "transfer.verify",
    "Descriptor": "image.descriptor",
    "Digest": "image.digest",
    "Doomed": "store.gc",
    "Engine": "transfer.engine",
    "GcPlan": "store.gc",
    "Image": "transfer.engine",
    "Limits": "transfer.limits",
    "Listing": "transfer.upkeep",
    "Platform": "image.platform",
    "RefUsage": "store.usage",
    "Reference": "image.reference",
    "Repair": "transfer.repair",
    "Retention": "store.retention",
    "Sha256": "_core",
    "Usage": "store.usage",
    "Verification": "transfer.verify",
    "apply": "transfer.engine",
    "errors": "",
    "events": "transfer",
    "info": "transfer.info",
    "logged_in": "registry.login",
    "login": "registry.login",
    "logout": "registry.login",
    "pull": "transfer.engine",
}

__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = f"{__name__}.{_PLACES[name]}".rstrip(".")
    if name in ("errors", "events"):
        return importlib.import_module(f"{place}.{name}")
    return getattr(importlib.import_module(place), name)
