"""An EROFS file of another writer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.erofs_trees import attributes, populate
from support.scratch import scratch


@pytest.fixture(scope="session")
def erofs_image(peer: Callable[[str], str]) -> Iterator[tuple[Path, Path]]:
    """A tree, and the EROFS file that mkfs.erofs made of it."""
    program = peer("mkfs.erofs")
    with scratch("erofs") as work:
        tree, image = work / "tree", work / "image"
        tree.mkdir()
        populate(tree)
        if os.geteuid() == 0:
            attributes(tree)
        subprocess.run([program, "-E", "force-inode-extended", image, tree], check=True, capture_output=True)
        yield tree, image
