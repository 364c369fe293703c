"""The referrers of a manifest: by the registry's list, by the tag for registries without one, from hostile servers.

Covers: registry/fetch/lists.py, image/attachments.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from fastoci.errors import DeniedError, FormatError, RegistryError
from fastoci.image import mediatype
from fastoci.image.attachments import cosign_tags, is_signature, referrers_tag, subject_of
from fastoci.image.descriptor import Descriptor, encode
from fastoci.image.digest import Digest
from fastoci.image.reference import Reference
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.fetch.retry import RetryPolicy
from support.scripted_server import Asked, Raw, Script, answer, serving

SUBJECT = Digest.of(b"subject")
SBOM, SIGNATURE = "application/vnd.example.sbom", "application/vnd.cncf.notary.signature"
INDEX = {"Content-Type": mediatype.OCI_INDEX}


def referrer(name: str, kind: str = SBOM) -> Descriptor:
    return Descriptor(mediatype.OCI_MANIFEST, Digest.of(name.encode()), 100, artifact_type=kind)


def listing(*entries: Descriptor, link: str = "", **headers: str) -> Raw:
    body = {"schemaVersion": 2, "mediaType": mediatype.OCI_INDEX, "manifests": [encode(each) for each in entries]}
    fields = {**INDEX, **headers, **({"Link": link} if link else {})}
    return answer(200, json.dumps(body).encode(), fields)


async def asked_of(script: Script, kind: str = "") -> tuple[tuple[Descriptor, ...], list[str]]:
    patient = RetryPolicy().asked(0, None)
    async with serving(script) as server, Registry(credentials=Credentials(), retry=patient) as client:
        repository = client.repository(Reference.parse(f"{server.address}/app"))
        found = await repository.referrers(SUBJECT, kind)
        return found, [each.path.removeprefix("/v2/app/") for each in server.asked if each.path != "/v2/"]


def by_path(answers: Mapping[str, Raw]) -> Script:
    return lambda asked: answers.get(asked.path.removeprefix("/v2/app/"), answer(404))


API, TAG = f"referrers/{SUBJECT}", f"manifests/sha256-{SUBJECT.hex}"


async def test_pages_of_referrers_are_read_to_the_last_each_once() -> None:
    first, second = referrer("1"), referrer("2")

    def respond(asked: Asked) -> Raw:
        if dict(asked.query).get("token") == "x":
            return listing(first, second)
        return listing(first, link='<http://169.254.169.254/secret?token=x>; rel="next"')

    found, asked = await asked_of(respond)
    assert found == (first, second)
    assert asked == [API, API]


async def test_a_list_of_referrers_without_an_end_is_refused() -> None:
    with pytest.raises(FormatError, match="the list of referrers does not end after 1"):
        await asked_of(lambda asked: listing(referrer("1"), link="<?token=x>; rel=next"))


@pytest.mark.parametrize("filtered", [True, False])
async def test_one_type_is_asked_for_and_whatever_else_comes_is_left_out(filtered: bool) -> None:
    sbom, signature = referrer("1"), referrer("2", SIGNATURE)
    queries = []

    def respond(asked: Asked) -> Raw:
        queries.append(dict(asked.query))
        return listing(sbom, **{"OCI-Filters-Applied": "artifactType"}) if filtered else listing(sbom, signature)

    found, _ = await asked_of(respond, SBOM)
    assert found == (sbom,)
    assert queries == [{"artifactType": SBOM}]


@pytest.mark.parametrize("status", [400, 404, 405, 406, 501])
async def test_a_registry_without_the_list_is_asked_for_the_tag(status: int) -> None:
    found, asked = await asked_of(by_path({API: answer(status), TAG: listing(referrer("1"))}))
    assert found == (referrer("1"),)
    assert asked == [API, TAG]


async def test_a_page_for_people_in_place_of_the_list_is_no_list() -> None:
    page = answer(200, b"<html>", {"Content-Type": "text/html"})
    found, _ = await asked_of(by_path({API: page, TAG: listing(referrer("1"))}))
    assert found == (referrer("1"),)


async def test_without_list_and_tag_nothing_hangs_on_it() -> None:
    assert await asked_of(by_path({})) == ((), [API, TAG])


async def test_a_manifest_under_the_tag_is_no_list() -> None:
    config = encode(Descriptor.of(b"{}", mediatype.OCI_CONFIG))
    manifest = json.dumps({"schemaVersion": 2, "config": config, "layers": []}).encode()
    tagged = answer(200, manifest, {"Content-Type": mediatype.OCI_MANIFEST})
    assert (await asked_of(by_path({TAG: tagged})))[0] == ()


@pytest.mark.parametrize(("status", "error"), [(403, DeniedError), (429, RegistryError), (503, RegistryError)])
async def test_a_registry_that_does_not_say_is_an_error_and_not_an_empty_list(
    status: int, error: type[RegistryError]
) -> None:
    with pytest.raises(error):
        await asked_of(by_path({API: answer(status), TAG: listing(referrer("1"))}))


async def test_a_list_that_is_a_manifest_too_is_refused() -> None:
    both = json.dumps({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}).encode()
    with pytest.raises(FormatError, match="as if it were of another type"):
        await asked_of(by_path({API: answer(200, both, INDEX)}))


async def test_entries_that_cannot_be_read_are_left_out() -> None:
    rows = [{**encode(referrer("1")), "digest": "sha256:../../etc/passwd"}, encode(referrer("2"))]
    body = json.dumps({"schemaVersion": 2, "manifests": rows}).encode()
    found, _ = await asked_of(by_path({API: answer(200, body, INDEX)}))
    assert found == (referrer("2"),)


def test_the_tags_of_what_hangs_on_a_document() -> None:
    assert referrers_tag(SUBJECT) == f"sha256-{SUBJECT.hex}"
    assert cosign_tags(SUBJECT) == tuple(f"sha256-{SUBJECT.hex}.{suffix}" for suffix in ("sig", "att", "sbom"))


def test_the_tags_of_a_long_digest_fit_into_a_tag() -> None:
    long = Digest.of(b"subject", "sha512")
    assert referrers_tag(long) == f"sha512-{long.hex[:64]}"
    assert cosign_tags(long) == ()


def test_signatures_are_known_by_their_type() -> None:
    bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
    assert all(map(is_signature, [SIGNATURE, bundle, "application/vnd.dev.cosign.artifact.sig.v1+json"]))
    assert not any(map(is_signature, [SBOM, "", f"{SIGNATURE}.more", f"x{bundle}"]))


def test_a_subject_is_read_once_and_by_its_own_name() -> None:
    body = {"subject": encode(Descriptor.of(b"subject", mediatype.OCI_MANIFEST))}
    assert subject_of(json.dumps(body).encode()) == SUBJECT
    assert subject_of(b"{}") is None
    for confused in (
        '"Subject": {}, "subject": null',
        '"subject": null, "subject": null',
        '"subject": {"digest": "x"}',
    ):
        with pytest.raises(FormatError):
            subject_of(f"{{{confused}}}".encode())
