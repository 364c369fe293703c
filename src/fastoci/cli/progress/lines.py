"""What of a job's state is told in words: lines of the log, and the summaries that remain."""

from __future__ import annotations

from typing import Final

from fastoci import events
from fastoci.cli.formatting import duration, fraction, plain, plural, size
from fastoci.cli.progress.state import Image, ProgressState, extent, left_s, received, unpacked

_SCARCE: Final = 0.1  # of a quota: below that it is shown


def fetching(image: Image) -> str:
    """``12.0 of 40.0 MB, 3 of 8 blobs, 24.0 MB/s, 2 s left``; empty when nothing is left to fetch."""
    if image.plan is None and not image.blobs:
        return "" if image.unpack is not None else "asking the registry"
    if image.ended or image.finished >= len(image.blobs):
        return ""
    blobs = f"{image.finished} of {plural(len(image.blobs), 'blob')}"
    done, total = extent(image)
    return f"{fraction(done, total)}, {blobs}, {_pace(done, total, image.rate.per_s)}"


def unpacking(image: Image) -> str:
    """``unpacking 9.0 of 60.0 MB, 2 of 8 layers``; empty when nothing is being unpacked."""
    if image.unpack is None:
        return ""
    done, total = unpacked(image)
    return f"unpacking {fraction(done, total) if total else size(done)}, {layers(image)}"


def layers(image: Image) -> str:
    """``2 of 8 layers``."""
    done = image.unpacked.layers if image.unpacked else 0
    return f"{done} of {plural(image.unpack.layers if image.unpack else 0, 'layer')}"


def state(image: Image) -> str:
    """What is being done for an image, and how far that is, without its name."""
    return ", ".join(filter(None, [fetching(image), unpacking(image)])) or "finishing"


def overview(job: ProgressState) -> str:
    """One line on all images of the job."""
    ended = len(job.images) - len(job.active())
    done, total = job.extent()
    rate = job.rate.per_s if job.rate is not None else 0.0
    return f"{ended} of {plural(len(job.images), 'image')}, {fraction(done, total)}, {_pace(done, total, rate)}"


def _pace(done: int, total: int, rate: float) -> str:
    left = left_s(done, total, rate)
    return f"{size(rate)}/s" + (f", {duration(left)} left" if left is not None else "")


def summary(event: events.Event, job: ProgressState) -> str:
    """The line that remains of an image, an unpacking, a quota that runs out or a warning.

    Empty for other events.
    """
    match event:
        case events.ImageDone():
            return _image_done(event, job.images[event.image])
        case events.UnpackDone():
            text = f"{plural(event.entries, 'entry')}, {size(event.size)} unpacked into {plain(event.root)}"
            skipped = ", ".join(
                plural(count, plain(kind).removesuffix("s")) for kind, count in event.skipped.items() if count
            )
            return f"{plain(event.image)}: {text}" + (f"; not applied: {skipped}" if skipped else "")
        case events.UnpackSkipped():
            there = f"{plain(event.root)} holds this image already (its files were not looked at)"
            return f"{plain(event.image)}: nothing to unpack, {there}"
        case events.QuotaSeen() if event.remaining <= (event.limit or 0) * _SCARCE:
            left = (
                plural(event.remaining, "request")
                if event.limit is None
                else f"{event.remaining} of {event.limit} requests"
            )
            window = "" if event.window_s is None else f" in {event.window_s} s"
            return f"{plain(event.host)}: {left} left{window}"
        case events.VerifyProgress():
            return f"{plural(event.blobs, 'blob')} hashed, {size(event.size)}"
        case events.Warned():
            return (f"{plain(event.image)}: " if event.image else "") + f"warning: {plain(event.message)}"
    return ""


def _image_done(event: events.ImageDone, image: Image) -> str:
    name, digest, own = plain(event.image), plain(event.digest), image.own
    if not own:
        return f"{name}: nothing to fetch, {digest}"
    came = received(own)
    elapsed = max(image.fetched - image.started, 1e-3)  # an unpack may have gone on for longer
    took = f"{elapsed:.{2 if elapsed < 10 else 0}f} s"
    return f"{name}: {size(came)} in {plural(len(own), 'blob')}, {took}, {size(came / elapsed)}/s, {digest}"
