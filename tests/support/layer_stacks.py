"""Random stacks of layers, of few names, and what the model says of them."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence

from hypothesis import strategies as st

from fastoci.testing.layers import Entry, Kind, directory, hardlink, opaque, whiteout
from fastoci.testing.trees import Node
from support.layer_model import Model, RefusedError

# Few names, so that entries meet each other.
_names = st.sampled_from(["a", "b", "l"])
_paths = st.lists(_names, min_size=1, max_size=3).map("/".join)
_targets = st.one_of(_paths, st.sampled_from([".", "..", "/", "/a", "../b", "../../..", "l", "missing/x", "b/../a"]))
_kinds: st.SearchStrategy[Kind] = st.sampled_from(["file", "file", "file", "directory", "directory", "symlink", "fifo"])
_entries = st.builds(
    Entry,
    path=_paths,
    kind=_kinds,
    data=st.sampled_from([b"", b"x", b"content" * 100]),
    link=_targets,
    mode=st.sampled_from([0o700, 0o755, 0o1777] + [0o4755, 0o644, 0o000] * (os.geteuid() == 0)),
    uid=st.sampled_from([0, 7, 65534]),
    gid=st.sampled_from([0, 7, 65534]),
    mtime_ns=st.sampled_from([0, 1_600_000_000_000_000_001, -1_500_000_000]),
)
_changes = st.one_of(
    *[_entries] * 6,
    st.builds(hardlink, _paths, _paths),
    _paths.map(whiteout),
    _paths.map(opaque),
    st.sampled_from([Entry(".wh..wh..opq"), directory(".", mode=0o711), Entry("./a//b/./l")]),
)
LAYERS = st.lists(_changes, min_size=1, max_size=12)


def modelled(layers: Sequence[Sequence[Entry]], *, keep: bool) -> tuple[list[list[Entry]], int, list[Node]]:
    """What the model says of the layers: the one that is refused, or -1 and the tree.

    An entry that would refuse its layer is left out, so that there is much to compare, or else ``keep`` keeps it.
    """
    model = Model()
    taken: list[list[Entry]] = []
    for number, layer in enumerate(layers):
        model.begin()
        taken.append([])
        for entry in layer:
            before = copy.deepcopy(model)
            try:
                model.add(entry)
            except RefusedError:
                if keep:
                    return [*taken[:-1], list(layer)], number, []
                model = before
            else:
                taken[-1].append(entry)
    return taken, -1, model.listing()
