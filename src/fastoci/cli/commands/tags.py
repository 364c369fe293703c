"""``fastoci tags``: the tags of a repository in a registry."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from fastoci.cli import options, registry_options, sections
from fastoci.cli.formatting import plain

if TYPE_CHECKING:
    from fastoci import Limits, RegistryOptions


class TagsOptions(options.Given):
    """What was asked for."""

    repository: str
    form: str
    registry: RegistryOptions
    limits: Limits


@click.command(cls=sections.Command)
@click.argument("repository", metavar="REPOSITORY")
@options.output
@registry_options.registry
@options.limits("request_rate", "max_wait_s", "first_byte_s")
@options.gather(TagsOptions)
def tags(asked: TagsOptions) -> None:
    """Print the tags of a repository, one a line, in the order in which its registry lists them: all pages.

    \b
    fastoci tags alpine
    fastoci tags registry.example.com/app --format json
    """
    from fastoci.cli import run

    async def work() -> tuple[str, ...]:
        async with options.of_ends([f"docker://{asked.repository}"], None, (), asked.registry, asked.limits) as engine:
            return await engine.tags(asked.repository)

    found = run.run(work())
    if asked.form == "json":
        click.echo(json.dumps({"repository": asked.repository, "tags": found}))
        return
    for tag in found:
        click.echo(plain(tag))
