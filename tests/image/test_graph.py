"""The walk over documents: what is needed comes first, and what an index claims counts as far as it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastoci.image.descriptor import Descriptor
from fastoci.image.graph import tops_of, walk
from fastoci.image.links import Link
from fastoci.image.mediatype import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from fastoci.image.stored_image import StoredImage

INDEX, ONE, TWO = (Link(kind, name, 1) for kind, name in ((OCI_INDEX, "i"), (OCI_MANIFEST, "1"), (OCI_MANIFEST, "2")))
A, B, SHARED = (Link(OCI_CONFIG, name, 1) for name in ("a", "b", "shared"))
DOCUMENTS = {"i": (ONE, TWO), "1": (A, SHARED), "2": (B, SHARED)}


def walked(
    *tops: Link, documents: Mapping[str, Sequence[Link]] = DOCUMENTS, absent: str = "", strict: bool = False
) -> list[tuple[str, bool]]:
    read: list[str] = []

    def children(link: Link, top: bool) -> Sequence[Link] | None:
        read.append(link.digest)
        return documents.get(link.digest)

    found = walk(tops, children, lambda link: None if link.digest in absent else link, strict=strict)
    names = [(link.digest, needed) for link, needed in found]
    assert len(read) == len(set(read)), "a document is read twice"
    return names


def test_what_a_held_manifest_names_is_needed_and_comes_before_what_its_index_names() -> None:
    found = walked(INDEX, ONE)
    assert found == [
        ("1", True),
        ("a", True),
        ("shared", True),
        ("i", True),
        ("2", False),
        ("b", False),
        ("shared", False),
    ]


def test_what_an_index_names_and_is_absent_is_left_out_and_needed_blobs_are_not() -> None:
    assert walked(INDEX, ONE, absent="2") == [("1", True), ("a", True), ("shared", True), ("i", True)]
    assert ("a", True) in walked(ONE, absent="a")


def test_below_a_strict_index_everything_that_is_there_is_needed() -> None:
    assert dict(walked(INDEX, strict=True)) == {each: True for each in ("i", "1", "2", "a", "b", "shared")}


def test_a_document_under_two_types_is_followed_under_each() -> None:
    odd = Link(OCI_INDEX, "1", 1)
    seen: list[tuple[str, str]] = []

    def children(link: Link, top: bool) -> Sequence[Link] | None:
        seen.append((link.digest, link.media_type))
        return [odd, ONE, odd] if link is INDEX else ()

    list(walk([INDEX], children, lambda link: link))
    assert sorted(seen) == [("1", OCI_INDEX), ("1", OCI_MANIFEST), ("i", OCI_INDEX)]


def test_an_index_that_names_itself_ends() -> None:
    assert walked(INDEX, documents={"i": [INDEX, INDEX]}) == [("i", True)]


def test_an_image_is_walked_from_its_manifests_and_from_what_its_name_leads_to() -> None:
    top, manifest = Descriptor.of(b"top", OCI_INDEX), Descriptor.of(b"manifest", OCI_MANIFEST)
    image = StoredImage("registry.test/app:1", top, {"linux/amd64": manifest}, "")
    assert [link.digest for link in tops_of(image)] == [str(manifest.digest), str(top.digest)]
