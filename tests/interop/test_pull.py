"""The shared images, from Debian's docker-registry to a store and onto disk, held against umoci and listings."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.testing.images import Image, write_layout
from fastoci.testing.layers import Layer
from fastoci.testing.registry import Registry, serve
from fastoci.testing.trees import Node, differences, listing
from support.expected_trees import expected_tree

IMAGES = Path(__file__).resolve().parents[2].parent / "shared" / "images"
OCI = ["hello-world", "busybox-musl", "alpine", "debian-slim", "node-app"]
LARGE = "node-app"  # which umoci takes half a minute for: with FASTOCI_IMAGES=all
EVERYTHING = os.environ.get("FASTOCI_IMAGES") == "all"
DOCKER = [
    "registry2",
    "alpine-cosign-fixture",
    "alpine-cosign-fixture-list",
    "busybox-schema2-rust",
    "busybox-schema2-imgutil",
]
ARM = "alpine-schema2-rules_docker"  # for linux/arm/v7 only
NAMELESS = "alpine-net-monitor"  # its manifest does not say its media type, so skopeo refuses it
SLACK = 8 << 20  # bytes of a large blob that may be sent twice
TWICE = "zstd-skippable-first"  # its layer is zstd inside gzip, and its diff_id that of the tar: umoci refuses it too
AMD64 = ("--platform", "linux/amd64")


class Access(Protocol):
    method: str
    path: str
    status: int
    size: int


class Peer(Protocol):
    """What these tests need of the fixture ``docker_registry``."""

    address: str

    def position(self) -> int: ...
    def accesses(self, since: int = 0) -> Sequence[Access]: ...


Push = Callable[[str, str], str]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def edge_cases() -> list[str]:
    """The tags of ``edge-cases``; a placeholder without the folder, so that the fixture ``shared`` can say so."""
    index = IMAGES / "edge-cases" / "index.json"
    if not index.exists():
        return ["absent"]
    rows = json.loads(index.read_bytes())["manifests"]
    return [row["annotations"]["org.opencontainers.image.ref.name"] for row in rows]


@pytest.fixture(scope="session")
def push(docker_registry: Peer, copy_image: Callable[..., None], shared: Path) -> Push:
    """``push("oci", "alpine")`` has the image of that layout in docker-registry, byte for byte, and names it there."""
    # skopeo does not see Docker's manifests in an OCI layout, so it copies from a registry over the layout.
    pushed: set[str] = set()

    def copy(layout: str, name: str) -> str:
        reference = f"{docker_registry.address}/{layout}/{name}:latest"
        if reference not in pushed:
            with serve(Registry()) as source:
                source.add_layout(shared / "images" / layout)
                origin = f"docker://{source.address}/{name}:latest"
                copy_image(origin, f"docker://{reference}", "--all", "--preserve-digests")
            pushed.add(reference)
        return reference

    return copy


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory for big trees, in memory where it can be."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None) as name:
        yield Path(name)


def succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


def blob_gets(accesses: Sequence[Access]) -> Counter[str]:
    return Counter(access.path for access in accesses if access.method == "GET" and "/blobs/" in access.path)


def fetched_once(accesses: Sequence[Access], blobs: Mapping[str, int]) -> None:
    """Each blob was sent once: by one answer, or in parts that together are hardly more than it.

    When parts take over, the answer that sends the whole is cut, and what is on its way by then is lost.
    """
    sent: Counter[str] = Counter()
    for access in accesses:
        if access.method == "GET" and "/blobs/" in access.path:
            sent[access.path.rpartition("/")[2]] += access.size
    assert sent.keys() == blobs.keys()
    assert {digest: size for digest, size in sent.items() if not blobs[digest] <= size <= blobs[digest] + SLACK} == {}
    answers = blob_gets(accesses)
    assert {path for path, count in answers.items() if count > 1 and blobs[path.rpartition("/")[2]] < SLACK} == set()


def served_manifest(reference: str, peer: Callable[[str], str]) -> str:
    command = [peer("skopeo"), "inspect", "--raw", "--tls-verify=false", f"docker://{reference}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def wanted_blobs(references: Sequence[str], peer: Callable[[str], str]) -> dict[str, int]:
    """Digest and size of the config and layers of each image, for the platform that the tests pull."""
    blobs: dict[str, int] = {}
    for reference in references:
        command = [peer("skopeo"), "--override-os", "linux", "--override-arch", "amd64", "inspect", "--raw"]
        manifest = json.loads(served_manifest(reference, peer))
        for entry in manifest.get("manifests", []):
            if entry["platform"].get("architecture") == "amd64" and entry["platform"]["os"] == "linux":
                address = f"docker://{reference.rpartition(':')[0]}@{entry['digest']}"
                done = subprocess.run([*command, "--tls-verify=false", address], check=True, capture_output=True)
                manifest = json.loads(done.stdout)
                break
        blobs |= {blob["digest"]: blob["size"] for blob in [manifest["config"], *manifest["layers"]]}
    return blobs


def umoci_tree(reference: str, work: Path, peer: Callable[[str], str]) -> list[Node]:
    """The image's amd64 tree as umoci makes it, from skopeo's copy."""
    skopeo = [peer("skopeo"), "--override-os", "linux", "--override-arch", "amd64", "--insecure-policy", "copy", "-q"]
    subprocess.run([*skopeo, "--src-tls-verify=false", f"docker://{reference}", f"oci:{work}/layout:t"], check=True)
    return umoci_unpack(work, peer)


def umoci_unpack(work: Path, peer: Callable[[str], str]) -> list[Node]:
    command = [peer("umoci"), "raw", "unpack", "--image", f"{work}/layout:t", f"{work}/umoci"]
    subprocess.run(command, check=True, capture_output=True)
    return listing(work / "umoci")


@pytest.mark.skipif(os.geteuid() != 0, reason="umoci keeps owners as root only")
@pytest.mark.parametrize(
    ("layout", "name"),
    [("oci", name) for name in OCI if name != LARGE or EVERYTHING]
    + [("docker-schema2", name) for name in [*DOCKER, ARM]],
)
def test_a_published_image_unpacks_to_umocis_tree(
    layout: str, name: str, push: Push, cli: Cli, memory: Path, peer: Callable[[str], str]
) -> None:
    reference = push(layout, name)
    platform = ("--platform", "linux/arm/v7") if name == ARM else AMD64
    succeeded(cli("pull", reference, *platform, "--store", memory / "store", "--rootfs", memory / "tree"))
    assert differences(umoci_tree(reference, memory, peer), listing(memory / "tree")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="umoci keeps owners as root only")
async def test_a_manifest_that_does_not_say_its_type_unpacks_to_umocis_tree(
    shared: Path, memory: Path, peer: Callable[[str], str], cli: Cli
) -> None:
    blobs = shared / "images" / "docker-schema2" / "blobs" / "sha256"
    registry = Registry()
    registry.add_layout(shared / "images" / "docker-schema2")
    async with registry:
        document = await registry.manifest(NAMELESS, "latest")
        assert document is not None and b'"mediaType":"application/vnd.docker.distribution' not in document.data
        reference = f"{registry.address}/{NAMELESS}:latest"
        arguments = ("pull", reference, *AMD64, "--store", memory / "store", "--rootfs", memory / "tree")
        succeeded(await asyncio.to_thread(cli, *arguments))
    manifest = json.loads(document.data)
    (row,) = manifest["layers"]
    digest = Digest.parse(row["digest"])
    diff_id = Digest.parse(json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())["rootfs"]["diff_ids"][0])
    gzip_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    layer = Layer(Descriptor(gzip_type, digest, row["size"]), diff_id, blobs / digest.hex)
    write_layout({"t": Image.build([layer])}, memory / "layout")
    assert differences(umoci_unpack(memory, peer), listing(memory / "tree")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="the listings have owners and devices that only root makes")
@pytest.mark.parametrize("tag", [tag for tag in edge_cases() if tag not in ("artifact", TWICE)])
def test_an_edge_case_unpacks_to_its_listing(tag: str, push: Push, cli: Cli, tmp_path: Path) -> None:
    reference = push("edge-cases", tag)
    succeeded(cli("pull", reference, *AMD64, "--store", tmp_path / "store", "--rootfs", tmp_path / "tree"))
    assert differences(expected_tree(tag, tmp_path), listing(tmp_path / "tree")) == []


def test_a_layer_that_was_compressed_twice_is_refused(push: Push, cli: Cli, tmp_path: Path) -> None:
    reference = push("edge-cases", TWICE)
    done = cli("pull", reference, *AMD64, "--store", tmp_path / "store", "--rootfs", tmp_path / "tree")
    assert done.returncode == 7
    assert reference in done.stderr and "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == ["store"]


def test_an_artifact_is_pulled_and_refused_only_when_it_must_be_unpacked(push: Push, cli: Cli, tmp_path: Path) -> None:
    reference = push("edge-cases", "artifact")
    succeeded(cli("pull", reference, "--store", tmp_path / "store"))
    done = cli("pull", reference, "--store", tmp_path / "store", "--rootfs", tmp_path / "tree")
    assert done.returncode == 7
    assert reference in done.stderr and "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["store"]


def test_all_images_fit_one_store_and_each_blob_is_fetched_once(
    push: Push, cli: Cli, docker_registry: Peer, memory: Path, peer: Callable[[str], str]
) -> None:
    references = [push("oci", name) for name in OCI] + [push("docker-schema2", name) for name in DOCKER]
    start = docker_registry.position()
    succeeded(cli("pull", *references, *AMD64, "--store", memory))
    fetched_once(docker_registry.accesses(start), wanted_blobs(references, peer))

    start = docker_registry.position()
    succeeded(cli("pull", *references, *AMD64, "--store", memory))
    assert not blob_gets(docker_registry.accesses(start))

    for reference in references:
        raw = succeeded(cli("inspect", reference, "--raw", *AMD64, "--store", memory)).stdout
        served = served_manifest(reference, peer)
        assert raw == served or hashlib.sha256(raw.encode()).hexdigest() in served, "not a manifest that it serves"
    listed = subprocess.run([peer("umoci"), "list", "--layout", memory], check=True, capture_output=True, text=True)
    assert set(references) <= set(listed.stdout.split())


def test_skopeo_and_umoci_read_the_store_as_a_layout(
    push: Push, cli: Cli, tmp_path: Path, copy_image: Callable[..., None], peer: Callable[[str], str]
) -> None:
    reference = push("oci", "alpine")
    succeeded(cli("pull", reference, "--store", tmp_path / "store"))
    copy_image(f"oci:{tmp_path}/store:{reference}", f"dir:{tmp_path}/copy")
    manifest = json.loads((tmp_path / "copy" / "manifest.json").read_bytes())
    for blob in [manifest["config"], *manifest["layers"]]:
        assert (tmp_path / "copy" / blob["digest"].partition(":")[2]).stat().st_size == blob["size"]
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    image = ["--image", f"{tmp_path}/store:{reference}", f"{tmp_path}/tree"]
    subprocess.run([peer("umoci"), "raw", "unpack", *rootless, *image], check=True, capture_output=True)
    assert (tmp_path / "tree" / "etc" / "alpine-release").read_text().startswith("3.")


def test_two_references_that_share_layers_fetch_them_once(
    push: Push, cli: Cli, docker_registry: Peer, memory: Path, peer: Callable[[str], str]
) -> None:
    references = [push("oci", "debian-slim"), push("oci", "node-app")]
    start = docker_registry.position()
    succeeded(cli("pull", *references, "--store", memory))
    accesses = docker_registry.accesses(start)
    manifests = [json.loads(served_manifest(reference, peer)) for reference in references]
    wanted = wanted_blobs(references, peer)
    assert sum(len(each["layers"]) for each in manifests) + 2 > len(wanted), "the images share no layer"
    fetched_once(accesses, wanted)


def test_an_oci_directory_that_was_asked_for_is_unpacked_by_umoci(
    push: Push, cli: Cli, tmp_path: Path, peer: Callable[[str], str]
) -> None:
    reference = push("edge-cases", "hardlinks")
    succeeded(cli("pull", reference, "--store", tmp_path / "store", "--oci", tmp_path / "layout"))
    listed = subprocess.run(
        [peer("umoci"), "list", "--layout", tmp_path / "layout"], check=True, capture_output=True, text=True
    )
    assert listed.stdout.split()


def test_a_private_registry_wants_credentials(
    private_registry: Peer,
    registry_credentials: tuple[str, str],
    copy_image: Callable[..., None],
    shared: Path,
    cli: Cli,
    tmp_path: Path,
) -> None:
    reference = f"{private_registry.address}/secret/opaque:1"
    credentials = ":".join(registry_credentials)
    copy_image(f"oci:{shared}/images/edge-cases:opaque", f"docker://{reference}", "--dest-creds", credentials)
    store = ("--store", tmp_path / "store")
    assert cli("pull", reference, *store).returncode == 4
    assert cli("pull", reference, *store, "--creds", "puller:wrong").returncode == 4
    succeeded(cli("pull", reference, *store, "--creds", credentials))
