"""What a prefetch tells while it runs: an image on stdout when it is there, a failure on stderr when it happens."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from fastoci.cli.formatting import plain
from fastoci.cli.progress.state import MANY
from fastoci.cli.report import results_are_watched
from fastoci.events import ImageDone, ImageFailed

if TYPE_CHECKING:
    from fastoci import PrefetchRequest
    from fastoci.cli.report import Report
    from fastoci.events import Event, Observer


class PrefetchObserver:
    """Hands each event on, and tells what is more than progress.

    Args:
        observers: who is told each event.
        printed: the digests of images that were told on stdout, by name: they are not told again, and what is told
            comes into it. None tells none. On a terminal those of a large job are not told: they would scroll away
            what people look at, and the job's own line counts them.
    """

    def __init__(
        self,
        observers: Iterable[Observer],
        report: Report,
        requests: Iterable[PrefetchRequest],
        printed: dict[str, str] | None,
    ) -> None:
        self._observers = tuple(observers)
        self._report = report
        self._origins: defaultdict[str, dict[str, None]] = defaultdict(dict)
        for request in requests:
            self._origins[request.reference][request.origin] = None
        self._printed = None if len(self._origins) > MANY and results_are_watched() else printed
        self.failed: set[str] = set()  # the images whose failure was told

    def __call__(self, event: Event) -> None:
        for observer in self._observers:
            observer(event)
        if isinstance(event, ImageDone):
            self._print(event)
        elif isinstance(event, ImageFailed) and event.exit_code is not None:
            self.failed.add(event.image)
            places = ", ".join(filter(None, self._origins.get(event.image, ())))
            cause = event.error.removeprefix(f"{event.image}: ").removeprefix(f"{event.image} ")
            self._report.failing(f"{event.image}{f' ({places})' if places else ''}: {cause}")

    def _print(self, event: ImageDone) -> None:
        if self._printed is not None and self._printed.get(event.image) != event.digest:
            self._report.result(f"{plain(event.image)}@{event.digest}")
            self._printed[event.image] = event.digest
