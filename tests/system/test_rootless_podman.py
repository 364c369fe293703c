"""podman of a user who is not root, with that user's store as an additional image store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastoci.testing.images import Image
from fastoci.testing.layers import Entry, Layer, directory, whiteout
from fastoci.testing.registry import Registry, serve
from support.other_user import UID, OtherUser, other_user

LAYERS = [
    [directory("etc"), Entry("etc/old", data=b"old"), Entry("etc/owned", data=b"owned", uid=5, gid=6)],
    [directory("etc"), whiteout("etc/old"), Entry("etc/new", data=b"new")],
]
LOOK = 'cd "$(podman mount "$(podman create --network none {name} x)")" && ls etc && stat -c %u:%g etc/owned'


@pytest.fixture
def user(peer: Callable[[str], str]) -> Iterator[OtherUser]:
    peer("podman")
    with other_user(with_ids=True) as found:
        yield found
    Path(f"/dev/shm/libpod_rootless_lock_{UID}").unlink(missing_ok=True)  # podman's own, for each user


def test_an_image_that_is_shown_is_run_from_without_a_copy(user: OtherUser) -> None:
    user.fastoci("configure", "podman", "--store", user.place / "store")
    with serve(Registry()) as registry:
        registry.add_image("app", "latest", Image.build([Layer.build(layer) for layer in LAYERS]))
        name = f"{registry.address}/app:latest"
        bring = ("-m", "fastoci", "pull", name, "--tls-verify=false", "--store", "store", "--into", "podman")
        user.run("podman", "unshare", user.python, *bring)
    assert user.run("podman", "images", "--format", "{{.Repository}}:{{.Tag}} {{.ReadOnly}}").stdout.split() == [
        name,
        "true",
    ]
    said = user.run("podman", "unshare", "sh", "-c", LOOK.format(name=name)).stdout
    assert said.split() == ["new", "owned", "5:6"]
    assert not list((user.place / ".local/share/containers/storage").rglob("owned"))
