"""``fastoci differ``: containerd's layers become files with this engine."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastoci.cli import containerd_options, options, report
from fastoci.cli.formatting import plain
from fastoci.cli.results import options as results_options

if TYPE_CHECKING:
    import socket

    from fastoci import Limits
    from fastoci.cli.report import Report
    from fastoci.cli.systemd import ServiceManager
    from fastoci.server.differ import Differ
    from fastoci.server.served import Served


class DifferOptions(options.Given):
    """What was asked for."""

    socket: Path | None
    address: str
    metrics_port: tuple[str, int] | None
    limits: Limits


@click.command()
@click.option(
    "--socket",
    type=options.FilePath(),
    metavar="PATH",
    help="Listen there, for this user and root alone. Not needed where systemd passes a listener.",
)
@containerd_options.address
@results_options.metrics_port
@options.limits("unpacked_size", "unpacked_entries", "memory")
@options.gather(DifferOptions)
def differ(asked: DifferOptions) -> None:
    """Apply layers for containerd, whose configuration names PATH as a proxy plugin of type "diff".

    Blobs are read where that containerd keeps them, and what cannot be done here is handed to its own differ. Stays
    until a signal ends it, when the layers under way are done. A line on stderr tells of each.

    \b
    fastoci differ --socket /run/fastoci/differ.sock
    """
    from fastoci.cli import listening, run
    from fastoci.cli.systemd import ServiceManager

    passed = listening.passed_listener(os.environ)
    with ExitStack() as opened:
        if passed is not None:
            listener = opened.enter_context(passed)
        elif asked.socket is not None:
            listener = opened.enter_context(listening.own_listener(asked.socket.absolute()))
        else:
            raise click.UsageError("name a socket with --socket, or let systemd pass a listener")
        service = _Service(asked, ServiceManager(os.environ), report.current())
        run.run(service.run(listener), service=service)


class _Service:
    """The differ while it runs, for signals and the service manager."""

    def __init__(self, asked: DifferOptions, manager: ServiceManager, told: Report) -> None:
        self._asked = asked
        self._manager = manager
        self._told = told
        self._differ: Differ | None = None

    def reload(self) -> None:
        """There is nothing to read anew."""

    def stop(self) -> bool:
        """Take no more calls; False when there is nothing that takes any yet."""
        self._manager.stopping()
        if self._differ is not None:
            self._differ.stop()
        return self._differ is not None

    async def run(self, listener: socket.socket) -> None:
        """Serve until ``stop``."""
        from fastoci.server.differ import Differ

        with ExitStack() as opened:
            observers = [self._tell]
            differ = Differ(
                Path(containerd_options.socket_of(self._asked.address)).absolute(),
                self._asked.limits,
                lambda served: [observe(served) for observe in observers],
            )
            if self._asked.metrics_port is not None:
                from fastoci.cli.results.layer_metrics import LayerMetrics
                from fastoci.cli.results.metrics_server import MetricsServer

                metrics = LayerMetrics(differ)
                observers.append(metrics.count)
                opened.enter_context(MetricsServer(*self._asked.metrics_port, metrics.registry))
            self._differ = differ
            self._manager.ready("layers are applied")
            await differ.serve(listener)

    def _tell(self, served: Served) -> None:
        """A line for a call."""
        words = [served.method, served.digest or "-", served.outcome, f"{served.elapsed_s:.3f} s"]
        if served.outcome == "done":
            words.append(f"{served.size} bytes, {served.entries} entries, {served.tar_size} bytes of tar")
        if served.reason:
            words.append(served.reason)
        self._told.note(plain(" ".join((*words[:2], *(f"{word}," for word in words[2:-1]), words[-1]))))
