"""A layer alone is on top of any stack what it is in a tree, or says why not: with real overlay mounts.

``FASTOCI_STACKS`` is how many random stacks, ``FASTOCI_IMAGES=all`` mounts the large images, too.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastoci import _core, _extract
from fastoci.errors import FormatError, StoreError, UnsafePathError
from fastoci.image.digest import Digest
from fastoci.image.layer_file import DirectoryFacts, LayerDirectory
from fastoci.image.overlay_options import directories_of
from fastoci.testing.layers import Entry, directory, hardlink, opaque, symlink, tar, whiteout
from fastoci.testing.trees import listing
from fastoci.unpack.layer_directory import LayerDirectoryWriter, needs_user_xattrs
from support.layer_stacks import LAYERS, modelled
from support.overlays import LIMITS, ROOT_USER, alone, emptied, mounted, named_times, needs_mounts, stacked, together
from support.scratch import SOURCE, TESTS, opened, scratch

STACKS = int(os.environ.get("FASTOCI_STACKS", "400")) // 4
LARGE = {"many-layers-127", "12000-small-files", "zstd-long-window"}
SPACE = "trusted" if ROOT_USER else "user"


def archive(*entries: Entry) -> bytes:
    return b"".join(tar(entries))


def attributes(path: Path) -> dict[str, bytes]:
    """What overlayfs is told of a directory."""
    prefix = f"{SPACE}.overlay."
    names = [name for name in os.listxattr(path) if name.startswith(prefix)]
    return {name.removeprefix(prefix): os.getxattr(path, name) for name in names}


def is_whiteout(path: Path) -> bool:
    info = path.lstat()
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def with_parents(layer: Sequence[Entry]) -> list[Entry]:
    """The layer with an entry for every directory that one of its names goes through."""
    paths: dict[str, None] = {}
    for entry in layer:
        parts = [part for part in entry.path.split("/") if part not in ("", ".")][:-1]
        paths.update({"/".join(parts[:depth]): None for depth in range(1, len(parts) + 1)})
    return [*(directory(path, mode=0o711) for path in sorted(paths)), *layer]


@given(
    layers=st.lists(st.one_of(LAYERS, LAYERS.map(with_parents), LAYERS.map(with_parents)), min_size=2, max_size=4),
    window=st.sampled_from([511, 4096, 1 << 20]),
    user_xattrs=st.booleans(),
)
@example(  # a directory in the place of a file of its own layer hides the lower one
    layers=[[directory("a"), Entry("a/b")], [Entry("a"), directory("a"), Entry("a/l")]], window=511, user_xattrs=False
)
@example(layers=[[Entry("a"), Entry("b")], [whiteout("a"), Entry("a/b"), whiteout("b")]], window=511, user_xattrs=True)
@example(  # nobody looks where a whiteout of the lowest layer leads
    layers=[[symlink("a", "a"), opaque("a")], [Entry("a")]], window=511, user_xattrs=False
)
@settings(max_examples=STACKS, deadline=None)
def test_a_stack_of_layer_directories_shows_the_tree_of_the_model(
    layers: list[list[Entry]], window: int, user_xattrs: bool
) -> None:
    needs_mounts()
    taken, _, expected = modelled(layers, keep=False)
    with scratch("stack") as work:
        archives = [archive(*layer) for layer in taken]
        assert stacked(work, archives, expected, window=window, user_xattrs=user_xattrs)[0] == []


@given(layers=st.lists(st.one_of(LAYERS, LAYERS.map(with_parents)), min_size=1, max_size=3))
@settings(max_examples=STACKS, deadline=None)
def test_a_layer_alone_is_judged_as_in_a_stack(layers: list[list[Entry]]) -> None:
    with scratch("judged") as work:
        archives = [archive(*layer) for layer in layers]
        for number, code in enumerate(together(work / "tree", archives)):
            made = alone(work / f"{number}", archives[number])
            assert made.reasons or made.code == code


@pytest.mark.parametrize("first", [False, True])
def test_what_is_hidden_is_said_in_whatever_order_entries_come(tmp_path: Path, first: bool) -> None:
    hiding = [opaque("opaque"), whiteout("d/hidden"), whiteout("d/file"), whiteout("gone")]
    entries = [
        *(directory(path) for path in ("d", "d/hidden", "opaque", "opaque/below")),
        Entry("d/file", data=b"mine"),
        Entry("opaque/below/x"),
    ]
    layer = [*entries[:1], *hiding, *entries[1:]] if first else [*entries, *hiding]
    made = alone(tmp_path / "made", archive(*layer))
    assert made.code == 0
    assert made.reasons == (("whiteout",) if first else ())  # an opaque directory whose own entry comes later
    root = tmp_path / "made"
    assert (root / "d/file").read_bytes() == b"mine"
    assert is_whiteout(root / "gone")
    assert attributes(root / "d/hidden") == {"opaque": b"y"}
    assert attributes(root / "opaque") == ({} if first else {"opaque": b"y"})
    assert attributes(root / "opaque/below") == {}
    assert attributes(root / "d") == ({"origin": b""} if first else {})  # whiteouts were in it
    assert attributes(root) == {"origin": b""}


def test_nothing_shows_of_whiteouts_below_what_is_opaque(tmp_path: Path) -> None:
    layer = [directory("d"), directory("d/e"), whiteout("d/x"), whiteout("d/e/y"), opaque("d"), whiteout("d/z")]
    assert alone(tmp_path / "made", archive(*layer)).reasons == ()
    assert [node.path for node in listing(tmp_path / "made")] == ["d", "d/e"]
    assert attributes(tmp_path / "made/d") == {"opaque": b"y"}


def test_what_replaced_something_of_its_own_layer_hides_lower_layers(tmp_path: Path) -> None:
    layer = [Entry("a"), directory("a"), whiteout("b"), directory("b"), whiteout("c"), Entry("c/implied")]
    assert alone(tmp_path / "made", archive(*layer)).reasons == ()
    assert {name: attributes(tmp_path / "made" / name) for name in "abc"} == {name: {"opaque": b"y"} for name in "abc"}


@pytest.mark.parametrize(
    ("layer", "reasons"),
    [
        ([Entry("a/b")], ("implied-parent",)),
        ([Entry("a/b"), directory("a")], ("implied-parent",)),  # it may have been a link when b was made
        ([symlink("l", "a"), Entry("l/b")], ("implied-parent",)),
        ([hardlink("a", "lower")], ("hard-link",)),
        ([hardlink("a", "lower/b")], ("hard-link",)),
        ([whiteout("a/b")], ("whiteout",)),
        ([opaque("a"), directory("a")], ("whiteout",)),
        ([Entry(".wh..wh..opq"), Entry("a/b")], ("opaque-root",)),
        ([Entry("a/b"), hardlink("c", "d"), whiteout("e/f")], ("implied-parent", "hard-link", "whiteout")),
        ([directory("a"), opaque("a"), Entry("a/b/c"), whiteout("a/d/e")], ()),
        ([directory("a"), Entry("a/b"), hardlink("c", "a/b"), symlink("l", "a"), Entry("l/d"), whiteout("l/e")], ()),
    ],
    ids=lambda value: "-".join(value) or "none" if isinstance(value, tuple) else "",
)
def test_a_layer_says_why_it_is_not_exact_alone(tmp_path: Path, layer: list[Entry], reasons: tuple[str, ...]) -> None:
    made = alone(tmp_path / "made", archive(*layer))
    assert (made.code, made.reasons) == (0, reasons)


@pytest.mark.parametrize(
    "layer",
    [
        [whiteout("a"), hardlink("b", "a")],  # hidden, so it is nowhere
        [directory("a"), opaque("a"), hardlink("b", "a/c")],
        [directory("a"), hardlink("b", "a")],
        [Entry("a"), Entry("a/b")],
        [Entry("a", "character")],  # 0:0 would be a whiteout
    ],
)
def test_what_no_stack_can_take_is_refused(tmp_path: Path, layer: list[Entry]) -> None:
    made = alone(tmp_path / "made", archive(*layer))
    assert made.code
    assert made.reasons == ()


def test_an_image_cannot_speak_for_overlayfs(tmp_path: Path) -> None:
    names = [f"{space}.overlay.{word}" for space in ("trusted", "user") for word in ("opaque", "redirect", "metacopy")]
    xattrs = tuple((name, b"y") for name in [*names, "user.overlay.whiteout", "user.kept"])
    layer = [Entry("d", "directory", mode=0o755, xattrs=xattrs), Entry("d/f", xattrs=xattrs)]
    assert alone(tmp_path / "made", archive(*layer)).reasons == ()
    for path in ("d", "d/f"):
        assert [name for name in os.listxattr(tmp_path / "made" / path) if "security." not in name] == ["user.kept"]


def test_a_skipped_device_hides_what_lower_layers_have(tmp_path: Path) -> None:
    layer = archive(directory("d"), Entry("d/null", "character", device=(1, 3)), Entry("d/x"))
    made = alone(tmp_path / "made", layer, privileged=False)
    assert (made.code, made.skipped["devices"]) == (0, 1)
    assert is_whiteout(tmp_path / "made/d/null")
    assert attributes(tmp_path / "made/d") == {"origin": b""}


def test_names_root_says_whose_metadata_the_root_has(tmp_path: Path) -> None:
    assert not alone(tmp_path / "without", archive(Entry("a"))).names_root
    assert alone(tmp_path / "with", archive(directory(".", mode=0o711), Entry("a"))).names_root
    assert stat.S_IMODE((tmp_path / "with").stat().st_mode) == 0o711


DECODERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": gzip.decompress,
    b"BZ": bz2.decompress,
    b"\x28\xb5": lambda data: (
        zstandard.ZstdDecompressor(max_window_size=1 << 31)
        .stream_reader(io.BytesIO(data), read_across_frames=True)
        .read()
    ),
}


def inflated(path: Path) -> bytes:
    """The tar of a layer of the shared folder, whatever its framing."""
    data = path.read_bytes()
    return DECODERS.get(data[:2], bytes)(data)


def test_every_hostile_layer_is_judged_as_in_a_tree_and_shows_the_same(shared: Path) -> None:
    needs_mounts()
    folder = shared / "corpora" / "hostile"
    judged = refused = standalone = 0
    for case in json.loads((folder / "expected.json").read_text())["cases"]:
        paths = [folder / name for name in (*case.get("base", ()), case["file"])]
        if case["case"].startswith("Z") or max(path.stat().st_size for path in paths) > 4 << 20:
            continue  # bombs and damaged compression
        layers = [inflated(path) for path in paths]
        if sum(map(len, layers)) > 4 << 20:
            continue  # more than a list in Python is for
        with scratch("hostile") as work, emptied(work):
            since = time.time_ns()
            codes = together(work / "tree", layers)
            judged += 1
            for number, code in enumerate(codes):
                made = alone(work / f"alone{number}", layers[number])
                assert made.reasons or made.code == code, case["case"]
            if codes[-1]:
                refused += 1
                continue
            found, merged = stacked(work, layers, named_times(listing(work / "tree"), since))
            assert found == [], case["case"]
            standalone += not merged
    assert judged > 200
    assert 80 < refused < judged
    assert standalone > 80


def image_layers(layout: Path, descriptor: dict[str, Any]) -> list[bytes]:
    """The tars of an image, of amd64 where there is a choice; none when it has none."""
    blobs = layout / "blobs"
    document = json.loads((blobs / descriptor["digest"].replace(":", "/")).read_text())
    for inner in document.get("manifests", ()):
        if inner.get("platform", {}).get("architecture", "amd64") == "amd64":
            return image_layers(layout, inner)
    if not document.get("config", {}).get("mediaType", "").endswith(("config.v1+json", "container.image.v1+json")):
        return []
    return [inflated(blobs / layer["digest"].replace(":", "/")) for layer in document["layers"]]


def test_images_mounted_by_layers_are_their_trees(shared: Path) -> None:
    needs_mounts()
    everything = os.environ.get("FASTOCI_IMAGES") == "all"
    equal = 0
    for layout in (shared / "images" / name for name in ("edge-cases", *("docker-schema2", "oci") * everything)):
        for descriptor in json.loads((layout / "index.json").read_text())["manifests"]:
            tag = descriptor.get("annotations", {}).get("org.opencontainers.image.ref.name", "")
            if not everything and tag in LARGE:
                continue
            layers = image_layers(layout, descriptor)
            with scratch("image") as work:
                since = time.time_ns()
                if not layers or together(work / "tree", layers)[-1]:
                    continue
                assert stacked(work, layers, named_times(listing(work / "tree"), since))[0] == [], tag
                equal += 1
    assert equal > 35


def a_buffer(pool: _core.Pool, data: bytes) -> _core.Buffer:
    buffer = pool.take()
    assert buffer is not None
    assert buffer.append(data) == len(data)
    return buffer


def test_the_sink_has_the_shape_and_the_errors_of_the_others(tmp_path: Path) -> None:
    pool = _core.Pool(4 * _core.BUFFER_SIZE)
    layer = archive(directory("d"), Entry("d/f", data=b"text"), Entry("e/f"))
    cases: list[tuple[bytes, type[Exception] | None]] = [
        (layer, None),
        (archive(Entry("../x")), UnsafePathError),
        (b"nonsense" * 64, FormatError),
    ]
    for number, (data, error) in enumerate(cases):
        (tmp_path / f"{number}").mkdir()
        with opened(tmp_path / f"{number}") as fd:
            writer = LayerDirectoryWriter(fd, name="one", owners=ROOT_USER, **LIMITS)
            buffer = a_buffer(pool, data)
            if error is None:
                writer.feed(buffer)
                writer.finish()
                facts = DirectoryFacts(
                    entries=3,
                    size=4,
                    reasons=("implied-parent",),
                    owners=ROOT_USER,
                    user_xattrs=not ROOT_USER,
                    names_root=False,
                )
                assert writer.facts == facts
            else:
                with pytest.raises(error, match="layer one"):
                    writer.feed(buffer)
            writer.abort()
            writer.abort()
            buffer.release()
    assert (tmp_path / "0/tree/d/f").read_bytes() == b"text"
    assert sorted(os.listdir(tmp_path / "0")) == ["root", "tree"]


def test_a_root_that_is_named_has_its_like_beside_for_the_top_of_a_stack(tmp_path: Path) -> None:
    needs_mounts()
    pool = _core.Pool(4 * _core.BUFFER_SIZE)
    root = Entry(".", "directory", mode=0o1711, uid=5, gid=6, mtime_ns=7_000_000_008, xattrs=(("user.kept", b"k"),))
    infos = []
    mask = os.umask(0o077)
    try:
        for number, layer in enumerate([(Entry("a"),), (root, Entry("b")), (Entry("c"),)]):
            (tmp_path / f"{number}").mkdir()
            with opened(tmp_path / f"{number}") as fd:
                writer = LayerDirectoryWriter(fd, name="one", owners=True, **LIMITS)
                buffer = a_buffer(pool, archive(*layer))
                writer.feed(buffer)
                writer.finish()
                buffer.release()
            facts = msgspec.structs.asdict(writer.facts)
            path = str(tmp_path / f"{number}/tree")
            infos.append(LayerDirectory(**facts, chain_id=Digest.of(b""), path=path, boot_id="", synced=False))
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "0/tree").stat().st_mode) == 0o755
    paths = directories_of(infos)
    assert paths == [*(str(tmp_path / f"{number}/tree") for number in range(3)), str(tmp_path / "1/root")]
    assert directories_of(infos[:2]) == paths[:2]
    assert directories_of(infos[2:]) == [str(tmp_path / "2/root"), paths[2]]
    assert directories_of([]) == []
    with mounted([Path(path) for path in paths], tmp_path / "at") as at:
        info = at.stat()
        assert sorted(os.listdir(at)) == ["a", "b", "c"]
        assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns) == (0o1711, 5, 6, 7_000_000_008)
        assert os.getxattr(at, "user.kept") == b"k"


def test_a_layer_is_stopped_before_its_directories_are_said_to_be_opaque(tmp_path: Path) -> None:
    with opened(tmp_path) as fd:
        native = _extract.LayerDirectory(
            fd, owners=ROOT_USER, privileged=ROOT_USER, user_xattrs=not ROOT_USER, **LIMITS
        )
        native.feed(archive(directory("d"), opaque("d")))
        native.stop()
        code = native.finish()
        native.close()
    assert _extract.TAR_CODES[code][0] == "stopped"
    assert attributes(tmp_path / "d") == {}


def test_a_file_system_that_takes_no_whiteouts_is_refused() -> None:
    with opened(Path("/proc/self")) as fd, pytest.raises(StoreError):
        needs_user_xattrs(fd)


def test_layers_of_a_user_namespace_mount_with_userxattr(tmp_path: Path, peer: Callable[[str], str]) -> None:
    unshare = [peer("unshare"), "--user", "--map-root-user", "--mount"]
    if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system makes no user namespaces")
    layers = [
        [directory("d"), Entry("d/low"), Entry("d/both", data=b"low"), directory("o"), Entry("o/low"), Entry("gone")],
        [directory("d"), whiteout("d/low"), Entry("d/both", data=b"new"), directory("o"), opaque("o"), Entry("o/new")],
        [whiteout("gone"), directory("d"), whiteout("d/both"), directory("d/both"), Entry("d/both/x")],
    ]
    with scratch("user-namespace") as work:
        for number, layer in enumerate(layers):
            (work / f"{number}.tar").write_bytes(archive(*layer))
        program = [sys.executable, "-m", "support.user_namespace_layers", str(work), f"{len(layers)}"]
        done = subprocess.run(
            [*unshare, *program],
            env={**os.environ, "PYTHONPATH": f"{TESTS}:{SOURCE}"},
            capture_output=True,
            text=True,
            check=False,
        )
    if "Operation not supported" in done.stderr:
        pytest.skip("this file system takes no attributes of users")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [f"{path}" for path in ("d", "d/both", "d/both/x", "o", "o/new")]
