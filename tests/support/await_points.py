"""Every await of fastoci as a place where a test can make things go wrong.

``install`` has the modules of fastoci compiled with a call around each awaited thing: ``await X``, ``async for`` and
``async with``. It must come before fastoci is imported, so in a process of its own. What a test calls is the *victim*:
its tasks, and the tasks and threads that these start, are counted and injected into, and nobody else's.

A point is ``file:line:column``. In code that cleans up (``finally``, ``except BaseException`` and the end of a block)
what is awaited is done first, and what is injected comes after it: no cleanup can clean up what was never done.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

_SPEC: Final = importlib.util.find_spec("fastoci")
assert _SPEC is not None and _SPEC.origin is not None
SOURCE: Final = Path(_SPEC.origin).resolve().parent  # as it is installed, which need not be beside the tests
_LEFT_ALONE: Final = ("fastoci.testing", "fastoci.server", "fastoci.cli")  # servers of tests; a process of its own

# They own what they are called with from then on: instead of them, what they await themselves is a point.
_OWNERS: Final = frozenset(
    {
        "wait_to_end",
        "all_or_first",
        "feed",
        "_feed_both",
        "_ingest",
        "_take_whole",
        "_pipeline",
        "_held",
        "_made",
        "_open_devices",
    }
)

_CLEANUPS: Final = ("WorkerPool.finish", ".abort", ".aclose")  # wherever they are called
_THREADS: Final = ("WorkerPool.", "Threads.")  # waits for threads, which nothing can end

Inject = Callable[[], Awaitable[object]]  # what happens at the point: it raises, or waits

_victim: ContextVar[bool] = ContextVar("victim", default=False)
_cleaning: ContextVar[bool] = ContextVar("cleaning", default=False)


@dataclass(slots=True)
class Plan:
    """What has been reached, and where something is injected.

    ``spot`` is a point and which visit of it; ``inject`` happens there once, in place of what is awaited, or before
    it when the plan ``goes_on``; ``hit`` says that it did.
    """

    visits: Counter[str] = field(default_factory=Counter)
    cleanups: set[str] = field(default_factory=set)  # points that were reached while cleaning up
    delegated: set[str] = field(default_factory=set)  # points whose own points are taken instead
    on_threads: set[str] = field(default_factory=set)  # points that wait for a thread
    spot: tuple[str, int] | None = None
    inject: Inject | None = None
    error: BaseException | None = None  # what is raised on a thread
    goes_on: bool = False
    hit: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def at(self, point: str) -> Inject | None:
        """Count a visit; what is injected there."""
        visit = self.visits[point]
        self.visits[point] += 1
        if _cleaning.get():
            self.cleanups.add(point)
        if self.spot == (point, visit) and not self.hit:
            self.hit = True
            self.reached.set()
            return self.inject
        return None


plan = Plan()


def begin(
    spot: tuple[str, int] | None = None,
    inject: Inject | None = None,
    *,
    error: BaseException | None = None,
    goes_on: bool = False,
) -> Plan:
    """A new plan: at ``spot``, ``error`` is raised, or ``inject`` happens."""
    global plan
    plan = Plan(spot=spot, inject=inject if error is None else raising(error), error=error, goes_on=goes_on)
    return plan


@contextmanager
def victim(is_victim: bool = True) -> Iterator[None]:
    """What is called inside, and the tasks that begin there, are the victim's; or, inside of that, are not."""
    token = _victim.set(is_victim)
    try:
        yield
    finally:
        _victim.reset(token)


async def _point(awaitable: Any, point: str, cleanup: bool) -> Any:
    if not _victim.get():
        return await awaitable
    if getattr(awaitable, "__name__", "") in _OWNERS:
        plan.delegated.add(point)
        return await awaitable
    name = getattr(awaitable, "__qualname__", "")
    token = _cleaning.set(_cleaning.get() or cleanup or name.endswith(_CLEANUPS))
    try:
        if name.startswith(_THREADS):
            plan.on_threads.add(point)
        inject = plan.at(point)
        if inject is None:
            return await awaitable
        if plan.goes_on:
            await inject()
            return await awaitable
        if _cleaning.get():
            await awaitable
        elif hasattr(awaitable, "close"):
            awaitable.close()
        return await inject()
    finally:
        with suppress(ValueError):  # closed by the collector, in another context
            _cleaning.reset(token)


class _Iteration:
    """An asynchronous iterable with a point before each item."""

    def __init__(self, iterable: Any, point: str, cleanup: bool) -> None:
        self._iterator = aiter(iterable)
        self._point = point
        self._cleanup = cleanup

    def __aiter__(self) -> _Iteration:
        return self

    async def __anext__(self) -> Any:
        return await _point(anext(self._iterator), self._point, self._cleanup)


