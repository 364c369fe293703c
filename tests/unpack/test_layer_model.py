"""Random stacks of layers against the model: fed one after the other, and staged and adopted, they give its tree.

``FASTOCI_STACKS`` is how many; ``make stacks`` tries very many.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastoci import _extract
from fastoci.testing.layers import Entry, directory, hardlink, opaque, symlink, tar, whiteout
from fastoci.testing.trees import differences, listing
from support.layer_model import Model, RefusedError
from support.layer_stacks import LAYERS, modelled
from support.scratch import opened

ROOT_USER = os.geteuid() == 0
STACKS = int(os.environ.get("FASTOCI_STACKS", "400"))
LIMITS = {"max_entries": 100_000, "max_bytes": 1 << 30}
DIRECTORIES = 100_000


def fed(root: Path, layers: Sequence[bytes], window: int) -> int:
    """Apply layers in order; the number of the one that is refused, or -1."""
    with opened(root) as fd:
        for number, layer in enumerate(layers):
            extractor = _extract.Extractor(
                fd, owners=ROOT_USER, privileged=ROOT_USER, base=number > 0, max_directories=DIRECTORIES, **LIMITS
            )
            for start in range(0, len(layer), window):
                extractor.feed(layer[start : start + window])
            extractor.finish()
            extractor.close()
            if extractor.code:
                return number
    return -1


def staged(root: Path, layers: Sequence[bytes], window: int) -> int:
    """The same with all layers made aside first, highest first, and then moved in."""
    stagers = []
    with opened(root) as fd:
        for layer in reversed(layers):
            with opened(Path(tempfile.mkdtemp(dir=root.parent))) as place:
                stagers.append(_extract.Stager(place, owners=ROOT_USER, privileged=ROOT_USER, **LIMITS))
            for start in range(0, len(layer), window):
                stagers[-1].feed(layer[start : start + window])
            stagers[-1].finish()
        refused = -1
        for number, stager in enumerate(reversed(stagers)):
            extractor = _extract.Extractor(
                fd, owners=ROOT_USER, privileged=ROOT_USER, base=number > 0, max_directories=DIRECTORIES, **LIMITS
            )
            while (more := extractor.adopt(stager, 3)) > 0:
                pass
            if not more:
                extractor.finish()
            extractor.close()
            if extractor.code:
                refused = number
                break
        for stager in stagers:
            stager.close()
    return refused


@given(
    layers=st.lists(LAYERS, min_size=1, max_size=4),
    keep=st.sampled_from([False, False, False, True]),
    window=st.sampled_from([511, 4096, 1 << 20]),
)
@example(  # a whiteout through a link of its own layer
    layers=[[Entry("a/b"), Entry("b/x")], [symlink("l", "a"), Entry("l/.wh.b"), Entry("a/x")]],
    keep=False,
    window=4096,
)
@example(layers=[[Entry("a/b"), Entry("a/l/x")], [Entry("a/l/b"), whiteout("a")]], keep=False, window=511)
@example(  # a directory that holds content, and is emptied before what is around it is emptied
    layers=[[directory("b", mode=0o700)], [Entry("b/a"), opaque("b"), Entry(".wh..wh..opq")]], keep=False, window=511
)
@example(layers=[[Entry("a/b"), hardlink("a", "a/b")]], keep=True, window=511)  # the target would go with its directory
@settings(max_examples=STACKS, deadline=None)
def test_a_stack_of_layers_gives_the_tree_of_the_model(layers: list[list[Entry]], keep: bool, window: int) -> None:
    taken, refused, expected = modelled(layers, keep=keep)
    archives = [b"".join(tar(layer)) for layer in taken]
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    for one in (fed, staged):
        with tempfile.TemporaryDirectory(dir=memory) as work:
            root = Path(work) / "root"
            root.mkdir()
            assert one(root, archives, window) == refused, one.__name__
            if refused < 0:
                assert differences(expected, listing(root), owners=ROOT_USER) == [], one.__name__


def test_the_model_refuses_what_the_rules_refuse() -> None:
    for layer in ([Entry("../x")], [Entry("a"), Entry("a/b")], [hardlink("a", "b")], [symlink("l", "l"), Entry("l/x")]):
        with pytest.raises(RefusedError):
            Model().apply(layer)
