"""``fastoci config show``: which configuration counts, without its secrets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from fastoci.cli import config_file, environment, options, registry_options, sections
from fastoci.cli.formatting import plain

if TYPE_CHECKING:
    from fastoci import RegistryOptions


@click.group()
def config() -> None:
    """Show the configuration."""


@config.command(cls=sections.Command, short_help="Show which configuration counts.")
@click.argument("reference", metavar="[REF]", required=False)
@registry_options.registry
@options.output
def show(reference: str | None, registry: RegistryOptions, form: str) -> None:
    """Show the configuration files, and each value that an environment variable or a file gives.

    With REF also the servers that would be asked for this image, with their certificates and credentials. No registry
    is asked; credential helpers are run. Secrets are not shown.

    \b
    fastoci config show
    fastoci config show ghcr.io/me/app
    """
    context = click.get_current_context()
    entries: config_file.Entries = context.meta[config_file.ENTRIES]
    named = context.meta[config_file.NAMED]
    paths = config_file.usual(os.environ) if named is None else (named,)
    used = {entry.path for entry in entries.values()}
    result: dict[str, Any] = {
        "files": [{"path": str(path), "there": path in used or os.path.exists(path)} for path in paths],
        "values": _values(context, entries),
    }
    if reference is not None:
        import msgspec

        import fastoci
        from fastoci.cli import run

        result["servers"] = msgspec.to_builtins(run.run(fastoci.access(reference, registry)))
    click.echo(_json(result) if form == "json" else _text(result))


def _values(context: click.Context, entries: config_file.Entries) -> list[dict[str, str]]:
    """What variables say, of every option that is no secret, and what files say that no variable does."""
    program = context.find_root().command
    assert isinstance(program, click.Group)
    found: dict[str, dict[str, str]] = {}
    for command in environment.commands_of(program):
        for option in command.params:
            key = config_file.key_of(command, option) if isinstance(option, click.Option) else None
            if key is None or not isinstance(option, click.Option):
                continue
            if text := os.environ.get(str(option.envvar)):
                found[key] = {"key": key, "value": text, "from": str(option.envvar)}
            elif key in entries:
                found[key] = {"key": key, "value": str(entries[key].value), "from": str(entries[key].path)}
    return [found[key] for key in sorted(found)]


def _text(result: dict[str, Any]) -> str:
    lines = [f"file    {plain(each['path'])}{'' if each['there'] else ' (absent)'}" for each in result["files"]]
    lines += [
        f"value   {each['key']} = {plain(each['value'])}, from {plain(each['from'])}" for each in result["values"]
    ]
    for each in result.get("servers", ()):
        asked = [what for what, is_asked in (("tags", each["resolves"]), ("blobs", each["pulls"])) if is_asked]
        user = "no credentials" if each["user"] is None else f"user {each['user']}, from {each['source']}"
        trust = [] if each["verifies"] else ["any certificate"]
        facts = [f"asked for {' and '.join(asked)}", user, *trust, *each["certificates"]]
        facts += [f"header {name}" for name in each["headers"]]
        lines.append(plain(f"server  {each['url']}/{each['repository']}: {', '.join(facts)}"))
    return "\n".join(lines)


def _json(result: dict[str, Any]) -> str:
    import json

    return json.dumps(result, indent=1)
