"""``fastoci copy`` as a process: what it prints and writes, and how its two ends are reached.

Covers: cli/copy_options.py, cli/option_places.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
from msgspec import structs

from fastoci.cli.main import program
from fastoci.cli.option_places import put_behind
from fastoci.image.platform import Platform
from fastoci.testing.auth import Basic
from fastoci.testing.images import Artifact, Image, Index, write_layout
from fastoci.testing.layers import Entry, Layer
from fastoci.testing.registry import Registry, serve
from fastoci.testing.uploads import Uploads

LAYER = Layer.build([Entry("file", data=b"data" * 1000)])
IMAGE = Image.build([LAYER])
OTHER = Image.build([LAYER], platform=Platform("linux", "arm", "v7"))
INDEX = Index.build([IMAGE, OTHER])
PASSWORD = "correct horse battery"


class Cli(Protocol):
    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve(Registry()) as registry:
        registry.add_image("app", "1", INDEX)
        yield registry


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTOCI_STORE", str(tmp_path / "store"))


def named(layout: Path) -> dict[str, str]:
    """What a layout has, by name."""
    entries = json.loads((layout / "index.json").read_bytes())["manifests"]
    return {
        each.get("annotations", {}).get("org.opencontainers.image.ref.name", ""): each["digest"] for each in entries
    }


def test_an_image_is_copied_and_its_digest_is_printed(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    done = cli("copy", f"docker://{registry.address}/app:1", f"oci:{tmp_path}/a", "--platform", "linux/amd64")
    assert (done.returncode, done.stdout) == (0, f"{IMAGE.descriptor.digest}\n")
    assert named(tmp_path / "a") == {"": str(IMAGE.descriptor.digest)}


def test_an_image_becomes_another_form_and_its_layers_other_blobs(
    cli: Cli, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"docker://{registry.address}/app:1"
    monkeypatch.setenv("FASTOCI_FORMAT", "json")  # of other commands
    done = cli("copy", source, f"oci:{tmp_path}/a", "--platform", "linux/amd64", "--compress", "zstd:1")
    assert done.returncode == 0
    manifest = json.loads((tmp_path / "a/blobs/sha256" / done.stdout.strip().partition(":")[2]).read_bytes())
    assert [layer["mediaType"] for layer in manifest["layers"]] == ["application/vnd.oci.image.layer.v1.tar+zstd"]
    done = cli("copy", source, f"oci:{tmp_path}/b", "--platform", "linux/amd64", "--format", "v2s2")
    assert done.returncode == 0
    assert done.stdout != f"{IMAGE.descriptor.digest}\n"


@pytest.mark.parametrize(
    "options", ["--compress xz", "--compress zstd:20", "--format v2s1", "--format v2s2 --compress zstd"]
)
def test_what_no_image_can_become_is_a_wrong_usage(cli: Cli, tmp_path: Path, options: str) -> None:
    done = cli("copy", "oci:nowhere", f"oci:{tmp_path}/a", *options.split())
    assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize("before", [True, False])
def test_a_platform_is_named_as_skopeo_names_it(cli: Cli, registry: Registry, tmp_path: Path, before: bool) -> None:
    words = ["--override-arch", "arm", "--override-variant=v7", "--override-os", "linux"]
    ends = [f"docker://{registry.address}/app:1", f"oci:{tmp_path}/a:one"]
    done = cli(*words, "copy", *ends) if before else cli("copy", *ends, *words)
    assert done.returncode == 0, done.stderr
    assert named(tmp_path / "a") == {"one": str(OTHER.descriptor.digest)}


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        ("--override-os linux copy a", "copy --override-os linux a"),
        ("--insecure-policy --override-os=linux copy", "copy --insecure-policy --override-os=linux"),
        ("--debug --override-os linux copy a", "--debug copy --override-os linux a"),
        (
            "--override-os linux --log-level info --config=f copy",
            "--log-level info --config=f copy --override-os linux",
        ),
        ("--override-os", "--override-os"),
        ("", ""),
        ("copy --override-os linux", "copy --override-os linux"),
        ("--debug copy --log-level info", "--debug copy --log-level info"),
        ("--help", "--help"),
        ("--unknown --override-os linux copy", "--unknown --override-os linux copy"),
    ],
)
def test_only_options_of_a_command_are_put_behind_it(given: str, understood: str) -> None:
    assert put_behind(given.split(), program) == understood.split()


def test_a_verb_that_copies_nothing_has_no_such_option(cli: Cli) -> None:
    done = cli("--override-os", "linux", "ls")
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_all_is_copied_and_the_digest_is_written_to_a_file(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    source, target = f"docker://{registry.address}/app:1", f"oci:{tmp_path}/a:one"
    done = cli("copy", source, target, "--all", "--digestfile", tmp_path / "d", "--additional-tag", "two")
    assert done.returncode == 0, done.stderr
    digest = str(INDEX.descriptor.digest)
    assert (tmp_path / "d").read_text() == digest
    assert named(tmp_path / "a") == {"one": digest, "two": digest}


def test_a_platform_is_asked_for_in_one_way(cli: Cli, tmp_path: Path) -> None:
    for words in (
        ("--all", "--platform", "linux"),
        ("--platform", "a", "--override-arch", "b"),
    ):
        done = cli("copy", "oci:a", "oci:b", *words)
        assert done.returncode == 2
        assert "--platform excludes" in done.stderr


def test_all_is_copied_whatever_is_overridden(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    target = f"oci:{tmp_path}/a:one"
    done = cli("--override-os", "linux", "copy", "--all", f"docker://{registry.address}/app:1", target)
    assert done.returncode == 0, done.stderr
    assert named(tmp_path / "a") == {"one": str(INDEX.descriptor.digest)}


def test_each_end_has_credentials_of_its_own(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(Registry(Basic("me", PASSWORD))) as private:
        private.add_image("app", "1", IMAGE)
        source = f"docker://{private.address}/app:1"
        assert cli("copy", source, f"oci:{tmp_path}/a").returncode == 4
        assert cli("copy", source, f"oci:{tmp_path}/a", "--dest-creds", f"me:{PASSWORD}").returncode == 4
        monkeypatch.setenv("FASTOCI_SRC_CREDS", f"me:{PASSWORD}")
        assert cli("copy", source, f"oci:{tmp_path}/a").returncode == 0
        assert cli("copy", source, f"oci:{tmp_path}/a", "--src-creds", "me:wrong").returncode == 4
        asked = cli("copy", source, f"oci:{tmp_path}/a", "--src-creds", "me")
        assert asked.returncode == 2
        assert "give USER:PASSWORD in FASTOCI_SRC_CREDS" in asked.stderr


def test_layouts_share_blobs(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    source, shared = f"docker://{registry.address}/app:1", tmp_path / "blobs"
    assert cli("copy", source, f"oci:{tmp_path}/a", "--all", "--dest-shared-blob-dir", shared).returncode == 0
    assert cli("copy", f"oci:{tmp_path}/a", f"oci:{tmp_path}/b", "--all").returncode == 3
    done = cli("copy", f"oci:{tmp_path}/a", f"oci:{tmp_path}/b", "--all", "--src-shared-blob-dir", shared)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "b/blobs/sha256").iterdir())) == len(list((shared / "sha256").iterdir()))


def test_what_is_no_end_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    done = cli("copy", "redis", f"oci:{tmp_path}/a")
    assert (done.returncode, done.stdout) == (2, "")
    assert "it begins with none of docker://, oci:" in done.stderr


def test_what_hangs_on_the_image_is_copied_on_request_alone(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    signature = Artifact.build("application/vnd.cncf.notary.signature", b"signed", subject=INDEX.descriptor)
    sbom = Artifact.build("application/vnd.example.sbom", b"sbom", subject=INDEX.descriptor)
    for each in (signature, sbom):
        registry.add_image("app", "", each)
    found = {}
    for words in ((), ("--signatures",), ("--referrers",)):
        place = tmp_path / "".join(("layout", *words))
        done = cli("copy", f"docker://{registry.address}/app:1", f"oci:{place}:app", "--all", *words)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{INDEX.descriptor.digest}\n"
        rows = json.loads((place / "index.json").read_bytes())["manifests"]
        found[words] = [each["digest"] for each in rows[1:]]
    assert found == {
        (): [],
        ("--signatures",): [str(signature.descriptor.digest)],
        ("--referrers",): [str(signature.descriptor.digest), str(sbom.descriptor.digest)],
    }


def test_nothing_hangs_on_an_image_in_a_directory(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    done = cli("copy", f"docker://{registry.address}/app:1", f"dir:{tmp_path}/a", "--all", "--referrers")
    assert done.returncode == 7, done.stderr
    assert "nothing can hang on an image there" in done.stderr
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_an_archive_goes_through_a_pipe_from_one_program_to_another(tmp_path: Path, form: str) -> None:
    write_layout({"app": IMAGE}, tmp_path / "layout")
    program = [sys.executable, "-m", "fastoci", "copy", "--progress", "none", "--store", str(tmp_path / "store")]
    out = [*program, f"oci:{tmp_path}/layout:app", f"{form}:/dev/stdout:app:1"]
    into = [*program, f"{form}:/dev/stdin:app:1", f"oci:{tmp_path}/out:app"]
    with subprocess.Popen(out, stdout=subprocess.PIPE) as first:
        second = subprocess.run(into, stdin=first.stdout, stdout=subprocess.PIPE, text=True, check=True)
    assert (first.returncode, second.stdout) == (0, f"{IMAGE.descriptor.digest}\n")
    with (tmp_path / "a.tar").open("wb") as file:
        subprocess.run(out, stdout=file, check=True)
    assert (tmp_path / "a.tar").read_bytes().endswith(bytes(1024)), "something is behind the archive"


def test_each_end_has_a_user_or_none(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTOCI_CREDS", f"me:{PASSWORD}")
    with serve(Registry(Basic("me", PASSWORD))) as private:
        private.add_image("app", "1", IMAGE)
        ends = f"docker://{private.address}/app:1", f"oci:{tmp_path}/a"
        assert cli("copy", *ends).returncode == 0
        assert cli("copy", *ends, "--src-no-creds").returncode == 4
        assert cli("copy", *ends, "--dest-no-creds").returncode == 0
        assert cli("copy", *ends, "--src-username", "me", "--src-password", "wrong").returncode == 4
        monkeypatch.delenv("FASTOCI_CREDS")
        assert cli("copy", *ends, "--src-username", "me", "--src-password", PASSWORD).returncode == 0
        for wrong in (["--src-password", "x"], ["--src-username", "me", "--src-creds", "me:x"], ["--src-no-creds"]):
            creds = [] if "--src-creds" in wrong or wrong[0] == "--src-password" else ["--src-creds", "me:x"]
            assert cli("copy", *ends, *creds, *wrong).returncode == 2, wrong


def test_several_images_go_into_one_archive_and_share_what_they_have_in_common(
    cli: Cli, registry: Registry, tmp_path: Path
) -> None:
    registry.add_image("other", "2", OTHER)
    one, two = f"{registry.address}/app:1", f"{registry.address}/other:2"
    both = tmp_path / "both.tar"
    done = cli("copy", f"docker://{one}", f"docker://{two}", f"docker-archive:{both}", "--digestfile", tmp_path / "d")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(IMAGE.descriptor.digest), str(OTHER.descriptor.digest)]
    assert (tmp_path / "d").read_text() + "\n" == done.stdout
    with tarfile.open(both) as tar:
        layers = [member.name for member in tar if member.name.endswith(LAYER.descriptor.digest.hex)]
        saved = json.load(tar.extractfile("manifest.json") or pytest.fail("no file"))
    assert len(layers) == 1
    assert [each["RepoTags"] for each in saved] == [[one], [two]]
    layout = tmp_path / "layout"
    done = cli("copy", f"docker-archive:{both}:{one}", f"docker-archive:{both}:@1", f"oci:{layout}", "--all")
    assert done.returncode == 0, done.stderr
    assert named(layout) == {one: str(IMAGE.descriptor.digest), two: str(OTHER.descriptor.digest)}


def test_of_several_images_all_go_or_none(cli: Cli, registry: Registry, tmp_path: Path) -> None:
    source, target = f"docker://{registry.address}/app:1", tmp_path / "both.tar"
    done = cli("copy", source, f"docker://{registry.address}/nothing:1", f"oci-archive:{target}")
    assert (done.returncode, done.stdout) == (3, "")
    assert "nothing:1" in done.stderr
    assert not target.exists()
    done = cli("copy", source, source, f"dir:{tmp_path}/dir")
    assert done.returncode == 2
    assert "one image at a time" in done.stderr


@pytest.mark.parametrize(
    "end", ["oci:{}/absent", "dir:{}/absent", "oci-archive:{}/absent/a", "docker-archive:{}/absent"]
)
def test_a_place_that_is_not_there_is_not_found(cli: Cli, tmp_path: Path, end: str) -> None:
    done = cli("copy", end.format(tmp_path), f"oci:{tmp_path}/new")
    assert done.returncode == 3
    assert "absent" in done.stderr
    assert "hint" not in done.stderr, "the store has nothing to do with it"
    assert not (tmp_path / "new").exists()


def test_what_names_no_place_says_which_there_are_and_speaks_of_no_references(cli: Cli, tmp_path: Path) -> None:
    done = cli("copy", "redis:7", f"oci:{tmp_path}/new")
    assert done.returncode == 2
    assert "docker://, oci:, oci-archive:" in done.stderr
    assert "hint" not in done.stderr


@pytest.mark.parametrize(
    "place", ["oci:{}/new:one", "oci-archive:{}/new", "docker-archive:{}/new", "dir:{}/new", "store:r.test/a"]
)
def test_a_copy_says_that_the_media_type_of_a_layer_lies(cli: Cli, tmp_path: Path, place: str) -> None:
    plain = Layer.build([Entry("file", data=b"data")], "none")
    lies = replace(plain, descriptor=structs.replace(plain.descriptor, media_type=LAYER.descriptor.media_type))
    image = Image.build([lies])
    write_layout({"lies": image}, tmp_path / "layout")
    done = cli("copy", f"oci:{tmp_path}/layout:lies", place.format(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is said to be gzip and is a plain tar: it is read as what it is") == 1


def test_no_store_is_made_by_what_keeps_nothing_in_it(
    cli: Cli, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    name = f"{registry.address}/app"
    words = ["copy", f"docker://{name}:1", f"oci:{tmp_path}/a:one", "--compress", "zstd:1"]
    for command in (words, ["tags", name], ["inspect", f"docker://{name}:1"], ["tag", f"{name}:1", f"{name}:2"]):
        done = cli(*command)
        assert done.returncode == (5 if command[0] == "tag" else 0), done.stderr  # the registry is read-only
    assert not (tmp_path / "store").exists()
    assert not list((tmp_path / "scratch").iterdir())


def test_a_push_out_of_a_layout_needs_no_store(cli: Cli, tmp_path: Path) -> None:
    write_layout({"app": IMAGE}, tmp_path / "layout")
    (tmp_path / "store").write_text("no directory")
    (tmp_path / "pushed").mkdir()
    with serve(Registry(uploads=Uploads(tmp_path / "pushed"))) as registry:
        done = cli("copy", f"oci:{tmp_path}/layout:app", f"docker://{registry.address}/app:1")
        assert done.returncode == 0, done.stderr
        assert cli("copy", f"docker://{registry.address}/app:1", "store:app").returncode == 8


def test_a_push_to_another_place_says_what_goes_there(cli: Cli, tmp_path: Path) -> None:
    assert cli("copy", f"oci:{tmp_path}", "store:app").returncode == 3
    done = cli("push", "app:1", f"oci:{tmp_path}/a")
    assert done.returncode == 2
    assert f"fastoci copy store:app:1 oci:{tmp_path}/a" in done.stderr


def test_an_archive_without_end_and_one_without_members_are_refused(cli: Cli, tmp_path: Path) -> None:
    for path, words in (("/dev/zero", "goes on behind the end"), ("/dev/null", "has no members")):
        done = cli("copy", f"oci-archive:{path}", f"oci:{tmp_path}/a")
        assert done.returncode == 7
        assert words in done.stderr
        assert done.stderr.count(path) <= 2, "the same is said twice"
