"""``fastoci df``: how much disk a store uses, and for whom."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fastoci.cli import options
from fastoci.cli.formatting import plain, table
from fastoci.cli.formatting import size as size_text

if TYPE_CHECKING:
    from fastoci import Amount, RefUsage, Usage

_KINDS: Final = {
    "unique": "used by one image",
    "shared": "used by several images",
    "reclaimable": "used by no image: gc deletes them",
    "partial": "unfinished downloads",
    "layers": "unpacked: layer files, merged metadata, layer directories",
    "elsewhere": "in additional stores",
    "missing": "needed, and absent",
}


@click.command()
@click.option("-v", "--verbose", is_flag=True, help="List what each image uses, too.")
@options.store
@options.additional
@options.output
def df(verbose: bool, store: Path | None, additional: tuple[Path, ...], form: str) -> None:
    """Show how many blobs and bytes belong to one image, to several, and to none.

    Sizes come from manifests; only blobs of no image are measured. They are bytes of content, not disk blocks.

    \b
    fastoci df
    fastoci df -v --format json
    """
    from fastoci.cli import run

    async def work() -> Usage:
        async with options.existing(store, additional) as engine:
            return await engine.usage()

    usage = run.run(work())
    click.echo(_json(usage, verbose) if form == "json" else _text(usage, verbose))
    for error in usage.broken:
        click.echo(f"fastoci: warning: {plain(str(error))}", err=True)


def _text(usage: Usage, verbose: bool) -> str:
    total = usage.total
    rows = [("", "BLOBS", "SIZE", ""), ("total", str(total.blobs), size_text(total.size), "")]
    for name, meaning in _KINDS.items():
        amount: Amount = getattr(usage, name)
        if amount.blobs or name in ("unique", "shared", "reclaimable"):
            rows.append((name, str(amount.blobs), size_text(amount.size), meaning))
    lines = table(rows)
    if verbose:
        lines += ["", *table([("NAME", "BLOBS", "SIZE", "UNIQUE", "MISSING"), *map(_row, usage.references)])]
    return "\n".join(lines)


def _row(ref: RefUsage) -> tuple[str, ...]:
    missing = size_text(ref.missing.size) if ref.missing.blobs else "-"
    return plain(ref.name), str(ref.held.blobs), size_text(ref.held.size), size_text(ref.unique.size), missing


def _json(usage: Usage, verbose: bool) -> str:
    import json

    from msgspec import to_builtins

    result: dict[str, object] = {name: to_builtins(getattr(usage, name)) for name in ("total", *_KINDS)}
    if verbose:
        result["references"] = to_builtins(usage.references)
    return json.dumps(result, indent=1)
