"""Where the results of a job go, run after run: files that are opened before anything is asked, and stdout."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from fastoci import Engine, PrefetchRequest, PrefetchResult
from fastoci.cli import errors
from fastoci.cli.report import Report
from fastoci.cli.results import document, options
from fastoci.cli.results.document import Document
from fastoci.cli.results.output_file import OutputFile
from fastoci.cli.results.recorder import Recorder
from fastoci.cli.signals import Stopped
from fastoci.errors import FastociError

if TYPE_CHECKING:
    from fastoci.cli.results.metrics import Metrics

_READABLE: Final = 0o644  # a collector is another user
_METRICS_SIZE: Final = 1 << 20  # bytes of what an earlier process wrote


class Outputs:
    """All outputs of one command; its ``recorder`` is to see the events of each run.

    Args:
        told: who tells what cannot be written.
        show: gets the document as text, too: for stdout.
    Raises:
        StoreError: a file cannot be written.
        FastociError: the port cannot be had.
    """

    def __init__(
        self, asked: options.ResultOptions, told: Report, *, show: Callable[[str], object] | None = None
    ) -> None:
        self.recorder = Recorder()
        self._told = told
        self._show = show
        self._is_running = False
        self._stack = ExitStack()
        try:
            self._reports = [self._stack.enter_context(OutputFile(path)) for path in asked.reports]
            self._open_metrics(asked)
        except BaseException:
            self._stack.close()
            raise

    def _open_metrics(self, asked: options.ResultOptions) -> None:
        self._metrics: Metrics | None = None
        self._metrics_file: OutputFile | None = None
        if asked.metrics is None and asked.metrics_port is None:
            return
        from fastoci.cli.results.metrics import Metrics

        self._metrics = Metrics(self.recorder)
        if asked.metrics is not None:
            self._metrics_file = self._stack.enter_context(OutputFile(asked.metrics, mode=_READABLE))
            self._metrics.go_on_from(self._metrics_file.old(_METRICS_SIZE).decode(errors="replace"))
        if asked.metrics_port is not None:
            from fastoci.cli.results.metrics_server import MetricsServer

            self._stack.enter_context(MetricsServer(*asked.metrics_port, self._metrics.registry))

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """When a signal stopped a run, write what is known by then."""
        try:
            if self._is_running and isinstance(error, Stopped):
                self.recorder.ended_by = "interrupted"
                self._write(document.of_run(self.recorder, "interrupted", 128 + error.number))
        finally:
            self._stack.close()

    @contextmanager
    def run(self, requests: Sequence[PrefetchRequest], store: Path) -> Iterator[None]:
        """One run; when an error ends it, what is known by then is written, and the error goes on."""
        self.recorder.begin(requests, store)
        self._is_running = True
        try:
            yield
        except Exception as error:
            self._is_running, self.recorder.ended_by = False, type(error).__name__
            self._write(document.of_run(self.recorder, "failed", errors.code(error), error))
            raise

    async def measure(self, engine: Engine) -> None:
        """Find out how large the store is, when metrics are wanted: that costs a look at each manifest of it."""
        if self._metrics is not None:
            with suppress(FastociError):
                self.recorder.store_size = (await engine.usage()).total.size

    def end(self, result: PrefetchResult, code: int) -> int:
        """The run was done to its end, with this exit code; the code of what could not be written when it was 0."""
        self._is_running, self.recorder.result = False, result
        if code == 0:
            self.recorder.last_success = (time.time(), result.seconds)
        written = self._write(document.of_result(result, self.recorder, code))
        return code or written

    def _write(self, found: Document) -> int:
        """Write to all; the exit code of the last failure."""
        text, code = document.text_of(found), 0
        if self._show is not None:
            self._show(text)
        contents = [(report, _content(report, found, text)) for report in self._reports]
        if self._metrics is not None and self._metrics_file is not None:
            contents.append((self._metrics_file, self._metrics.text()))
        for file, data in contents:
            try:
                file.write(data)
            except FastociError as error:
                self._told.fail(error)
                code = error.exit_code
        return code


def _content(report: OutputFile, found: Document, text: str) -> bytes:
    if report.path.suffix != options.PAGE:
        return f"{text}\n".encode()
    from fastoci.cli.results.page import render

    return render(found).encode()
