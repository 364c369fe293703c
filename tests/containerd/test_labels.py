"""Labels, refs and keys, as containerd writes them."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from fastoci.containerd import labels
from fastoci.image import mediatype
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest

A, B, C, D = (Digest("sha256", letter * 64) for letter in "abcd")


def test_a_lease_ends_at_a_moment_in_utc() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))
    assert labels.expiry(moment) == {"containerd.io/gc.expire": "2026-01-02T02:04:05Z"}


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (mediatype.OCI_MANIFEST, "manifest"),
        (mediatype.DOCKER_MANIFEST, "manifest"),
        (mediatype.OCI_INDEX, "index"),
        (mediatype.DOCKER_LIST, "index"),
        (mediatype.OCI_LAYER_ZSTD, "layer"),
        (mediatype.OCI_FOREIGN_GZIP, "layer"),
        (mediatype.DOCKER_LAYER_GZIP, "layer"),
        (f"{mediatype.DOCKER_LAYER}+encrypted", "layer"),
        (mediatype.OCI_CONFIG, "config"),
        (mediatype.DOCKER_CONFIG, "config"),
        ("application/vnd.containerd.container.checkpoint.config.v1+proto", "config"),
        ("application/octet-stream", "unknown"),
        ("application/vnd.in-toto+json", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_ref_is_named_by_the_kind_of_its_content(kind: str, word: str) -> None:
    assert labels.ref(Descriptor(kind, A, 1)) == f"{word}-{A}"


def test_a_ref_has_the_name_that_an_index_gives() -> None:
    descriptor = Descriptor(mediatype.OCI_MANIFEST, A, 1, annotations={"org.opencontainers.image.ref.name": "v1"})
    assert labels.ref(descriptor) == f"manifest-v1@{A}"


def test_a_manifest_keeps_its_config_and_layers_by_number() -> None:
    found = [Descriptor(mediatype.OCI_CONFIG, A, 1)]
    found += [Descriptor(mediatype.OCI_LAYER_GZIP, B, 1), Descriptor("text/plain", C, 1)]
    found += [Descriptor(mediatype.DOCKER_LAYER_GZIP, D, 1)]
    assert labels.children(found) == {
        "containerd.io/gc.ref.content.config": str(A),
        "containerd.io/gc.ref.content.l.0": str(B),
        "containerd.io/gc.ref.content.0": str(C),
        "containerd.io/gc.ref.content.l.1": str(D),
    }


def test_an_index_keeps_its_manifests_by_number_and_what_is_no_manifest_by_another() -> None:
    kinds = (mediatype.OCI_MANIFEST, mediatype.OCI_INDEX, mediatype.DOCKER_MANIFEST)
    assert labels.children(Descriptor(kind, each, 1) for kind, each in zip(kinds, (A, B, C), strict=True)) == {
        "containerd.io/gc.ref.content.m.0": str(A),
        "containerd.io/gc.ref.content.0": str(B),
        "containerd.io/gc.ref.content.m.1": str(C),
    }


def test_a_second_config_has_a_number() -> None:
    found = labels.children([Descriptor(mediatype.OCI_CONFIG, A, 1), Descriptor(mediatype.OCI_CONFIG, B, 1)])
    assert found == {"containerd.io/gc.ref.content.config": str(A), "containerd.io/gc.ref.content.config1": str(B)}


def test_sources_are_joined_in_order_and_without_doubles() -> None:
    key = "containerd.io/distribution.source.docker.io"
    assert labels.source("docker.io", "library/b", {}) == {key: "library/b"}
    assert labels.source("docker.io", "library/b", {key: "library/c,library/a"}) == {
        key: "library/a,library/b,library/c"
    }
    assert labels.source("docker.io", "library/a", {key: "library/a"}) == {key: "library/a"}


def test_a_source_that_containerd_would_not_take_is_left_out() -> None:
    key = "containerd.io/distribution.source.h"
    assert labels.source("h", "b", {key: "a" * (4096 - len(key) - 2)}) != {}
    assert labels.source("h", "b", {key: "a" * (4096 - len(key) - 1)}) == {}


def test_a_snapshot_is_named_and_kept_by_its_chain_id() -> None:
    assert labels.keeps_snapshot("overlayfs", A) == {"containerd.io/gc.ref.snapshot.overlayfs": str(A)}
    assert labels.extract_key(A, "7-x") == f"extract-7-x {A}"
    lowest = {"containerd.io/snapshot.ref": str(B), "containerd.io/snapshot/diff-id": str(A)}
    assert labels.extraction(A, B, None) == lowest
    assert labels.extraction(A, B, C) == {**lowest, "containerd.io/snapshot/parent-chain-id": str(C)}


def test_an_update_names_the_labels_that_it_changes() -> None:
    assert labels.mask({"a.b/c": "1", "d": "2"}) == ("labels.a.b/c", "labels.d")
