"""Configuration files are read whole and within a bound; one that is absent is an error only where it was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastoci.errors import FormatError
from fastoci.registry.config import files


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_bytes(b"server = ''")
    assert files.read(tmp_path / "hosts.toml", "configuration file") == b"server = ''"
    with open(tmp_path / "hosts.toml", "rb") as file:
        assert files.read_open(file, tmp_path / "hosts.toml", "configuration file") == b"server = ''"


def test_one_that_is_absent_is_an_error_only_where_it_was_asked_for_by_name(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="cannot read this auth file: No such file") as caught:
        files.read(tmp_path / "auth.json", "auth file")
    assert isinstance(caught.value.__cause__, FileNotFoundError)
    assert files.read_if_there(tmp_path / "auth.json", "auth file") is None
    (tmp_path / "file").touch()
    assert files.read_if_there(tmp_path / "file" / "auth.json", "auth file") is None
    with pytest.raises(FormatError, match="Is a directory"):
        files.read_if_there(tmp_path, "auth file")


@pytest.mark.attack
def test_one_that_is_far_too_large_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(files.FILE_SIZE + 1))
    with pytest.raises(FormatError, match="this auth file is larger than 1048576 bytes"):
        files.read(tmp_path / "large", "auth file")
    with open(tmp_path / "large", "rb") as file, pytest.raises(FormatError, match="is larger than"):
        files.read_open(file, tmp_path / "large", "auth file")
    with pytest.raises(FormatError, match="is larger than"):
        files.read(Path("/dev/zero"), "auth file")
    (tmp_path / "large").write_bytes(bytes(files.FILE_SIZE))
    assert len(files.read(tmp_path / "large", "auth file")) == files.FILE_SIZE
