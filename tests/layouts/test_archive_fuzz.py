"""Archives with wrong bytes: whatever they are, an error of ours or blobs that are what their digests say.

``FASTOCI_FUZZ_ROUNDS`` is for the long form.
"""

from __future__ import annotations

import gzip
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from fastoci.errors import FastociError
from fastoci.image import manifest as manifests
from fastoci.image.digest import Digest
from fastoci.layouts.docker_archive_source import DockerArchiveSource
from fastoci.layouts.oci_archive_source import OciArchiveSource
from fastoci.limits import Limits
from fastoci.testing.suites.filling import collect
from support.archives import Members, hybrid, image_of, layout, opened, saved, saved_v1, tar_bytes

ROUNDS = int(os.environ.get("FASTOCI_FUZZ_ROUNDS", "25"))
IMAGES = {"one:1": image_of("a", "b"), "two:2": image_of("a", "c")}
FORMS: dict[str, tuple[Members, type[OciArchiveSource] | type[DockerArchiveSource]]] = {
    "saved": (saved(IMAGES), DockerArchiveSource),
    "hybrid": (hybrid(IMAGES), DockerArchiveSource),
    "v1": (saved_v1("one:1", ["a", "b", "c"]), DockerArchiveSource),
    "layout": (layout(IMAGES), OciArchiveSource),
}


def flip(rng: random.Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def rename(rng: random.Random, data: bytearray) -> None:
    """A member gets another name, type or size, with the right checksum."""
    headers = [at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar"]
    at = rng.choice(headers or [0])
    match rng.randrange(3):
        case 0:
            data[at : at + 100] = rng.choice([b"../x", b"/x", b"manifest.json", b"index.json", b"a\xff"]).ljust(
                100, b"\0"
            )
        case 1:
            data[at + 156] = rng.choice(b"0123456xgLKS\0")
        case _:
            data[at + 124 : at + 136] = b"%011o\0" % rng.choice([0, 1, 511, 1 << 20, (1 << 33) - 1])
    data[at + 148 : at + 156] = b" " * 8
    data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + 512])


def text(rng: random.Random, data: bytearray) -> None:
    """Something in a document is something else, of the same length."""
    old, new = rng.choice(
        [(b"sha256:", b"sha999:"), (b"layer.tar", b"../../etc"), (b'"Layers"', b'"layers"'), (b"sha256/", b"../../.")]
    )
    places = [at for at in range(len(data)) if data.startswith(old, at)]
    if places:
        at = rng.choice(places)
        data[at : at + len(old)] = new


def cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(1024, len(data)) :]


def swap(rng: random.Random, data: bytearray) -> None:
    """Blocks change places."""
    one, two = (rng.randrange(len(data) // 512) * 512 for _ in range(2))
    data[one : one + 512], data[two : two + 512] = data[two : two + 512], data[one : one + 512]


CHANGES: list[Callable[[random.Random, bytearray], None]] = [flip, rename, text, cut, swap]


async def read(path: Path, kind: type[OciArchiveSource] | type[DockerArchiveSource]) -> None:
    """All there is, as a copy reads it; what is not what its digest says is found by whoever hashes it."""
    async with opened(path) as (archive, buffers):
        source = kind(archive, Limits())
        for image in await source.names():
            data = await source.manifest(image.top)
            assert Digest.of(data, image.top.digest.algorithm) == image.top.digest
            manifest = manifests.parse(data, image.top.media_type)
            for blob in (manifest.config, *manifest.layers):
                assert len(await collect(source.fetch(blob, 0, buffers))) == blob.size


@pytest.mark.parametrize("form", FORMS)
async def test_wrong_bytes_are_an_error_of_ours(tmp_path: Path, form: str) -> None:
    members, kind = FORMS[form]
    right, path = tar_bytes(members), tmp_path / "a.tar"
    path.write_bytes(right)
    await read(path, kind)
    refused = 0
    for seed in range(ROUNDS):
        rng = random.Random(f"{form} {seed}")
        data = bytearray(right)
        for change in rng.sample(CHANGES, rng.randint(1, 2)):
            change(rng, data)
        path.write_bytes(gzip.compress(data, 1) if seed % 3 == 0 else data)
        try:
            await read(path, kind)
        except FastociError:
            refused += 1
    assert refused > ROUNDS // 4
