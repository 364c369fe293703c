"""``fastoci diff``: what differs between two images, wherever they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import options, registry_options, sections

if TYPE_CHECKING:
    from fastoci import Comparison, FileChange, Limits, RegistryOptions


class DiffOptions(options.Given):
    """What was asked for."""

    left: str
    right: str
    files: bool
    platform: str | None
    form: str
    store: Path | None
    additional: tuple[Path, ...]
    registry: RegistryOptions
    limits: Limits


@click.command(cls=sections.Command)
@click.argument("left", metavar="LEFT")
@click.argument("right", metavar="RIGHT")
@click.option("--files", is_flag=True, help="Compare the files, too: the layers of both are read for it.")
@options.platform
@options.output
@options.store
@options.additional
@registry_options.registry
@options.limits("max_wait_s", "first_byte_s", "unpacked_size", "unpacked_entries", "memory")
@options.gather(DiffOptions)
def diff(asked: DiffOptions) -> int:
    """Show what differs between two images: how they are run, their layers, and with --files their files.

    LEFT and RIGHT are as of `fastoci inspect`. Nothing is unpacked or kept.

    - is what LEFT has alone, + what RIGHT has alone, ~ a file of both that differs. Times of files do not count.

    The exit code is 0 when nothing differs, and 1 when something does.

    \b
    fastoci diff redis:7.2 redis:7.4
    fastoci diff docker://redis:7 oci:./redis --files
    """
    from fastoci.cli import run

    async def work() -> bool:
        ends = [asked.left, asked.right]
        async with (
            options.of_ends(ends, asked.store, asked.additional, asked.registry, asked.limits) as engine,
            engine.comparing(asked.left, asked.right, platform=asked.platform) as comparing,
        ):
            shown = _Json(asked) if asked.form == "json" else _Text(asked)
            shown.begin(comparing.comparison)
            same = comparing.comparison.is_same
            if asked.files:
                async for change in comparing.files():
                    shown.file(change)
            shown.end()
            return same

    return 0 if run.run(work()) else 1


class _Text:
    """Lines for people."""

    def __init__(self, asked: DiffOptions) -> None:
        self._files = asked.files

    def begin(self, comparison: Comparison) -> None:
        """Tell what documents say."""
        from fastoci.cli import inspection_text

        if comparison.is_same:
            return
        for line in inspection_text.field_lines(comparison):
            click.echo(line)
        for line in inspection_text.layer_lines(comparison):
            click.echo(line)

    def file(self, change: FileChange) -> None:
        """Tell one file."""
        from fastoci.cli import inspection_text

        click.echo(inspection_text.file_line(change))

    def end(self) -> None:
        """That was all."""


class _Json:
    """One JSON object, of which the files are written as they are found."""

    def __init__(self, asked: DiffOptions) -> None:
        self._asked = asked
        self._tail = ""
        self._between = ""

    def begin(self, comparison: Comparison) -> None:
        """Write all but the files."""
        from fastoci.cli import inspection

        names = (self._asked.left, self._asked.right)
        document = inspection.comparison_document(comparison, names, files=self._asked.files)
        text = inspection.as_json(inspection.builtins(document))
        if self._asked.files:
            head, _, _ = text.rpartition("]")  # files come last
            click.echo(head)
            self._tail = "]\n}"
        else:
            click.echo(text)

    def file(self, change: FileChange) -> None:
        """Write one file."""
        import json

        from fastoci.cli import inspection

        line = json.dumps(inspection.builtins(inspection.changed_file(change)))
        click.echo(f"{self._between}  {line}", nl=False)
        self._between = ",\n"

    def end(self) -> None:
        """Write the end."""
        if self._tail:
            click.echo(f"\n{self._tail}" if self._between else self._tail)
