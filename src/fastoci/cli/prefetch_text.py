"""What ``prefetch`` prints of the plan of a job, and how its images are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from fastoci.cli import errors
from fastoci.cli.formatting import duration, plain, plural, size, table

if TYPE_CHECKING:
    from fastoci import Evicted, PrefetchPlan, PrefetchRequest, PrefetchResult, Pruned
    from fastoci.errors import StoreFullError
    from fastoci.events import QuotaSeen

_OUTCOMES: Final = ("present", "fetched", "failed", "skipped")


def subject(request: PrefetchRequest) -> str:
    """An image in a message: its name, and where a list asks for it."""
    return plain(request.subject)


def plan_lines(plan: PrefetchPlan, quotas: Mapping[str, QuotaSeen]) -> list[str]:
    """A plan in a few lines.

    Args:
        quotas: what registries said last of the requests that are left, by host.
    """
    refused = f", {len(plan.refused)} cannot come" if plan.refused else ""
    missing = f"{plural(len(plan.missing), 'blob')}, {size(plan.missing_size)}" if plan.missing else "nothing"
    rows = [
        ("images", f"{len(plan.images)}{refused}"),
        ("unique blobs", f"{plan.blobs}, {size(plan.size)}"),
        ("shared", f"{size(plan.shared_size)} that several images need count once"),
        ("to fetch", missing),
        *((f"  from {plain(registry)}", size(count)) for registry, count in sorted(plan.by_registry.items())),
        ("requests", f"{plan.requests}, of which {plan.requests - len(plan.missing)} for manifests"),
        *((f"  {plain(host)} leaves", _left(quota)) for host, quota in sorted(quotas.items())),
        ("disk", _free(plan.free_size, plan.missing_size, size)),
        ("inodes", _free(plan.free_inodes, plan.needed_inodes, lambda count: str(int(count)))),
        *(("to evict", plain(name)) for name in plan.evicted.images),
        *(("to remove", plain(name)) for name in plan.pruned.removed),
        *(("to unpin", plain(name)) for name in plan.pruned.unpinned),
    ]
    return table(rows)


def short_of(plan: PrefetchPlan, store: str) -> StoreFullError | None:
    """Why a plan does not fit the disk of the store.

    Args:
        store: where it is, for the message.
    """
    from fastoci.errors import StoreFullError

    for free, needed, what in (
        (plan.free_size, plan.missing_size, "bytes"),
        (plan.free_inodes, plan.needed_inodes, "inodes"),
    ):
        if free is not None and needed > free:
            return StoreFullError(f"not enough space at {store}: {needed} {what} needed, {free} free", path=store)
    return None


def _left(quota: QuotaSeen) -> str:
    limit = "" if quota.limit is None else f" of {quota.limit}"
    window = "" if quota.window_s is None else f" in {duration(quota.window_s)}"
    return f"{quota.remaining}{limit}{window}"


def _free(free: int | None, needed: int, show: Callable[[float], str]) -> str:
    if free is None:
        return "no limit"
    return f"{show(free)} free, {show(max(0, free - needed))} afterwards" + (": too little" if needed > free else "")


def plan_facts(plan: PrefetchPlan, quotas: Mapping[str, QuotaSeen]) -> dict[str, object]:
    """A plan as JSON; docs/prefetch.md says what each field is. ``quotas`` as of ``plan_lines``."""
    return {
        "images": [
            {
                "reference": each.request.reference,
                "origin": each.request.origin,
                "digest": str(each.resolved[0].top.digest),
                "platforms": [str(resolved.platform or "") for resolved in each.resolved],
                "missing_size": each.missing,
            }
            for each in plan.images
        ],
        "refused": [
            {"reference": each.request.reference, "origin": each.request.origin, **errors.facts(each.error)}
            for each in plan.refused
        ],
        "blobs": plan.blobs,
        "size": plan.size,
        "shared_size": plan.shared_size,
        "missing": [{"digest": str(blob.digest), "size": blob.size} for blob in plan.missing],
        "missing_size": plan.missing_size,
        "by_registry": dict(plan.by_registry),
        "requests": plan.requests,
        "quotas": {
            host: {"remaining": quota.remaining, "limit": quota.limit, "window_s": quota.window_s}
            for host, quota in quotas.items()
        },
        "free_size": plan.free_size,
        "free_inodes": plan.free_inodes,
        "needed_inodes": plan.needed_inodes,
        "evicted": evicted_facts(plan.evicted),
        "pruned": pruned_facts(plan.pruned),
    }


def totals(result: PrefetchResult) -> str:
    """``30 images: 28 present, 1 fetched, 1 failed, in 2.1 s``."""
    counts = Counter(image.outcome for image in result.images)
    parts = ", ".join(f"{counts[outcome]} {outcome}" for outcome in _OUTCOMES if counts[outcome])
    return f"{plural(len(result.images), 'image')}: {parts}, in {result.seconds:.1f} s"


def evicted_facts(evicted: Evicted) -> dict[str, object]:
    """What makes way for a job, as JSON."""
    return {
        "images": list(evicted.images),
        "size": sum(item.size for item in evicted.items),
        "error": None if evicted.error is None else errors.facts(evicted.error),
    }


def pruned_facts(pruned: Pruned) -> dict[str, object]:
    """What a list gives up, as JSON."""
    return {"removed": list(pruned.removed), "unpinned": list(pruned.unpinned), "withheld": pruned.withheld}


def codes(result: PrefetchResult) -> list[int]:
    """An exit code for each image; for a job of none, and for what went wrong after them, one more."""
    others = [] if result.pruned.error is None else [errors.code(result.pruned.error)]
    return [0 if each.error is None else errors.code(each.error) for each in result.images] + others or [0]
