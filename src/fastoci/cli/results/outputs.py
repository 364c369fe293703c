"""Where the results of a job go, run after run: files that are opened before anything is asked, and stdout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType

from fastoci import PrefetchRequest, PrefetchResult
from fastoci.cli import errors
from fastoci.cli.report import Report
from fastoci.cli.results import document, options
from fastoci.cli.results.document import Document
from fastoci.cli.results.output_file import OutputFile
from fastoci.cli.results.recorder import Recorder
from fastoci.cli.signals import Stopped
from fastoci.errors import FastociError


class Outputs:
    """All outputs of one command; its ``recorder`` is to see the events of each run.

    Args:
        told: who tells what cannot be written.
        show: gets the document as text, too: for stdout.
    Raises:
        StoreError: a file cannot be written.
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
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Outputs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """When a signal stopped a run, write what is known by then."""
        try:
            if self._is_running and isinstance(error, Stopped):
                self._write(document.of_run(self.recorder, "interrupted", 128 + error.number))
        finally:
            self._stack.close()

    @contextmanager
    def run(self, requests: Sequence[PrefetchRequest]) -> Iterator[None]:
        """One run; when an error ends it, what is known by then is written, and the error goes on."""
        self.recorder.begin(requests)
        self._is_running = True
        try:
            yield
        except Exception as error:
            self._is_running = False
            self._write(document.of_run(self.recorder, "failed", errors.code(error), error))
            raise

    def end(self, result: PrefetchResult, code: int) -> int:
        """The run was done to its end, with this exit code; the code of what could not be written when it was 0."""
        self._is_running = False
        written = self._write(document.of_result(result, self.recorder, code))
        return code or written

    def _write(self, found: Document) -> int:
        """Write to all; the exit code of the last failure."""
        text, code = document.text_of(found), 0
        if self._show is not None:
            self._show(text)
        for report in self._reports:
            try:
                report.write(_content(report, found, text))
            except FastociError as error:
                self._told.fail(error)
                code = error.exit_code
        return code


def _content(report: OutputFile, found: Document, text: str) -> bytes:
    return f"{text}\n".encode()
