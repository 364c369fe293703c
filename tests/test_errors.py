"""The tree of errors: what survives a pickle, and what may be tried again, by the docs, the errors and the client."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastoci import errors
from fastoci.errors import FastociError, RegistryError, TransportError
from fastoci.registry.fetch.failover import ClientPolicy, Failover, candidates
from fastoci.registry.fetch.retry import RetryBudget, RetryPolicy
from fastoci.registry.http.error_response import class_of
from fastoci.registry.http.servers import Servers
from support import virtual_time
from support.scripted_mirrors import endpoint

DOCS = Path(__file__).parents[1] / "docs" / "exit-codes.md"
URL = "http://registry.test/v2/a/manifests/1"
FACTS = {
    "url": URL,
    "path": "/var/lib/fastoci",
    "subject": "sha256:aa",
    "expected": 1,
    "actual": 2,
    "retry_after_s": 30.0,
    "status": 418,
    "code": 14,
    "policy": "/etc/containers/policy.json",
    "where": "default",
    "held": "sha256:cc",
    "uid": 1000,
    "gid": 100,
    "available": ("linux/arm64",),
    "requirements": (errors.SpaceRequirement("bytes", "/", 2, 1),),
}


def tree(kind: type[FastociError] = FastociError) -> Iterator[type[FastociError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below)


def make(kind: type[FastociError]) -> FastociError:
    """An instance of which every fact is known."""
    names = [name for name in inspect.signature(kind.__init__).parameters if name in FACTS]
    return kind("it is wrong", **{name: FACTS[name] for name in names})


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_an_error_survives_pickle_and_copy_with_all_its_attributes(
    kind: type[FastociError], again: Callable[[FastociError], FastociError]
) -> None:
    error = make(kind)
    error.image, error.blob, error.tries, error.elapsed_s, error.others = "redis:7", "sha256:bb", 8, 12.5, ("x: 404",)
    error.add_note("a note")
    found = again(error)
    assert type(found) is kind
    assert found is not error
    assert found.args == error.args
    assert vars(found) == vars(error)
    assert str(found) == str(error)
    found.image = "other"
    assert error.image == "redis:7"


def test_the_last_cause_comes_after_how_often_and_how_long_was_tried() -> None:
    error = errors.UnavailableError(f"GET {URL}: 503 Service Unavailable: overload", url=URL, status=503)
    assert error.message == f"GET {URL}: 503 Service Unavailable: overload"
    assert error.cause == "503 Service Unavailable"
    error.tries, error.elapsed_s = 8, 12.6
    assert error.message == f"GET {URL}: 8 tries in 13 s, last: 503 Service Unavailable: overload"
    error.elapsed_s, error.others = 0.26, ("http://mirror.test/v2: 404 Not Found",)
    assert error.message == (
        f"GET {URL}: 8 tries in 0.3 s, last: 503 Service Unavailable: overload "
        "(also asked: http://mirror.test/v2: 404 Not Found)"
    )
    assert error.cause == "503 Service Unavailable"


# What may be tried again: one table, and what errors and the client make of it.


def documented() -> dict[str, str]:
    """What the docs say of each class: ``yes``, ``no``, ``by its status`` or ``mostly``."""
    rows = re.findall(r"^\| (`.*?`) \| (yes|no|by its status|mostly)\b.*\|$", DOCS.read_text(), re.MULTILINE)
    return {name: said for names, said in rows for name in re.findall(r"`(\w+)`", names)}


def documented_statuses(said: str) -> set[int]:
    """The statuses of which the docs say so."""
    (row,) = re.findall(rf"^\| ([\d, ]+) \| {said}\b", DOCS.read_text(), re.MULTILINE)
    return set(map(int, row.split(", ")))


def test_the_docs_say_of_every_error_whether_it_may_be_tried_again() -> None:
    said = documented()
    assert said.keys() == {kind.__name__ for kind in tree()}
    for kind in tree():
        error = make(kind)
        expected = {"yes": True, "mostly": True, "no": False, "by its status": False}[said[kind.__name__]]
        assert error.retryable is expected, kind.__name__


@pytest.mark.parametrize("status", range(300, 600))
@pytest.mark.parametrize("redirected", [False, True])
async def test_docs_errors_and_client_agree_on_every_status(status: int, redirected: bool) -> None:
    may = status in documented_statuses("yes") or (redirected and status in documented_statuses("behind a redirect"))
    error = class_of(status)("no", url=URL, status=status, redirected=redirected)
    assert error.retryable is may
    assert await is_tried_again(error) is may


@pytest.mark.parametrize("retryable", [False, True])
def test_the_client_asks_the_error_whether_it_may_try_again(retryable: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[FastociError] = [TransportError("cut", url=URL, retryable=retryable)]
    for kind in (errors.FormatError, errors.UnsupportedError, RegistryError):
        error = make(kind)
        error.retryable = retryable
        failures.append(error)
    for error in failures:
        assert virtual_time.run(is_tried_again(error), monkeypatch, steps=1000) is retryable


async def is_tried_again(error: FastociError) -> bool:
    servers = Servers()
    policy = ClientPolicy(RetryPolicy(rng=lambda: 0.0), RetryBudget(100), lambda event: None)
    failover = Failover(candidates([endpoint("registry.test", origin=True)], servers), servers, policy)
    try:
        await failover.failed(error, failover.candidate)
    except FastociError as raised:
        assert raised is error
        return False
    return True
