"""fastoci moves container images from registries onto machines: verified, stored once, unpacked safely.

::

    import fastoci

    async with fastoci.Engine("/var/lib/fastoci") as engine:
        image = await engine.pull("docker.io/library/alpine:3")
        await image.unpack("rootfs")

    fastoci.pull("docker.io/library/alpine:3", rootfs="rootfs")  # for programs that are not async

To work with a store::

    Engine             one store, and the registries that fill it
        pull pull_platforms  bring an image in, for one platform or more
        plan_prefetch prefetch  bring many in, as one job
        hold fetch record    bring blobs in, and name an image of them
        resolve tags         ask a registry; push tag delete  change it
        images image usage   show what is there; inspect attachments compare comparing  images, also elsewhere
        open path read       a blob, by its digest
        verify repair        hash it again; fetch what is bad or missing
        remove pin           forget a name; protect an image from gc
        plan_gc gc           find and delete what is not needed
        pack publish         an image of a directory; one to a registry, with merged metadata
        export copy copy_all an OCI layout for other tools; images from place to place
    Image              one image of a store: its documents and files; unpack, bundle, export
    RegistryOptions    how registries are asked: credentials, mirrors, certificates
    TrustPolicy        which images may be had, and whose signatures they need; read_trust_policy of a file
    CopyOptions EndOptions     what Engine.copy copies, and how its two ends are reached
    Limits             connections, memory, threads, and every bound
    BlobSource         where blobs come from: a registry's repository, or one's own
        Buffer BufferSource  its bytes, and where empty buffers come from
    RetryingSource     a source that is asked again, as a RetryPolicy says
    PrefetchRequest    an image that a job of many wants
    parse_list         bytes as an ImageList of PrefetchRequest, TagQuery, RegistryAccess, ListProblem
    Into Containerd ContainerdImage  a namespace of containerd that images go into; what it has
        IntoPodman PodmanImage podman_images hide_from_podman    podman finds them in the store
    WantedState        of which list a job is, and what goes for it
    Observer           is called with each event
    pull               an image, without an engine
    apply              layer files onto a directory, without a store

What its methods return::

    Resolved                   a name, followed to a manifest
    PrefetchPlan, PlannedImage, RefusedImage      what a job of many PrefetchRequests would do
    PrefetchResult, ImageOutcome, BlobOutcome     what became of it
    Pruned, Evicted            what went because a list gave it up, or for space
    Layers                     what the store keeps of layers beside their blobs
    StoredImage                a name, and which platforms of it are here
    ImageFiles, ImageFile      the files of an image, without a tree of them
    Inspection InspectedImage InspectedLayer InspectedBlob InspectedEntry, Comparison FieldChange LayerPair FileChange
    Attachment                 what hangs on an image
    Usage, RefUsage, Amount    how much disk is used, and for whom
    Verification, BadBlob, Repair    what was hashed and is wrong; what was fetched again, and what cannot be had
    Retention, GcPlan, GcItem  which images may stay; what would be deleted, and why
    Copied, Published, Pushed  what came to a place, and how

Documents and names::

    Reference Descriptor Digest Platform
    Sha256             the hash, as fast as this machine can

Beside a store::

    login logout logged_in     credentials for a registry
    configure_containerd configure_docker configure_podman   other programs, as a ConfigurationPlan to write
    access Access check_access where an image would be asked for, with which credentials; whether that can be used
    mounts umount              where images are mounted, as MountedImage values; take one away
    info                       versions, and the kernels that run here
    errors                     the tree of all that is raised
    events                     what an observer receives

``help(fastoci.Engine)`` has the details. ``fastoci.testing`` is for tests: a registry on loopback, its faults, images.
Loggers are ``fastoci.*``.
"""

import importlib
import sys
from typing import TYPE_CHECKING

if sys.platform != "linux":
    raise ImportError("fastoci runs on Linux only")

