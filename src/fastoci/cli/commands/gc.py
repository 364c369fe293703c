"""``fastoci gc``: deletes what no image in the store needs, and the images that are to go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from fastoci.cli import options
from fastoci.cli.formatting import plain, plural
from fastoci.cli.formatting import size as size_text

if TYPE_CHECKING:
    from fastoci import GcItem, GcPlan

_NOUNS: Final = {
    "ref": "reference",
    "blob": "blob",
    "layer": "layer file",
    "merged": "merged file",
    "directory": "layer directory",
    "rootfs": "rootfs",
    "ingest": "unfinished blob",
    "marker": "marker",
}


@click.command()
@click.option("--dry-run", is_flag=True, help="Print what would be deleted and why; delete nothing.")
@click.option(
    "--max-age", type=options.Duration(), metavar="TIME", help="Remove images that were not used for TIME, as 30d."
)
@click.option(
    "--max-count", type=click.IntRange(0), metavar="N", help="Keep the N images that were used last, remove the others."
)
@click.option(
    "--max-size",
    type=options.Size(),
    metavar="SIZE",
    help="When the store has more than SIZE, remove the images least recently used.",
)
@click.option(
    "--low",
    type=options.Size(),
    metavar="SIZE",
    help="When the store has more than --max-size, remove down to this SIZE.  [default: 9/10 of it]",
)
@options.store
def gc(
    dry_run: bool,
    max_age: float | None,
    max_count: int | None,
    max_size: int | None,
    low: int | None,
    store: Path | None,
) -> None:
    """Delete the blobs that no image in the store needs, and what killed pulls left.

    Prints what it deletes, of what size, and why. Safe while other processes pull. Pinned images stay.

    \b
    fastoci gc
    fastoci gc --dry-run --max-age 30d
    fastoci gc --max-size 200G --low 150G
    """
    from fastoci import Retention
    from fastoci.cli import run

    try:
        retention = Retention(max_age_s=max_age, max_count=max_count, max_size=max_size, low_size=low)
    except ValueError as error:
        raise click.UsageError("--low needs --max-size, and is not larger") from error

    async def work() -> tuple[GcPlan, Sequence[GcItem]]:
        async with options.existing(store) as engine:
            plan = await engine.plan_gc(retention)
            return plan, plan.items if dry_run else await engine.gc(plan)

    plan, gone = run.run(work())
    for item in gone:
        click.echo(f"{item.kind}  {plain(item.name)}  {size_text(item.size) if item.size else '-'}  {item.why}")
    gone_kinds, spared = (Counter[str](item.kind for item in items) for items in (gone, set(plan.items) - set(gone)))
    deleted = (
        ", ".join(plural(gone_kinds[kind], noun) for kind, noun in _NOUNS.items() if gone_kinds[kind]) or "nothing"
    )
    size = size_text(sum(item.size for item in gone))
    kept = f"{plural(plan.kept_blobs + spared['blob'], 'blob')} stay"
    if spared["ref"]:
        kept += f", with {plural(spared['ref'], 'reference')} used in these seconds: run it again"
    click.echo(f"{'would delete' if dry_run else 'deleted'} {deleted}, {size}; {kept}", err=True)
