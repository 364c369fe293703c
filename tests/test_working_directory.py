"""A relative path means what it meant where it was given, whichever thread works with it, and wherever we are then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import fastoci
from fastoci.errors import StoreError
from fastoci.testing.layers import Entry, tar
from fastoci.testing.registry import Registry, serve
from support.engine_parts import add_images, shared_images


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(add_images(Registry(), shared_images())) as registry:
        yield registry


@pytest.fixture
def places(tmp_path: Path) -> list[Path]:
    found = [tmp_path / name for name in ("first", "second", "third")]
    for place in found:
        place.mkdir()
    return found


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


async def test_each_call_of_one_engine_is_by_the_directory_of_that_moment(
    registry: Registry, places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = places
    (first / "auth.json").write_text("{}")
    monkeypatch.chdir(first)
    engine = fastoci.Engine("store", registry=fastoci.RegistryOptions(authfile="auth.json"))
    monkeypatch.chdir(second)
    async with engine:
        # the workers have a working directory of their own from the first unpack on
        image = await engine.pull(f"{registry.address}/one", rootfs="a")
        monkeypatch.chdir(third)
        await engine.pull(f"{registry.address}/two", rootfs="deep/a")
        await image.unpack("b")
        await image.export("layout")
        await engine.export("view")
        monkeypatch.chdir(first)
        await image.unpack("c")
    assert names(first) == ["auth.json", "c", "store"]
    assert names(second) == ["a"]
    assert names(third) == ["b", "deep", "layout", "view"]
    assert names(third / "deep") == ["a"]


async def test_a_call_that_has_begun_stays_where_it_began(
    registry: Registry, places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = places

    def move(event: object) -> None:
        if isinstance(event, fastoci.events.ImageStarted | fastoci.events.UnpackStarted):
            monkeypatch.chdir(second)

    (first / "layer.tar").write_bytes(b"".join(tar([Entry("file", "file", b"1")])))
    monkeypatch.chdir(first)
    async with fastoci.Engine("store", observer=move) as engine:
        await engine.pull(f"{registry.address}/one", rootfs="a")
    monkeypatch.chdir(first)
    await fastoci.apply("applied", ["layer.tar"], observer=move)
    assert names(first) == ["a", "applied", "layer.tar", "store"]
    assert names(first / "applied") == ["file"]
    assert names(second) == []


async def test_credentials_are_kept_where_login_was_called(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, _ = places
    monkeypatch.chdir(first)
    login = fastoci.logged_in("a.test", authfile="auth.json")
    (first / "auth.json").write_text('{"auths": {"a.test": {"auth": "bWU6eA=="}}}')
    assert await login == "me"
    monkeypatch.chdir(second)
    assert await fastoci.logout("a.test", authfile="auth.json") == ()


async def test_a_relative_path_below_a_directory_that_was_removed_is_an_error(
    registry: Registry, places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = places
    async with fastoci.Engine(first / "store") as engine:
        image = await engine.pull(f"{registry.address}/one")
        monkeypatch.chdir(second)
        second.rmdir()
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "store": lambda: fastoci.Engine("store").__aenter__(),
            "rootfs": lambda: engine.pull(f"{registry.address}/two", rootfs="rootfs"),
            "unpacked": lambda: image.unpack("unpacked"),
            "layout": lambda: image.export("layout"),
            "applied": lambda: fastoci.apply("applied", []),
            "auth.json": lambda: fastoci.logged_in("a.test", authfile="auth.json"),
        }
        for name, call in calls.items():
            with pytest.raises(StoreError, match=f"^{name}: the working directory has been removed"):
                await call()
        await engine.pull(f"{registry.address}/two", rootfs=first / "rootfs")
    assert "rootfs" in names(first)
