"""``fastoci verify``: whether each blob is what its digest says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import errors, options
from fastoci.cli.formatting import plain, plural
from fastoci.cli.formatting import size as size_text

if TYPE_CHECKING:
    from fastoci import BadBlob, Verification
    from fastoci.cli.progress.display import Display


@click.command()
@click.argument("references", metavar="[REF]...", nargs=-1)
@click.option("--rate", type=options.Rate(), metavar="SIZE/s", help="Read at most so many bytes a second, as 100MB/s.")
@options.store
@options.additional
@options.output
@options.progress
def verify(
    references: tuple[str, ...],
    rate: int | None,
    store: Path | None,
    additional: tuple[Path, ...],
    form: str,
    progress: Display,
) -> int:
    """Hash blobs and layer files again, report each that is bad or missing; change nothing.

    With REF, those of these images. Without, all that are in the store, and the blobs that its images lack; after an
    interruption the next run goes on there.

    \b
    fastoci verify --rate 100M/s
    fastoci verify alpine --format json
    """
    from fastoci.cli import run

    async def work() -> Verification:
        async with options.existing(store, additional, observer=progress) as engine:
            return await engine.verify(references, rate=rate)

    result = run.run(work(), progress)
    click.echo(_json(result) if form == "json" else _text(result))
    return errors.merge([errors.code(bad.error) for bad in result.bad] or [0])


def _text(result: Verification) -> str:
    lines = [_line(bad) for bad in result.bad]
    unpacked = f" and {plural(result.layers, 'layer file')}" if result.layers else ""
    whole = f"{plural(result.blobs, 'blob')}{unpacked}, {size_text(result.size)} hashed"
    lines.append(f"{whole}, {plural(len(result.bad), 'bad one') if result.bad else 'all good'}")
    if result.behind:
        lines[-1] += f"; those up to {plain(result.behind)} were hashed earlier"
    return "\n".join(lines)


def _line(bad: BadBlob) -> str:
    found = bad.actual or ("nothing" if bad.kind == "missing" else bad.message)
    sizes = f"{'?' if bad.expected is None else bad.expected} bytes, found {'-' if bad.found is None else bad.found}"
    users = ", ".join(map(plain, bad.references)) or "no image"
    if bad.what != "blob":
        return f"{bad.digest}: {bad.kind}: {plain(bad.message)}, of {users}"
    return f"{bad.digest}: {bad.kind}: expected {sizes} ({plain(found)}), of {users}"


def _json(result: Verification) -> str:
    import json

    import msgspec

    return json.dumps(msgspec.to_builtins(result), indent=1)