class _Block:
    """An asynchronous context manager with a point before and after it."""

    def __init__(self, manager: Any, point: str, cleanup: bool) -> None:
        self._manager = manager
        self._point = point
        self._cleanup = cleanup

    async def __aenter__(self) -> Any:
        if getattr(getattr(self._manager, "gen", None), "__name__", "") in _OWNERS:
            plan.delegated.add(self._point)
            return await self._manager.__aenter__()
        token = _cleaning.set(False)  # nobody ends a block that was not entered, whatever was done for it
        try:
            return await _point(self._manager.__aenter__(), self._point, False)
        finally:
            with suppress(ValueError):
                _cleaning.reset(token)

    async def __aexit__(self, *error: Any) -> Any:
        return await _point(self._manager.__aexit__(*error), f"{self._point}:exit", True)


class _Instrument(ast.NodeTransformer):
    """Wraps what is awaited."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._cleanups = 0
        self.points: list[str] = []

    def _call(self, function: str, value: ast.expr) -> ast.Call:
        point = f"{self._name}:{value.lineno}:{value.col_offset}"
        self.points.append(point)
        arguments: list[ast.expr] = [value, ast.Constant(point), ast.Constant(bool(self._cleanups))]
        call = ast.Call(ast.Name(function, ast.Load()), arguments, [])
        return ast.copy_location(call, value)

    def visit_Await(self, node: ast.Await) -> ast.AST:
        self.generic_visit(node)
        node.value = self._call("__await_point__", node.value)
        return node

    def visit_AsyncFor(self, node: ast.AsyncFor) -> ast.AST:
        self.generic_visit(node)
        node.iter = self._call("__await_points_of__", node.iter)
        return node

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST:
        self.generic_visit(node)
        for item in node.items:
            item.context_expr = self._call("__await_block__", item.context_expr)
        return node

    def visit_Try(self, node: ast.Try) -> ast.AST:
        node.body = [self.visit(each) for each in node.body]
        node.orelse = [self.visit(each) for each in node.orelse]
        for handler in node.handlers:
            cleanup = handler.type is None or ast.unparse(handler.type) in ("BaseException", "asyncio.CancelledError")
            self._cleanups += cleanup
            self.visit(handler)
            self._cleanups -= cleanup
        self._cleanups += 1
        node.finalbody = [self.visit(each) for each in node.finalbody]
        self._cleanups -= 1
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        before, self._cleanups = self._cleanups, 0
        self.generic_visit(node)
        self._cleanups = before
        return node


def _instrument(path: Path) -> tuple[ast.Module, list[str]]:
    instrument = _Instrument(str(path.resolve().relative_to(SOURCE)))
    tree = instrument.visit(ast.parse(path.read_bytes(), str(path)))
    return ast.fix_missing_locations(tree), instrument.points


class _Loader(importlib.machinery.SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        path = Path(self.get_filename(fullname))
        return compile(_instrument(path)[0], str(path), "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != "fastoci" or fullname.startswith(_LEFT_ALONE):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


def install() -> None:
    """Compile what is imported of fastoci from now on with its points."""
    assert "fastoci" not in sys.modules
    names = {"__await_point__": _point, "__await_points_of__": _Iteration, "__await_block__": _Block}
    for name, value in names.items():
        setattr(builtins, name, value)
    sys.meta_path.insert(0, _Finder())


def install_on_threads() -> None:
    """Make a point of each piece of work that is given to a thread, once fastoci is imported."""
    from fastoci.threads import Threads
    from fastoci.transfer.workers import WorkerPool

    for kind, name in ((WorkerPool, "_submit"), (Threads, "run_to_end"), (Threads, "start")):
        setattr(kind, name, _with_point(getattr(kind, name)))


def _with_point(method: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: object, work: Callable[[], object]) -> Any:
        inner = work
        while isinstance(inner, functools.partial):
            inner = inner.func
        code = getattr(inner, "__code__", None)
        inject = None
        if _victim.get() and code is not None:
            name = Path(code.co_filename).resolve().relative_to(SOURCE)
            inject = plan.at(f"thread:{name}:{code.co_firstlineno}")
        if inject is None or plan.error is None:
            return method(self, work)
        error, cleaning = plan.error, _cleaning.get()

        def fail() -> object:
            if cleaning:
                work()
            raise error

        return method(self, fail)

    return run


def all_points() -> list[str]:
    """Every await of the engine, from its source."""
    files = [
        path
        for path in sorted(SOURCE.rglob("*.py"))
        if path.relative_to(SOURCE).parts[0] not in ("testing", "server", "cli", "__main__.py")
    ]
    return [point for path in files for point in _instrument(path)[1]]


def raising(error: BaseException) -> Inject:
    """Raise this."""

    async def inject() -> None:
        raise error

    return inject


def endless() -> Inject:
    """Wait, until somebody cancels that."""

    async def inject() -> None:
        await asyncio.get_running_loop().create_future()

    return inject


def calling(function: Callable[[], object]) -> Inject:
    """Call this, and go on."""

    async def inject() -> None:
        function()

    return inject