if TYPE_CHECKING:
    from fastoci import errors as errors
    from fastoci import events as events
    from fastoci._core import Buffer as Buffer
    from fastoci._core import Sha256 as Sha256
    from fastoci.configure.plan import ConfigurationPlan as ConfigurationPlan
    from fastoci.ends import CopyOptions as CopyOptions
    from fastoci.ends import EndOptions as EndOptions
    from fastoci.engine import Engine as Engine
    from fastoci.events import Observer as Observer
    from fastoci.image.attachments import Attachment as Attachment
    from fastoci.image.comparison import Comparison as Comparison
    from fastoci.image.comparison import FieldChange as FieldChange
    from fastoci.image.comparison import LayerPair as LayerPair
    from fastoci.image.descriptor import Descriptor as Descriptor
    from fastoci.image.digest import Digest as Digest
    from fastoci.image.inspection import InspectedBlob as InspectedBlob
    from fastoci.image.inspection import InspectedEntry as InspectedEntry
    from fastoci.image.inspection import InspectedImage as InspectedImage
    from fastoci.image.inspection import InspectedLayer as InspectedLayer
    from fastoci.image.inspection import Inspection as Inspection
    from fastoci.image.platform import Platform as Platform
    from fastoci.image.reference import Reference as Reference
    from fastoci.image.stored_image import StoredImage as StoredImage
    from fastoci.interfaces import BlobSource as BlobSource
    from fastoci.interfaces import BufferSource as BufferSource
    from fastoci.jobs.compare import FileChange as FileChange
    from fastoci.jobs.configure import configure_containerd as configure_containerd
    from fastoci.jobs.configure import configure_docker as configure_docker
    from fastoci.jobs.configure import configure_podman as configure_podman
    from fastoci.jobs.containerd import Into as Into
    from fastoci.jobs.containerd_images import Containerd as Containerd
    from fastoci.jobs.containerd_images import ContainerdImage as ContainerdImage
    from fastoci.jobs.copy import Copied as Copied
    from fastoci.jobs.destination import IntoPodman as IntoPodman
    from fastoci.jobs.image import Image as Image
    from fastoci.jobs.mounts import MountedImage as MountedImage
    from fastoci.jobs.mounts import mounts as mounts
    from fastoci.jobs.mounts import umount as umount
    from fastoci.jobs.plan import Layers as Layers
    from fastoci.jobs.plan import Resolved as Resolved
    from fastoci.jobs.podman import PodmanImage as PodmanImage
    from fastoci.jobs.prefetch_plan import BlobOutcome as BlobOutcome
    from fastoci.jobs.prefetch_plan import Evicted as Evicted
    from fastoci.jobs.prefetch_plan import ImageOutcome as ImageOutcome
    from fastoci.jobs.prefetch_plan import PlannedImage as PlannedImage
    from fastoci.jobs.prefetch_plan import PrefetchPlan as PrefetchPlan
    from fastoci.jobs.prefetch_plan import PrefetchResult as PrefetchResult
    from fastoci.jobs.prefetch_plan import Pruned as Pruned
    from fastoci.jobs.prefetch_plan import RefusedImage as RefusedImage
    from fastoci.jobs.publish import Published as Published
    from fastoci.jobs.push import Pushed as Pushed
    from fastoci.jobs.repair import Repair as Repair
    from fastoci.jobs.verify import BadBlob as BadBlob
    from fastoci.jobs.verify import Verification as Verification
    from fastoci.jobs.wanted_state import WantedState as WantedState
    from fastoci.limits import Limits as Limits
    from fastoci.lists.parsing import parse_list as parse_list
    from fastoci.lists.request import ImageList as ImageList
    from fastoci.lists.request import ListProblem as ListProblem
    from fastoci.lists.request import PrefetchRequest as PrefetchRequest
    from fastoci.lists.request import RegistryAccess as RegistryAccess
    from fastoci.lists.request import TagQuery as TagQuery
    from fastoci.registry.access import Access as Access
    from fastoci.registry.access import access as access
    from fastoci.registry.access import check_access as check_access
    from fastoci.registry.fetch.retry import RetryPolicy as RetryPolicy
    from fastoci.registry.login import logged_in as logged_in
    from fastoci.registry.login import login as login
    from fastoci.registry.login import logout as logout
    from fastoci.registry.options import RegistryOptions as RegistryOptions
    from fastoci.shortcuts import apply as apply
    from fastoci.shortcuts import pull as pull
    from fastoci.store.gc.collect import GcItem as GcItem
    from fastoci.store.gc.collect import GcPlan as GcPlan
    from fastoci.store.gc.retention import Retention as Retention
    from fastoci.store.usage import Amount as Amount
    from fastoci.store.usage import RefUsage as RefUsage
    from fastoci.store.usage import Usage as Usage
    from fastoci.transfer.retrying_source import RetryingSource as RetryingSource
    from fastoci.trust.files import read_trust_policy as read_trust_policy
    from fastoci.trust.policy import TrustPolicy as TrustPolicy
    from fastoci.unpack.erofs_files import ImageFile as ImageFile
    from fastoci.unpack.erofs_files import ImageFiles as ImageFiles
    from fastoci.versions import info as info

    __version__: str

