"""The document of a job as an HTML page for people: one file that fetches nothing and runs no script.

Names and messages come from registries: each is made printable, shortened and escaped. The page is bounded, whatever
the job: the largest blobs are drawn and the first images listed, the rest is summed.
Spec: WHATWG HTML; SVG 2; CSP Level 3.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from fastoci.cli.formatting import duration, plain, plural, size
from fastoci.cli.results.document import BlobReport, Document, ImageReport

_BLOBS: Final = 500  # that are drawn
_IMAGES: Final = 1000  # that are listed
_REGISTRIES: Final = 100
_NAME, _DIGEST, _OTHER = 200, 140, 100  # characters of names and messages of images, of digests, and of all else
_WIDTH, _ROW, _BAR, _AXIS = 1000, 6, 5, 20  # of the drawing; the axis is above it
_FIRST: Final = ("failed", "unfinished", "skipped", "fetched", "present")

_STATES: Final = {
    "complete": "The job is complete.",
    "failed": "The job failed as a whole.",
    "interrupted": "A signal ended the job.",
}

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--line:#d0d7de;--bar:#2f6feb;--bad:#c9362c;--soft:#eaeef2}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--line:#30363d;--bar:#58a6ff;--bad:#ff7b72;
--soft:#161b22}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:72rem;margin:2rem auto;
padding:0 1rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.25rem .6rem;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}td.n,th.n{text-align:right;white-space:nowrap}
.failed,.unfinished,.skipped{color:var(--bad)}svg{width:100%;height:auto;background:var(--soft)}
svg rect{fill:var(--bar)}svg rect.bad{fill:var(--bad)}svg text{fill:var(--ink);font-size:11px}
svg line{stroke:var(--line)}code{font-size:.9em}
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def render(document: Document) -> str:
    """The whole page."""
    title = f"fastoci prefetch, {_text(document.began_at)}"
    policy = f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none'"
    return "\n".join(
        [
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width"><meta name="referrer" content="no-referrer">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body><h1>{title}</h1>",
            *_summary(document),
            *_images(document.images),
            *_registries(document),
            *_dedup(document),
            *_waterfall(document.blobs),
            "</body></html>\n",
        ]
    )


def _summary(document: Document) -> Iterable[str]:
    counts = Counter(image.outcome for image in document.images)
    parts = ", ".join(f'<span class="{each}">{counts[each]} {each}</span>' for each in _FIRST if counts[each])
    yield f"<p>{plural(len(document.images), 'image')}: {parts or 'none'}. {_STATES[document.state]}"
    yield f" {duration(document.seconds)}, exit code {document.exit_code}.</p>"
    if document.pruned is not None and document.pruned.removed:
        yield f"<p>{plural(len(document.pruned.removed), 'image')} of an earlier list removed.</p>"
    if document.error is not None:
        yield f'<p class="failed">{_text(document.error.message, _NAME)}</p>'


def _images(images: Sequence[ImageReport]) -> Iterable[str]:
    ordered = sorted(images, key=lambda image: _FIRST.index(image.outcome))
    rows = (_image_row(image) for image in ordered[:_IMAGES])
    yield "<h2>Images</h2>"
    yield from _table(("Image", "Outcome", "Size", "Fetched", "Seconds"), rows, numbers=3)
    if rest := ordered[_IMAGES:]:
        counts = Counter(image.outcome for image in rest)
        yield f"<p>And {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}.</p>"


def _image_row(image: ImageReport) -> list[str]:
    origin = f"<br><small>{_text(image.origin)}</small>" if image.origin else ""
    digest = f"<br><code>{_text(image.digest, _DIGEST)}</code>" if image.digest else ""
    why = f"<br>{_text(image.error.message, _NAME)}" if image.error is not None else ""
    outcome = f'<span class="{image.outcome}">{image.outcome}</span>{why}'
    figures = [size(image.size), size(image.fetched), f"{image.seconds:.1f}"]
    return [f"{_text(image.reference, _NAME)}{origin}{digest}", outcome, *figures]


def _registries(document: Document) -> Iterable[str]:
    ordered = sorted(document.registries, key=lambda each: -each.received)
    rows = (
        [_text(each.registry), str(each.blobs), size(each.size), size(each.received), str(each.retries)]
        for each in ordered[:_REGISTRIES]
    )
    yield "<h2>Bytes by registry</h2>"
    yield from _table(("Registry", "Blobs", "Their size", "Received", "Retries"), rows, numbers=4)
    if rest := ordered[_REGISTRIES:]:
        yield f"<p>And {size(sum(each.received for each in rest))} from {len(rest)} others.</p>"


def _dedup(document: Document) -> Iterable[str]:
    yield "<h2>Shared and present</h2>"
    if document.plan is None:
        yield "<p>Not known: the job ended before its end.</p>"
        return
    plan = document.plan
    rows = [
        ["All images, each for itself", "", size(plan.size + plan.shared_size)],
        ["Needed by several, counted once", "", size(plan.shared_size)],
        ["Unique blobs and manifests", str(plan.blobs), size(plan.size)],
        ["Blobs that were there", "", size(plan.present_size)],
        ["Blobs to fetch", str(plan.missing_blobs), size(plan.missing_size)],
    ]
    yield from _table(("What", "Blobs", "Bytes"), rows, numbers=2)


def _waterfall(blobs: Sequence[BlobReport]) -> Iterable[str]:
    """The largest blobs as bars, in the order of their beginning, above one axis of time."""
    largest = sorted(blobs, key=lambda blob: -blob.size)
    drawn = sorted(largest[:_BLOBS], key=lambda blob: blob.began)
    rest = largest[_BLOBS:]
    yield "<h2>Blobs over time</h2>"
    if not drawn:
        yield "<p>None was fetched.</p>"
        return
    if rest:
        yield f"<p>The {len(drawn)} largest; {len(rest)} others have {size(sum(blob.size for blob in rest))}.</p>"
    end = max([0.001, *(blob.ended or blob.began for blob in blobs)])
    height = _AXIS + _ROW * len(drawn)
    yield f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="When each blob came">'
    for part in range(5):
        x = _WIDTH * part // 4
        anchor = "end" if part == 4 else "start"
        yield f'<line x1="{x}" y1="0" x2="{x}" y2="{height}"/>'
        yield f'<text x="{x}" y="12" text-anchor="{anchor}">{end * part / 4:.1f} s</text>'
    for number, blob in enumerate(drawn):
        yield _bar(blob, _AXIS + _ROW * number, _WIDTH / end, end)
    yield "</svg>"


def _bar(blob: BlobReport, y: int, scale: float, end: float) -> str:
    ended = end if blob.ended is None else blob.ended
    width = max(1.0, (ended - blob.began) * scale)
    bad = ' class="bad"' if blob.error or blob.ended is None else ""
    images = plural(len(blob.images), "image")
    label = f"{_text(blob.digest, _DIGEST)}, {size(blob.size)}, {_text(blob.registry)}, {images}, {_text(blob.error)}"
    return (
        f'<rect{bad} x="{blob.began * scale:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}">'
        f"<title>{label.removesuffix(', ')}, {blob.began:.1f} to {ended:.1f} s</title></rect>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int) -> Iterable[str]:
    """A table of HTML; the last ``numbers`` columns are right-aligned."""
    first = len(head) - numbers
    yield f"<table><thead><tr>{_cells('th', head, first)}</tr></thead><tbody>"
    for row in rows:
        yield f"<tr>{_cells('td', row, first)}</tr>"
    yield "</tbody></table>"


def _cells(tag: str, row: Sequence[str], first: int) -> str:
    return "".join(f"<{tag}{' class=n' if number >= first else ''}>{cell}</{tag}>" for number, cell in enumerate(row))


def _text(text: str, most: int = _OTHER) -> str:
    """Foreign text, harmless: on one line, printable, short, escaped."""
    shown = plain(text[: most + 1])
    return html.escape(shown if len(shown) <= most else f"{shown[:most]}…")
