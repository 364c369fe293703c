"""What containerd is told.

Covers: configure/mirrors.py, configure/plan.py.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fastoci.configure import containerd, edits
from fastoci.configure.containerd import DIFF_SERVICE, EROFS_SNAPSHOTTER, Wanted
from fastoci.configure.containerd_config import Release, load
from fastoci.configure.mirrors import TRANSFER, Mirror
from fastoci.configure.plan import ConfigurationPlan
from fastoci.errors import ConfigError, UnsupportedError
from fastoci.image.platform import Platform

HOST = str(Platform.host())
SOCKET = "/run/fastoci/differ.sock"
TRANSFERS = f'[plugins."{TRANSFER}"]\n'


def main_file(directory: Path, text: str | None) -> str:
    directory.chmod(0o755)
    if text is not None:
        (directory / "config.toml").write_text(text)
    (directory / "store").mkdir(exist_ok=True)
    (directory / "store" / "fastoci.json").write_text('{"format": 1}\n')
    return str(directory / "config.toml")


def plan_of(main: str, release: Release, *snapshotters: str, mirrors: tuple[str, ...] = ()) -> ConfigurationPlan:
    store = f"{os.path.dirname(main)}/store"
    wanted = Wanted(main, SOCKET, store, snapshotters, tuple(map(Mirror.parse, mirrors)))
    return containerd.plan(wanted, release, edits.read)


def configured(main: str, release: Release, *snapshotters: str, mirrors: tuple[str, ...] = ()) -> dict[str, Any]:
    """What containerd reads after the plan was written; a second one changes nothing."""
    plan_of(main, release, *snapshotters, mirrors=mirrors).write()
    assert not plan_of(main, release, *snapshotters, mirrors=mirrors).diff
    return load(main, edits.read, release=release).document


def undo(main: str, *, linked: bool = False) -> ConfigurationPlan:
    plan = containerd.undo(main, linked, edits.read)
    plan.write()
    return plan


def names(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("release", [(1, 6, 20), (1, 7, 3)], ids=["1.6", "1.7.3"])
def test_a_containerd_that_would_not_start_is_left_as_it_is(tmp_path: Path, release: Release) -> None:
    main = main_file(tmp_path, "version = 2\n")
    with pytest.raises(UnsupportedError, match=r"does not start.*1\.7\.4 is the first"):
        plan_of(main, release)


@pytest.mark.parametrize("release", [(1, 7, 4), (2, 0, 3), (2, 2, 0)], ids=["1.7", "2.0", "2.2"])
def test_both_ways_of_pulling_use_the_differ(tmp_path: Path, release: Release) -> None:
    text = "# mine\nversion = 2\n\n[grpc]\naddress = '/s' # here\n"
    main = main_file(tmp_path, text)
    found = configured(main, release)
    assert found["proxy_plugins"] == {"fastoci": {"type": "diff", "address": SOCKET}}
    assert found["plugins"][DIFF_SERVICE] == {"default": ["fastoci", "walking"]}
    entry = {"platform": HOST, "snapshotter": "overlayfs", "differ": "fastoci"}
    assert found["plugins"][TRANSFER] == {"unpack_config": [entry]}
    line = f'imports = ["{tmp_path}/conf.d/zz-fastoci.toml"]  # fastoci configure containerd\n'
    assert Path(main).read_text() == text.replace("version = 2\n", f"version = 2\n{line}")
    undo(main)
    assert Path(main).read_text() == text
    assert names(tmp_path) == {"config.toml", "store/fastoci.json"}


def test_the_default_for_images_in_erofs_form_is_repeated_since_2_3(tmp_path: Path) -> None:
    found = configured(main_file(tmp_path, "version = 3\n"), (2, 3, 0))["plugins"][TRANSFER]["unpack_config"]
    native = {"platform": HOST.replace("linux", "linux(+erofs)"), "snapshotter": "erofs", "differ": "erofs"}
    assert found[1:] == [{**native, "optional": True}]


def test_what_is_configured_of_unpacking_stays(tmp_path: Path) -> None:
    main = main_file(
        tmp_path,
        f'version = 3\n{TRANSFERS}max_concurrent_downloads = 9\nunpack_config = [{{platform = "linux/s390x",'
        'snapshotter = "native", limit = 3}, {platform = "linux", snapshotter = "x", differ = "theirs"}]\n'
        f'[plugins."{DIFF_SERVICE}"]\ndefault = ["theirs", "fastoci", "walking"]\nsync_fs = true\n',
    )
    found = configured(main, (2, 3, 0))["plugins"]
    assert found[DIFF_SERVICE] == {"default": ["fastoci", "theirs", "walking"], "sync_fs": True}
    assert found[TRANSFER]["max_concurrent_downloads"] == 9
    assert found[TRANSFER]["unpack_config"] == [
        {"platform": "linux/s390x", "snapshotter": "native", "limit": 3, "differ": "fastoci"},
        {"platform": "linux", "snapshotter": "x", "differ": "theirs"},
    ]


def test_containerd_1_is_told_again_what_its_main_file_says_of_the_same_plugin(tmp_path: Path) -> None:
    main = main_file(tmp_path, f'version = 2\n[plugins."{DIFF_SERVICE}"]\nsync_fs = true\n')
    assert configured(main, (1, 7, 34))["plugins"][DIFF_SERVICE] == {"default": ["fastoci", "walking"], "sync_fs": True}
    own = tomllib.loads((tmp_path / "conf.d/zz-fastoci.toml").read_text())
    assert own["plugins"][DIFF_SERVICE]["sync_fs"] is True


def test_snapshotters_are_those_that_kubernetes_uses(tmp_path: Path) -> None:
    cri = '[plugins."io.containerd.grpc.v1.cri".containerd]\nsnapshotter = "native"\n'
    found = configured(main_file(tmp_path, f"version = 2\n{cri}"), (2, 2, 0))["plugins"][TRANSFER]["unpack_config"]
    assert [each["snapshotter"] for each in found] == ["overlayfs", "native"]
    assert {each["differ"] for each in found} == {"fastoci"}


def test_a_missing_main_file_is_made_and_taken_away(tmp_path: Path) -> None:
    main = main_file(tmp_path, None)
    assert configured(main, (2, 3, 4))["version"] == 3
    undo(main)
    assert names(tmp_path) == {"store/fastoci.json"}


def test_a_main_file_that_imports_the_directory_stays_as_it_is(tmp_path: Path) -> None:
    text = f'version = 3\nimports = ["{tmp_path}/conf.d/*.toml"]\n'
    main = main_file(tmp_path, text)
    assert configured(main, (2, 3, 4))["proxy_plugins"]
    assert Path(main).read_text() == text


def test_a_main_file_without_a_version_is_refused_by_1_and_taken_by_2(tmp_path: Path) -> None:
    main = main_file(tmp_path, 'disabled_plugins = ["cri"]\n')
    with pytest.raises(ConfigError, match="version = 2"):
        plan_of(main, (1, 7, 34))
    assert "version" not in configured(main, (2, 3, 4))


def test_a_file_that_comes_later_and_says_otherwise_is_named(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    text = f"version = 3\n{TRANSFERS}unpack_config = []\n"
    (tmp_path / "conf.d" / "zzz.toml").write_text(text)
    main = main_file(tmp_path, f'version = 3\nimports = ["{tmp_path}/conf.d/*.toml"]\n')
    with pytest.raises(ConfigError, match=r"comes later: .*zzz\.toml"):
        plan_of(main, (2, 3, 4))


def test_files_of_others_are_not_taken_over(tmp_path: Path) -> None:
    main = main_file(tmp_path, 'version = 3\n[proxy_plugins.fastoci]\ntype = "diff"\naddress = "/other"\n')
    with pytest.raises(ConfigError, match="another proxy plugin"):
        plan_of(main, (2, 3, 4))
    main = main_file(tmp_path, "version = 3\n")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d/zz-fastoci.toml").write_text("# mine\n")
    with pytest.raises(ConfigError, match="is not of `fastoci configure containerd`"):
        plan_of(main, (2, 3, 4))
    with pytest.raises(ConfigError, match="is not of `fastoci configure containerd`"):
        undo(main)


def test_layers_of_the_store_are_used_by_the_erofs_snapshotter_of_2_4(tmp_path: Path) -> None:
    main = main_file(tmp_path, 'version = 3\nroot = "/ctd"\n')
    plan = plan_of(main, (2, 4, 0), "erofs")
    assert "loses" in plan.notes[0]
    assert [Path(edit.path).name for edit in plan.edits] == ["fastoci.json", "zz-fastoci.toml", "config.toml"]
    found = configured(main, (2, 4, 0), "erofs")["plugins"]
    assert found[EROFS_SNAPSHOTTER] == {"layer_content_caches": [f"{tmp_path}/store/layers"]}
    assert found[TRANSFER]["max_concurrent_unpacks"] == 4
    entry = {"platform": HOST, "snapshotter": "erofs", "differ": "fastoci", "optional": True}
    assert entry in found[TRANSFER]["unpack_config"], "without the erofs module, other pulls go on"
    mark = tmp_path / "store/fastoci.json"
    assert json.loads(mark.read_text()) == {"format": 1, "containerd": [f"/ctd/{EROFS_SNAPSHOTTER}"]}
    undo(main)
    assert mark.read_text() == '{"format": 1}\n'


def test_the_store_goes_on_to_know_of_snapshots_that_lead_into_it(tmp_path: Path) -> None:
    main = main_file(tmp_path, "version = 3\n")
    configured(main, (2, 4, 0), "erofs")
    plan = undo(main, linked=True)
    assert "goes on to keep" in plan.notes[0]
    assert "containerd" in json.loads((tmp_path / "store/fastoci.json").read_text())


@pytest.mark.parametrize(
    ("release", "text", "reason"),
    [
        ((2, 3, 4), "", "from 2.4 on"),
        ((2, 4, 0), f'[plugins."{EROFS_SNAPSHOTTER}"]\nenable_fsverity = true\n', "enable_fsverity"),
    ],
    ids=["2.3", "fs-verity"],
)
def test_layers_of_the_store_are_left_alone_where_containerd_cannot(
    tmp_path: Path, release: Release, text: str, reason: str
) -> None:
    main = main_file(tmp_path, f"version = 3\n{text}")
    plan = plan_of(main, release, "erofs")
    assert reason in plan.notes[0]
    assert "layer_content_caches" not in plan.diff
    assert "fastoci.json" not in plan.diff


def test_a_store_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    main = main_file(tmp_path, "version = 3\n")
    (tmp_path / "store/fastoci.json").unlink()
    with pytest.raises(ConfigError, match="no store"):
        plan_of(main, (2, 4, 0), "erofs")


MIRRORS = ("docker.io=http://127.0.0.1:5000", "docker.io=https://m.example/v2", "h:5000=https://m.example")


def test_mirrors_are_files_of_each_registry(tmp_path: Path) -> None:
    main = main_file(tmp_path, "version = 3\n")
    found = configured(main, (2, 3, 4), mirrors=MIRRORS)["plugins"]
    assert found["io.containerd.cri.v1.images"] == {"registry": {"config_path": f"{tmp_path}/certs.d"}}
    assert found[TRANSFER]["config_path"] == f"{tmp_path}/certs.d"
    hosts = tomllib.loads((tmp_path / "certs.d/docker.io/hosts.toml").read_text())
    assert hosts["server"] == "https://registry-1.docker.io"
    assert list(hosts["host"]) == ["http://127.0.0.1:5000", "https://m.example/v2"]
    assert "h:5000" in (tmp_path / "certs.d/h:5000/hosts.toml").read_text()
    configured(main, (2, 3, 4), mirrors=MIRRORS[2:])
    assert names(tmp_path / "certs.d") == {"h:5000/hosts.toml"}
    undo(main)
    assert names(tmp_path / "certs.d") == set()


def test_mirrors_go_where_containerd_looks_and_beside_the_rest_of_its_table(tmp_path: Path) -> None:
    cri = '[plugins."io.containerd.grpc.v1.cri"]\nsandbox_image = "p"\n'
    main = main_file(tmp_path, f'version = 2\n{cri}{TRANSFERS}config_path = "{tmp_path}/here:/there"\n')
    found = configured(main, (1, 6, 20), mirrors=MIRRORS[2:])
    expected = {"sandbox_image": "p", "registry": {"config_path": f"{tmp_path}/here:/there"}}
    assert found["plugins"]["io.containerd.grpc.v1.cri"] == expected
    assert "proxy_plugins" not in found
    assert names(tmp_path / "here") == {"h:5000/hosts.toml"}


def test_mirrors_are_refused_beside_others(tmp_path: Path) -> None:
    cri = '[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\nendpoint = ["http://x"]\n'
    with pytest.raises(ConfigError, match=r"registry\.mirrors"):
        plan_of(main_file(tmp_path, f"version = 2\n{cri}"), (2, 0, 0), mirrors=MIRRORS)
    (tmp_path / "certs.d/h:5000").mkdir(parents=True)
    (tmp_path / "certs.d/h:5000/hosts.toml").write_text("# mine\n")
    with pytest.raises(ConfigError, match="is not of"):
        plan_of(main_file(tmp_path, "version = 2\n"), (2, 0, 0), mirrors=MIRRORS)


@pytest.mark.parametrize(
    "text",
    ["docker.io", "=http://x", "../x=http://x", "a/b=http://x", "h=ftp://x", 'h=http://x"y', "h=http://x?y", "h="],
)
def test_what_is_not_a_mirror_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a mirror"):
        Mirror.parse(text)
