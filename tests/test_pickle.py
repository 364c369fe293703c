"""Values cross processes: results, plans and options survive pickle and copy whole, and names are checked again."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import typing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import fastoci
from fastoci import events
from fastoci.configure.edits import Edit
from fastoci.configure.plan import ConfigurationPlan
from fastoci.ends import CopyOptions, EndOptions
from fastoci.errors import NotFoundError, ReferenceSyntaxError, StoreError
from fastoci.image import manifest
from fastoci.image.attachments import Attachment
from fastoci.image.comparison import Comparison, FieldChange, LayerPair
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.inspection import InspectedBlob, InspectedEntry, InspectedImage, InspectedLayer, Inspection
from fastoci.image.platform import Platform
from fastoci.image.reference import Reference
from fastoci.image.stored_image import StoredImage
from fastoci.jobs.compare import FileChange
from fastoci.jobs.containerd import Into
from fastoci.jobs.containerd_images import ContainerdImage
from fastoci.jobs.copy import Copied
from fastoci.jobs.destination import IntoPodman
from fastoci.jobs.mounts import MountedImage
from fastoci.jobs.plan import Layers, PullPlan, Resolved
from fastoci.jobs.podman import PodmanImage
from fastoci.jobs.prefetch_plan import (
    BlobOutcome,
    Evicted,
    ImageOutcome,
    PlannedImage,
    PrefetchPlan,
    PrefetchResult,
    Pruned,
    RefusedImage,
)
from fastoci.jobs.publish import Published
from fastoci.jobs.push import Pushed
from fastoci.jobs.repair import Repair
from fastoci.jobs.verify import BadBlob, Verification
from fastoci.jobs.wanted_state import WantedState
from fastoci.limits import Limits
from fastoci.lists.request import ImageList, ListProblem, PrefetchRequest, RegistryAccess, TagQuery
from fastoci.registry.access import Access
from fastoci.registry.fetch.retry import RetryPolicy
from fastoci.registry.options import RegistryOptions
from fastoci.store.gc.collect import GcItem, GcPlan
from fastoci.store.gc.retention import Retention
from fastoci.store.usage import Amount, RefUsage, Usage
from fastoci.stream.verify import Verifier
from fastoci.testing.images import Image
from fastoci.testing.layers import Layer, from_seed
from fastoci.trust.policy import TrustPolicy
from fastoci.unpack.erofs_files import ImageFile

BAD = NotFoundError("no such blob", url="https://r.test/v2/", status=404)
BROKEN = StoreError("it does not parse", path="/s/refs/x")
AMOUNT = Amount(3, 4)
DIGEST = Digest.of(b"content")
BLOB = Descriptor(
    "a/b", DIGEST, 7, urls=("u",), annotations={"k": "v"}, data=b"content", platform=Platform("linux", "arm64", "v8")
)
REFERENCE = Reference.parse(f"redis:7@{DIGEST}")
_IMAGE = Image.build([Layer.build(from_seed(1, files=1, size=10), "gzip")])
RESOLVED = Resolved(
    REFERENCE,
    ((_IMAGE.descriptor, _IMAGE.manifest),),
    manifest.parse(_IMAGE.manifest, _IMAGE.descriptor.media_type),
    Platform("linux", "amd64"),
)
REQUEST = PrefetchRequest("redis:7", ("linux/arm64",), 3, True, origin="images.txt:1")
PLANNED, REFUSED = PlannedImage(REQUEST, (RESOLVED,), 7), RefusedImage(REQUEST, BAD)
PLAN = PrefetchPlan((PLANNED,), (REFUSED,), (BLOB,), 1, 1, 1, {"r.test": 1}, 1, None, None, 1)
QUERY = TagQuery("r.test/app", "semver", "^1", "list:2", ("linux",), 1, True, "/trees/app")
ACCESS = RegistryAccess("r.test", "me", "secret", False, Path("/certs"), "list:1")
PROBLEM = ListProblem("list:3", "it is not known")
USAGE = Usage(
    unique=AMOUNT,
    shared=AMOUNT,
    reclaimable=AMOUNT,
    elsewhere=AMOUNT,
    missing=AMOUNT,
    partial=AMOUNT,
    layers=AMOUNT,
    references=(RefUsage("redis", AMOUNT, AMOUNT, Amount()),),
    broken=(BROKEN,),
)
BAD_BLOB = BadBlob(str(DIGEST), "corrupt", "/s/b", 7, 7, "sha256:0", "it is not", ("redis",))
INSPECTED = InspectedBlob(media_type="a/b", digest=str(DIGEST), size=7)
LAYER = InspectedLayer(media_type="a/b", digest=str(DIGEST), size=7, created_by="RUN x", entries=3)
LOOKED_AT = InspectedImage(
    platform="linux/amd64",
    manifest=INSPECTED,
    config_blob=INSPECTED,
    size=7,
    layers=(LAYER,),
    config={"Env": ["A=1"]},
    history=({"created_by": "RUN x"},),
)
ENTRY = InspectedEntry(media_type="a/b", digest=str(DIGEST), size=7, annotations={"k": "v"})
FIELD = FieldChange(path="config.Env", left=["A=1"], right=None)
PAIR = LayerPair(left=LAYER, right=None)
FILE = ImageFile("/etc/motd", "file", 0o644, 1, 2, 3, 4, 1)
VALUES: list[object] = [
    INSPECTED,
    LAYER,
    LOOKED_AT,
    ENTRY,
    Attachment(BLOB, b"content", DIGEST, "sha256-0.sig"),
    Inspection(
        name="redis",
        media_type="a/b",
        digest="d",
        size=1,
        entries=(ENTRY,),
        images=(LOOKED_AT,),
        documents={"d": b"{}"},
    ),
    FIELD,
    PAIR,
    Comparison(left=LOOKED_AT, right=LOOKED_AT, fields=(FIELD,), layers=(PAIR,), is_reordered=False),
    FileChange(path="/etc/motd", change="changed", facets=("mode",), left=FILE, right=FILE),
    MountedImage("/mnt", "ab" * 32, "redis:7", "loop", ""),
    PodmanImage("docker.io/library/redis:7", "ab" * 32, "sha256:" + "cd" * 32, "2023-11-14T22:13:20Z"),
    DIGEST,
    Digest.of(b"", "sha512"),
    Platform("linux", "amd64", "v3", "1.0"),
    BLOB,
    REFERENCE,
    Reference.parse("[::1]:5000/a/b"),
    Reference.parse("localhost/x:tag"),
    Limits(memory=32 << 20, holder_s=5.0),
    RegistryOptions(tls_verify=False, authfile="auth.json", creds=("me", "secret"), credential_providers=("a", "b")),
    RetryPolicy(tries=2),
    TrustPolicy.accept_anything(),
    Layers("erofs", only=True),
    Into(namespace="k8s.io", pin=True),
    IntoPodman(),
    ContainerdImage("h/app:1", str(DIGEST), 7, True, "2026-01-02T03:04:05Z", True, ("node",)),
    QUERY,
    ACCESS,
    PROBLEM,
    ImageList((REQUEST,), (QUERY,), (ACCESS,), (PROBLEM,)),
    Access("https://r.test/v2/", "a/b", True, True, True, ("/ca.crt",), ("X-A",), "me", "auth.json"),
    Retention(max_age_s=1.0, max_size=100),
    RESOLVED,
    PullPlan(RESOLVED, (BLOB,)),
    REQUEST,
    REFUSED,
    PLANNED,
    PLAN,
    ImageOutcome(REQUEST, "failed", error=BAD),
    BlobOutcome("sha256:00", 1, "r.test", 0.0, 1.5),
    PrefetchResult((ImageOutcome(REQUEST, "present"),), (), PLAN, "2026-01-01T00:00:00Z", 1.0),
    WantedState(list_name="web", prune=True),
    Evicted((GcItem("ref", "redis", 0, "old"),)),
    Pruned(("redis:6",), ("redis:5",), "", (GcItem("blob", str(DIGEST), 7, "nobody needs it"),)),
    StoredImage("docker.io/library/redis:7", BLOB, {"linux/arm64": BLOB}, "2026-01-01T00:00:00Z", True, 7),
    FILE,
    GcItem("blob", str(DIGEST), 7, "nobody needs it"),
    GcPlan((GcItem("ref", "redis", 0, "old"),), 3, 4, {"refs/x": (1, 2, 3)}),
    AMOUNT,
    RefUsage("redis", AMOUNT, AMOUNT, Amount()),
    USAGE,
    BAD_BLOB,
    Verification(3, 4, (BAD_BLOB,), "sha256:1"),
    Repair((str(DIGEST),), (("redis", BAD),)),
    CopyOptions(
        platforms=("linux/arm64",), names=("2",), source=EndOptions(RegistryOptions(), "/blobs"), compress="zstd:3"
    ),
    EndOptions(shared_blobs="blobs"),
    Copied("docker://redis", "oci:redis", BLOB, 1, 2, 3, 4, 5),
    Pushed(1, 2, 3, 4),
    Published(REFERENCE, BLOB, BLOB, Pushed()),
    ConfigurationPlan((Edit("/etc/f", None, b"new"),), ("a note",), ("containerd",)),
    events.UnpackDone("redis", "/root", 3, 4, {"xattr": 1}),
]


def pickled(protocol: int, value: Any) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))


WAYS: dict[str, Callable[[Any], Any]] = {
    **{f"pickle {number}": partial(pickled, number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def is_value(kind: type) -> bool:
    return issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)


def names(kind: type) -> list[str]:
    """The fields of a value."""
    of = msgspec.structs.fields if issubclass(kind, msgspec.Struct) else dataclasses.fields
    return [field.name for field in of(kind)]


def shown(value: object) -> object:
    """What a value is made of, errors included, which are equal to themselves alone."""
    if isinstance(value, BaseException):
        return type(value), value.args, vars(value)
    if is_value(type(value)):
        return type(value), [shown(getattr(value, name)) for name in names(type(value))]
    if isinstance(value, tuple):
        return tuple(map(shown, value))
    return value


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_survives_with_all_that_it_has(value: object, way: Callable[[object], object]) -> None:
    again = way(value)
    assert type(again) is type(value)
    assert shown(again) == shown(value)


def test_every_public_value_and_event_is_among_those_that_are_tried() -> None:
    public = [getattr(fastoci, name) for name in fastoci.__all__]
    values = {each for each in public if inspect.isclass(each) and is_value(each)}
    assert values <= {type(value) for value in VALUES}
    for event in typing.get_args(events.Event):
        made = event(*names(event))
        assert pickle.loads(pickle.dumps(made)) == made


def forged(value: msgspec.Struct, **fields: object) -> bytes:
    """The pickle of a value whose fields were written past its constructor."""
    made = copy.copy(value)
    for name, it in fields.items():
        msgspec.structs.force_setattr(made, name, it)
    return pickle.dumps(made)


def test_a_digest_that_comes_from_elsewhere_is_checked_again() -> None:
    for text in ("../../../etc/passwd", "A" * 64, "0" * 63):
        with pytest.raises(ReferenceSyntaxError):
            pickle.loads(forged(DIGEST, hex=text))
        with pytest.raises(ReferenceSyntaxError):
            pickle.loads(pickle.dumps([BLOB, 1]).replace(DIGEST.hex.encode(), text.ljust(64, "x").encode()))


def test_a_reference_that_comes_from_elsewhere_is_checked_again() -> None:
    for fields in ({"path": "../x"}, {"domain": "a b"}, {"tag": "a/b"}, {"path": "UP"}):
        with pytest.raises(ReferenceSyntaxError):
            pickle.loads(forged(REFERENCE, **fields))


def test_a_proof_stays_where_it_was_made() -> None:
    proof = Verifier(Digest.of(b""), 0).proof()
    for way in WAYS.values():
        with pytest.raises(TypeError, match="a proof where it was made"):
            way(proof)


def test_options_keep_the_paths_of_where_they_were_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(RegistryOptions(authfile="auth.json"))
    monkeypatch.chdir("/")
    assert pickle.loads(data).authfile == tmp_path / "auth.json"
