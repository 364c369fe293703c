"""The order of a job's blobs: images become whole one by one, and all connections end together."""

from __future__ import annotations

import heapq
import random

from fastoci.image.descriptor import Descriptor
from fastoci.image.digest import Digest
from fastoci.image.manifest import Manifest
from fastoci.image.reference import Reference
from fastoci.jobs.fetch_order import in_fetch_order
from fastoci.jobs.plan import Resolved
from fastoci.jobs.prefetch_plan import PlannedImage
from fastoci.lists.request import PrefetchRequest


def blob(name: str, size: int) -> Descriptor:
    return Descriptor("", Digest.of(name.encode()), size)


def image(name: str, *blobs: Descriptor, priority: int = 0) -> PlannedImage:
    manifest = Manifest("", blobs[0], blobs[1:], {}, None, "", b"")
    resolved = Resolved(Reference.parse(name), ((blob(name, 1), b""),), manifest, None)
    return PlannedImage(PrefetchRequest(name, priority=priority), (resolved,), sum(each.size for each in blobs))


def order(images: list[PlannedImage], *, connections: int = 2) -> list[Descriptor]:
    missing = {each.digest: each for image in images for resolved in image.resolved for each in resolved.blobs}
    return list(in_fetch_order(images, missing, connections=connections))


def ends(blobs: list[Descriptor], connections: int) -> list[int]:
    """When each blob ends, when every connection brings a byte in a unit of time."""
    free, found = [0] * connections, []
    for each in blobs:
        found.append(heapq.heappop(free) + each.size)
        heapq.heappush(free, found[-1])
    return found


def test_each_blob_comes_once() -> None:
    base = blob("base", 50)
    images = [image("a", base, blob("a1", 10)), image("b", base, blob("b1", 20))]
    found = order(images)
    assert len(found) == len(set(found)) == 3


def test_only_what_is_missing_comes() -> None:
    base, top = blob("base", 50), blob("top", 5)
    assert list(in_fetch_order([image("a", base, top)], {top.digest: top}, connections=4)) == [top]


def test_of_equal_priority_the_image_of_which_least_is_missing_comes_first() -> None:
    large = image("large", *(blob(f"large{number}", 100) for number in range(10)))
    small = image("small", blob("small", 10), blob("tiny", 1))
    assert order([large, small])[:2] == [blob("small", 10), blob("tiny", 1)]


def test_a_larger_priority_comes_first_whatever_its_size() -> None:
    large = image("large", *(blob(f"large{number}", 100) for number in range(10)), priority=1)
    small = image("small", *(blob(f"small{number}", 1) for number in range(10)))
    found = order([small, large])
    assert max(map(found.index, (blob(f"large{number}", 100) for number in range(10)))) == 9


def test_a_blob_that_would_be_the_last_to_end_begins_in_time() -> None:
    small = [image(f"small{number}", blob(f"small{number}", 10)) for number in range(40)]
    huge = image("huge", blob("huge", 200))
    found = order([*small, huge], connections=4)
    assert max(ends(found, 4)) <= 200
    assert ends(found, 4)[0] == 10 or found[0].size == 200


def test_all_connections_end_about_together() -> None:
    longer = []
    for seed in range(60):
        rng = random.Random(seed)
        names = [[f"b{rng.randrange(200)}" for _ in range(rng.randint(1, 8))] for _ in range(30)]
        sizes = {name: rng.choice((1, 10, 100, 1000)) for each in names for name in each}
        images = [image(f"i{number}", *(blob(name, sizes[name]) for name in each)) for number, each in enumerate(names)]
        connections = rng.randint(2, 8)
        found = order(images, connections=connections)
        assert sorted(each.digest.hex for each in found) == sorted(blob(name, 0).digest.hex for name in sizes)
        best = max(sum(sizes.values()) / connections, max(sizes.values()))
        longer.append(max(ends(found, connections)) / best)
    assert sum(longer) / len(longer) < 1.07
