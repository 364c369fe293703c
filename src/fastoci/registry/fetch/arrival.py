"""How much of a blob is here, told by the clock: on a slow link a buffer takes long, and ranges come in any order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from fastoci.events import BlobReceived, Observer
from fastoci.image.descriptor import Descriptor

_EVERY_S: Final = 0.5


class Arrival:
    """``with Arrival(observer, blob, received):`` tells ``received()`` twice a second when it changed."""

    def __init__(self, observer: Observer, blob: Descriptor, received: Callable[[], int]) -> None:
        self._observer = observer
        self._blob = str(blob.digest)
        self._received = received
        self._told = received()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._timer = self._loop.call_later(_EVERY_S, self._tell)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        size = self._received()
        if size != self._told:
            self._told = size
            self._observer(BlobReceived(self._blob, size))
        self._timer = self._loop.call_later(_EVERY_S, self._tell)