_EXPORTS = {
    "Access": "registry.access",
    "Amount": "store.usage",
    "Attachment": "image.attachments",
    "BadBlob": "jobs.verify",
    "BlobSource": "interfaces",
    "Buffer": "_core",
    "BufferSource": "interfaces",
    "Comparison": "image.comparison",
    "ConfigurationPlan": "configure.plan",
    "Containerd": "jobs.containerd_images",
    "ContainerdImage": "jobs.containerd_images",
    "Copied": "jobs.copy",
    "CopyOptions": "ends",
    "Descriptor": "image.descriptor",
    "Digest": "image.digest",
    "FieldChange": "image.comparison",
    "FileChange": "jobs.compare",
    "GcItem": "store.gc.collect",
    "EndOptions": "ends",
    "Engine": "engine",
    "GcPlan": "store.gc.collect",
    "Image": "jobs.image",
    "ImageFile": "unpack.erofs_files",
    "ImageFiles": "unpack.erofs_files",
    "ImageList": "lists.request",
    "InspectedBlob": "image.inspection",
    "InspectedEntry": "image.inspection",
    "InspectedImage": "image.inspection",
    "InspectedLayer": "image.inspection",
    "Inspection": "image.inspection",
    "Into": "jobs.containerd",
    "LayerPair": "image.comparison",
    "Layers": "jobs.plan",
    "Limits": "limits",
    "ListProblem": "lists.request",
    "MountedImage": "jobs.mounts",
    "Observer": "events",
    "IntoPodman": "jobs.destination",
    "PodmanImage": "jobs.podman",
    "Platform": "image.platform",
    "BlobOutcome": "jobs.prefetch_plan",
    "Evicted": "jobs.prefetch_plan",
    "ImageOutcome": "jobs.prefetch_plan",
    "PlannedImage": "jobs.prefetch_plan",
    "PrefetchPlan": "jobs.prefetch_plan",
    "PrefetchRequest": "lists.request",
    "PrefetchResult": "jobs.prefetch_plan",
    "Pruned": "jobs.prefetch_plan",
    "Published": "jobs.publish",
    "Pushed": "jobs.push",
    "WantedState": "jobs.wanted_state",
    "RefusedImage": "jobs.prefetch_plan",
    "RefUsage": "store.usage",
    "Reference": "image.reference",
    "RegistryAccess": "lists.request",
    "RegistryOptions": "registry.options",
    "Repair": "jobs.repair",
    "Resolved": "jobs.plan",
    "Retention": "store.gc.retention",
    "RetryPolicy": "registry.fetch.retry",
    "RetryingSource": "transfer.retrying_source",
    "Sha256": "_core",
    "StoredImage": "image.stored_image",
    "TagQuery": "lists.request",
    "TrustPolicy": "trust.policy",
    "Usage": "store.usage",
    "Verification": "jobs.verify",
    "access": "registry.access",
    "check_access": "registry.access",
    "apply": "shortcuts",
    "configure_containerd": "jobs.configure",
    "configure_docker": "jobs.configure",
    "configure_podman": "jobs.configure",
    "errors": "",
    "events": "",
    "info": "versions",
    "logged_in": "registry.login",
    "login": "registry.login",
    "logout": "registry.login",
    "mounts": "jobs.mounts",
    "parse_list": "lists.parsing",
    "pull": "shortcuts",
    "read_trust_policy": "trust.files",
    "umount": "jobs.mounts",
}

__all__ = sorted(_EXPORTS)


if not TYPE_CHECKING:  # else a type checker takes every name for one that there is

    def __getattr__(name):
        if name == "__version__":
            from fastoci.release import VERSION

            return VERSION
        if name not in _EXPORTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = f"{__name__}.{_EXPORTS[name]}".rstrip(".")
        if name in ("errors", "events"):
            return importlib.import_module(f"{module}.{name}")
        return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
