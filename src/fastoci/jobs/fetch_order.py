"""In which order the blobs of a job are fetched: images become whole one by one, and all connections end together.

Images of a larger priority come first, among equals those of which least is missing. The blobs of an image come
together, the largest first. A blob so large that it would be the last to end is fetched earlier: with ``c``
connections and ``n`` bytes in all, one of ``s`` bytes begins at the latest when ``n - c * s`` bytes were begun.

Pure. Spec: R. L. Graham, "Bounds on multiprocessing timing anomalies" (longest processing time first).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence

from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.jobs.prefetch_plan import PlannedImage


def in_fetch_order(
    images: Sequence[PlannedImage], missing: Mapping[Digest, Descriptor], *, connections: int
) -> Iterator[Descriptor]:
    """Each missing blob of these images once.

    Args:
        connections: on which blobs arrive side by side.
    """
    line = list(dict.fromkeys(_by_image(images, missing)))
    sizes = [missing[digest].size for digest in line]
    total, begun = sum(sizes), 0
    latest = [(total - connections * size, number) for number, size in enumerate(sizes)]
    heapq.heapify(latest)
    taken = [False] * len(line)
    for number in range(len(line)):
        while latest and (latest[0][0] <= begun or taken[latest[0][1]]):
            _, urgent = heapq.heappop(latest)
            if not taken[urgent] and urgent != number:
                taken[urgent] = True
                begun += sizes[urgent]
                yield missing[line[urgent]]
        if not taken[number]:
            taken[number] = True
            begun += sizes[number]
            yield missing[line[number]]


def _by_image(images: Sequence[PlannedImage], missing: Mapping[Digest, Descriptor]) -> Iterator[Digest]:
    for image in sorted(images, key=lambda image: (-image.request.priority, image.missing)):
        needed = {blob.digest for each in image.resolved for blob in each.blobs}
        yield from sorted(needed & missing.keys(), key=lambda digest: (-missing[digest].size, digest.hex))
