"""What of a job's state is told in words: lines of the log, and the summaries that remain."""

from __future__ import annotations

from typing import Final

from fastoci import events
from fastoci.cli.formatting import duration, fraction, plain, plural, size
from fastoci.cli.progress.state import Blob, Image, ProgressState, extent, left_s, received, unpacked

_WAYS: Final = {"link": "linked", "reflink": "linked by reference", "copy": "copied"}  # else as they are named
_SCARCE: Final = 0.1  # of a quota: below that it is shown


def fetching(image: Image) -> str:
    """``12.0 of 40.0 MB, 3 of 8 blobs, 24.0 MB/s, 2 s left``; empty when nothing is left to fetch."""
    if not image.planned and not image.blobs:
        return "" if image.unpack is not None else "asking the registry"
    if image.ended or image.finished >= len(image.blobs):
        return ""
    blobs = f"{image.finished} of {plural(len(image.blobs), 'blob')}"
    done, total = extent(image)
    return f"{fraction(done, total)}, {blobs}, {_pace(image.rate.per_s, left_s(done, total, image.rate.per_s))}"


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
    """One line on all images: ``409 of 1000 images, 3 failed, 1.2 of 4.5 GB, 35.2 MB/s, 94 s left``."""
    done, total = job.extent()
    parts = [counts(job)]
    if total and (job.job is None or job.job.is_planned):
        rate = job.rate.per_s if job.rate is not None else 0.0
        parts += [fraction(done, total), _pace(rate, job.left_s()) if done < total else "finishing"]
    return ", ".join(parts)


def counts(job: ProgressState) -> str:
    """How many images there are, or while a job is planned how many names were followed; and how many failed."""
    if job.job is None or job.job.is_planned:
        text = f"{job.ready} of {plural(job.number, 'image')}"
    else:
        text = f"{job.job.resolved + job.failed} of {plural(job.number, 'name')} followed"
    return f"{text}, {job.failed} failed" if job.failed else text


def _pace(rate: float, left: float | None) -> str:
    return f"{size(rate)}/s" + (f", {duration(left)} left" if left is not None else "")


def summary(event: events.Event, job: ProgressState) -> str:
    """The line that remains of an image, an unpacking, a job, a quota that runs out or a warning.

    Empty for other events, and for the images of a large job.
    """
    if job.is_large and isinstance(
        event, events.ImageDone | events.ImageRecorded | events.UnpackDone | events.UnpackSkipped
    ):
        return ""
    match event:
        case events.ImageDone():
            return _image_done(event, job.images[event.image])
        case events.ImageRecorded():
            return _recorded(event)
        case events.JobDone() if job.number > 1:
            return _job_done(event, job)
        case events.UnpackDone():
            text = f"{plural(event.entries, 'entry')}, {size(event.size)} unpacked into {plain(event.root)}"
            skipped = ", ".join(_skipped(event, kind, count) for kind, count in event.skipped.items() if count)
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


def _skipped(event: events.UnpackDone, kind: str, count: int) -> str:
    """What could not be applied: so many of a kind, devices by their names."""
    text = plural(count, plain(kind).removesuffix("s"))
    if kind != "devices" or not event.devices:
        return text
    return f"{text} ({', '.join([*map(plain, event.devices), *(['...'] if count > len(event.devices) else [])])})"


def _image_done(event: events.ImageDone, image: Image) -> str:
    name, digest, own = plain(event.image), plain(event.digest), image.own
    if not own:
        return f"{name}: all of it is there, {digest}"
    elapsed = image.fetched - image.started  # an unpack may have gone on for longer
    return f"{name}: {_came(own, elapsed)}, {digest}"


def _recorded(event: events.ImageRecorded) -> str:
    """``redis:7: 9 blobs in containerd (k8s.io): 9 linked``."""
    ways = [f"{count} {_WAYS.get(way, way)}" for way, count in event.blobs.items() if count]
    sent = f", {size(event.sent)}" if event.sent else ""
    count = plural(sum(event.blobs.values()), "blob")
    return f"{plain(event.image)}: {count} in containerd ({plain(event.namespace)}): {', '.join(ways)}{sent}"


def _job_done(event: events.JobDone, state: ProgressState) -> str:
    """``1000 images: 700 fetched, 298 present, 2 failed; 4.5 GB in 3000 blobs, 93 s, 48.4 MB/s``."""
    counted = {name: getattr(event, name) for name in ("fetched", "present", "failed", "skipped")}
    text = ", ".join(f"{count} {name}" for name, count in counted.items() if count)
    blobs = [blob for blob in state.blobs.values() if blob.done and blob.images]
    began = state.job.began if state.job is not None else state.now
    came = _came(blobs, state.now - began) if blobs else "nothing fetched"
    return f"{plural(sum(counted.values()), 'image')}: {text}; {came}"


def _came(blobs: list[Blob], elapsed: float) -> str:
    """``40.0 MB in 3 blobs, 0.80 s, 50.0 MB/s``."""
    came, elapsed = received(blobs), max(elapsed, 1e-3)
    took = f"{elapsed:.{2 if elapsed < 10 else 0}f} s"
    return f"{size(came)} in {plural(len(blobs), 'blob')}, {took}, {size(came / elapsed)}/s"
