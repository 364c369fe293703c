"""The links of documents that were parsed before: what the strict parsers find, and typed errors for the rest."""

from __future__ import annotations

import json

import pytest

from fastoci.errors import FormatError
from fastoci.image import index, manifest, mediatype
from fastoci.image.links import Link, has_links, links
from fastoci.testing.images import Image, Index
from fastoci.testing.layers import Entry, Layer

LAYERS = [Layer.build([Entry("a", data=b"a")], "gzip"), Layer.build([Entry("b", data=b"b")], "none")]


@pytest.mark.parametrize("docker", [False, True])
def test_a_manifest_links_to_its_config_and_layers_as_the_strict_parser_says(docker: bool) -> None:
    image = Image.build(LAYERS, docker=docker)
    parsed = manifest.parse(image.manifest, image.media_type)
    assert len(parsed.layers) == 2
    assert links(image.manifest, image.media_type) == tuple(map(Link.of, (parsed.config, *parsed.layers)))


@pytest.mark.parametrize("docker", [False, True])
def test_an_index_links_to_its_manifests_as_the_strict_parser_says(docker: bool) -> None:
    built = Index.build([Image.build(LAYERS), Image.build(LAYERS[:1])], docker=docker)
    parsed = index.parse(built.index, built.media_type)
    assert len(parsed.manifests) == 2
    assert links(built.index, built.media_type) == tuple(map(Link.of, parsed.manifests))


def test_an_index_whose_manifests_are_null_links_to_nothing() -> None:
    assert links(b'{"manifests": null}', mediatype.OCI_INDEX) == ()


def test_other_types_link_to_nothing_and_are_not_read() -> None:
    assert not has_links("application/vnd.oci.image.config.v1+json")
    assert links(b"no JSON", "application/vnd.oci.image.config.v1+json") == ()
    assert all(map(has_links, (*mediatype.MANIFESTS, *mediatype.INDEXES)))


@pytest.mark.parametrize(
    "entry", [{}, None, {"mediaType": 1, "digest": "sha256:", "size": 1}, {"digest": "", "size": 1}]
)
def test_a_broken_entry_of_an_index_leads_nowhere_unless_all_of_it_counts(entry: object) -> None:
    sound = {"mediaType": mediatype.OCI_MANIFEST, "digest": f"sha256:{'a' * 64}", "size": 3}
    data = json.dumps({"manifests": [sound, entry]}).encode()
    assert links(data, mediatype.OCI_INDEX) == (Link(mediatype.OCI_MANIFEST, f"sha256:{'a' * 64}", 3),)
    with pytest.raises(FormatError):
        links(data, mediatype.OCI_INDEX, whole=True)


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b"null", json.dumps({"config": {}, "layers": [], "manifests": {}}).encode()],
)
@pytest.mark.parametrize("media_type", [mediatype.OCI_MANIFEST, mediatype.OCI_INDEX])
def test_what_is_not_of_the_form_is_a_format_error(document: bytes, media_type: str) -> None:
    with pytest.raises(FormatError):
        links(document, media_type)
