"""What hangs on another document, at registries that list it and at those that do not; and what is taken away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import pytest

from fastoci.errors import FormatError, NotFoundError, RegistryError, UnsupportedError
from fastoci.image.attachments import referrers_tag
from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.mediatype import OCI_INDEX, OCI_MANIFEST
from fastoci.image.reference import Reference
from fastoci.registry.auth.credentials import Credentials
from fastoci.registry.client import Registry
from fastoci.registry.push.referrers import keep_listed
from fastoci.registry.push.repository import PushRepository
from fastoci.testing.registry import Registry as Server
from fastoci.testing.uploads import Uploads
from fastoci.transfer.scheduler import BytesSource
from support.streaming import streams

NAME = "team/app"
CONFIG = Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json")
SUBJECT = Digest.of(b"what others hang on")
TAG = referrers_tag(SUBJECT)


def artifact(word: str, *, subject: Digest | None = SUBJECT) -> tuple[Descriptor, bytes]:
    config = {"mediaType": CONFIG.media_type, "digest": str(CONFIG.digest), "size": CONFIG.size}
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": f"application/{word}",
        "config": config,
        "layers": [config],
        "annotations": {"word": word},
    }
    if subject is not None:
        document["subject"] = {"mediaType": OCI_MANIFEST, "digest": str(subject), "size": 19}
    data = json.dumps(document).encode()
    return Descriptor.of(data, OCI_MANIFEST), data


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path, subjects=False)


@asynccontextmanager
async def repository_of(server: Server, *, deleting: bool = False) -> AsyncIterator[PushRepository]:
    async with streams() as streaming, Registry(credentials=Credentials()) as registry:
        reference = Reference.parse(f"{server.address}/{NAME}:1")
        repository = registry.destination(reference, streaming, deleting=deleting)
        await repository.put_blob(CONFIG, BytesSource(b"{}"))
        yield repository


def listed(uploads: Uploads) -> list[dict[str, object]]:
    document = uploads.manifest(NAME, TAG)
    return [] if document is None else list(json.loads(document.data)["manifests"])


async def test_a_registry_that_lists_referrers_is_not_told_twice(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    async with Server(uploads=uploads) as server, repository_of(server) as repository:
        await repository.put_manifest(*artifact("a"))
        assert listed(uploads) == []
        assert not any("/referrers/" in record.path for record in server.log), "it said so in its answer"
        assert [each.digest for each in await repository.reading.referrers(SUBJECT)] == [artifact("a")[0].digest]


async def test_a_registry_that_lists_them_without_saying_so_is_asked(uploads: Uploads) -> None:
    async with Server(uploads=uploads) as server, repository_of(server) as repository:
        await repository.put_manifest(*artifact("a"))
        assert listed(uploads) == []


async def test_a_tag_lists_them_where_the_registry_does_not(uploads: Uploads) -> None:
    async with Server(uploads=uploads, referrers=False) as server, repository_of(server) as repository:
        for word in ("a", "b", "a"):
            await repository.put_manifest(*artifact(word))
        await repository.put_manifest(*artifact("alone", subject=None))
        found = await repository.reading.referrers(SUBJECT)
    rows = [{"artifactType": f"application/{word}", "annotations": {"word": word}} for word in ("a", "b")]
    assert [{key: row[key] for key in ("artifactType", "annotations")} for row in listed(uploads)] == rows
    assert [each.digest for each in found] == [artifact(word)[0].digest for word in ("a", "b")]


async def test_entries_of_others_stay_whatever_they_hold(uploads: Uploads) -> None:
    alone = artifact("alone", subject=None)
    other = {"mediaType": "odd", "digest": str(alone[0].digest), "size": 1, "more": [1, {"x": None}]}
    async with Server(uploads=uploads, referrers=False) as server, repository_of(server) as repository:
        await repository.put_manifest(*alone)
        await repository.put_manifest(*artifact("a"))
        first = listed(uploads)[0]
        data = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "x": 1, "manifests": [first, other]}).encode()
        document = uploads.manifest(NAME, TAG)
        assert document is not None
        object.__setattr__(document, "data", data)
        object.__setattr__(document, "digest", str(Digest.of(data)))
        await repository.put_manifest(*artifact("b"))
    assert [row["digest"] for row in listed(uploads)] == [
        str(artifact("a")[0].digest),
        str(alone[0].digest),
        str(artifact("b")[0].digest),
    ]
    assert other in listed(uploads)


async def test_writers_at_the_same_time_lose_no_entry(uploads: Uploads) -> None:
    words = [f"word-{count}" for count in range(6)]
    serving = Server(uploads=uploads, referrers=False)
    async with serving as server, repository_of(server) as one, repository_of(server) as two:
        both = [(one, two)[count % 2].put_manifest(*artifact(word)) for count, word in enumerate(words)]
        await asyncio.gather(*both)
    assert {row["digest"] for row in listed(uploads)} == {str(artifact(word)[0].digest) for word in words}


async def test_a_list_that_others_write_all_the_time_is_an_error() -> None:
    async def tagged(tag: str) -> tuple[Descriptor, bytes] | None:
        return None

    async def put(descriptor: Descriptor, data: bytes, tag: str) -> None:
        assert tag == TAG

    with pytest.raises(RegistryError, match="others write the list"):
        await keep_listed(SUBJECT, *artifact("a"), tagged, put, pause_s=0.0)


async def test_a_tag_that_is_no_list_is_left_alone(uploads: Uploads) -> None:
    async with Server(uploads=uploads, referrers=False) as server, repository_of(server) as repository:
        await repository.put_manifest(*artifact("mine", subject=None), TAG)
        with pytest.raises(FormatError, match="is no index"):
            await repository.put_manifest(*artifact("a"))


async def test_what_is_deleted_is_listed_no_more(uploads: Uploads) -> None:
    async with Server(uploads=uploads, referrers=False) as server, repository_of(server, deleting=True) as repository:
        for word in ("a", "b"):
            await repository.put_manifest(*artifact(word))
        top = repository.reference
        await repository.delete(Reference(top.domain, top.path, None, artifact("a")[0].digest))
        assert [row["digest"] for row in listed(uploads)] == [str(artifact("b")[0].digest)]
        with pytest.raises(NotFoundError):
            await repository.delete(Reference(top.domain, top.path, None, artifact("a")[0].digest))


@pytest.mark.parametrize(
    ("deletes", "by", "words"),
    [
        ("by digest", "tag", "REPOSITORY@DIGEST takes away the manifest, with all its tags"),
        ("nothing", "digest", "it deletes nothing"),
    ],
)
async def test_who_deletes_nothing_of_that_kind_says_what_to_do(
    deletes: Literal["by digest", "nothing"], by: str, words: str, uploads: Uploads
) -> None:
    uploads.faults.deletes = deletes
    async with Server(uploads=uploads) as server, repository_of(server, deleting=True) as repository:
        document = artifact("a", subject=None)
        await repository.put_manifest(*document, "1")
        top = repository.reference
        target = Reference(top.domain, top.path, "1", None) if by == "tag" else None
        with pytest.raises(UnsupportedError, match=words):
            await repository.delete(target or Reference(top.domain, top.path, None, document[0].digest))
        assert uploads.manifest(NAME, "1") is not None
