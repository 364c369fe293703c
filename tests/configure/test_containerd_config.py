from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from fastoci.configure import edits
from fastoci.configure.containerd_config import Merged, load
from fastoci.errors import ConfigError
from fastoci.jobs.configure import release_of

ONE, TWO = (1, 7, 34), (2, 3, 4)
GC = "io.containerd.gc.v1.scheduler"


def written(directory: Path, **files: str) -> str:
    for name, text in files.items():
        (directory / f"{name}.toml").write_text(text)
    return str(directory / "main.toml")


def merged(path: str, release: tuple[int, int, int], own: str | None = None) -> Merged:
    return load(path, edits.read, release=release, own=own)


def two_files(directory: Path) -> str:
    (directory / "conf.d").mkdir()
    (directory / "conf.d" / "b.toml").write_text(
        f'version = 2\n[plugins."{GC}"]\nmutation_threshold = 50\nschedule_delay = "1s"\n'
    )
    (directory / "conf.d" / "a.toml").write_text(f'version = 2\n[plugins."{GC}"]\nschedule_delay = "2s"\n')
    text = f'version = 2\nimports = ["{directory}/conf.d/*.toml"]\n[plugins."{GC}"]\ndeletion_threshold = 7\n'
    return written(directory, main=text)


def test_containerd_1_replaces_the_table_of_a_plugin(tmp_path: Path) -> None:
    assert merged(two_files(tmp_path), ONE).plugin(GC) == {"mutation_threshold": 50, "schedule_delay": "1s"}


def test_containerd_2_joins_the_tables_of_a_plugin(tmp_path: Path) -> None:
    expected = {"deletion_threshold": 7, "mutation_threshold": 50, "schedule_delay": "1s"}
    assert merged(two_files(tmp_path), TWO).plugin(GC) == expected


@pytest.mark.skipif(shutil.which("containerd") is None, reason="needs containerd")
def test_files_are_merged_as_the_containerd_here_does_it(tmp_path: Path) -> None:
    def dumped(path: str) -> dict[str, object]:
        done = subprocess.run(["containerd", "--config", path, "config", "dump"], capture_output=True, check=True)
        found: dict[str, object] = tomllib.loads(done.stdout.decode())["plugins"][GC]
        return found

    release = release_of(subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=True).stdout)
    usual = dumped(written(tmp_path, main="version = 2\n"))
    path = two_files(tmp_path)
    assert dumped(path) == {**usual, **merged(path, release).plugin(GC)}


def test_files_are_read_breadth_first_and_once(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        main='imports = ["a.toml", "b.toml"]\nroot = "/main"\n',
        a='imports = ["c.toml", "main.toml"]\nroot = "/a"\n',
        b='root = "/b"\n[proxy_plugins.x]\ntype = "diff"\naddress = "1"\n',
        c='root = "/c"\n[proxy_plugins.x]\ntype = "snapshot"\n',
    )
    found = merged(path, TWO)
    assert [Path(each).stem for each in found.files] == ["main", "a", "b", "c"]
    assert found.document["root"] == "/c"
    assert found.table("proxy_plugins") == {"x": {"type": "snapshot"}}


def test_a_pattern_without_a_root_counts_from_the_file_since_1_7_28(tmp_path: Path) -> None:
    path = written(tmp_path, main='imports = ["*.d.toml"]\n', **{"a.d": 'root = "/a"\n'})
    assert merged(path, (1, 7, 28)).document["root"] == "/a"
    assert "root" not in merged(path, (1, 7, 27)).document


def test_a_file_that_is_imported_and_not_there_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path, main='imports = ["gone.toml"]\n')
    with pytest.raises(ConfigError, match=r"gone\.toml is not there"):
        merged(path, TWO)
    assert merged(path, TWO, own=str(tmp_path / "gone.toml")).is_there


def test_whether_a_file_would_be_imported_is_known_before_it_is_there(tmp_path: Path) -> None:
    own = str(tmp_path / "conf.d" / "own.toml")
    for text, expected in (
        (f'imports = ["{tmp_path}/conf.d/*.toml"]\n', True),
        ('imports = ["conf.d/own.toml"]\n', True),
        (f'imports = ["{tmp_path}/conf.d/*.conf", "{tmp_path}/*.toml"]\n', False),
    ):
        path = written(tmp_path, main=text)
        assert (own in merged(path, TWO, own).files) is expected, text


@pytest.mark.parametrize(
    "text",
    ["version = 'two'\n", "plugins = 3\n", "[plugins]\na = 3\n", "proxy_plugins = []\n", "imports = 'a'\n", "[a\n"],
)
def test_what_containerd_would_not_take_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"main\.toml"):
        merged(written(tmp_path, main=text), TWO)


def test_a_main_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    found = merged(str(tmp_path / "none.toml"), TWO)
    assert (found.version, found.document, found.is_there) == (0, {}, False)
