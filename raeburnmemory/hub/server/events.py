"""What happens in the hub, told to whoever listens: jobs, models, projects."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

__all__ = ["Event", "Events"]

_KEPT = 256  # events that somebody who lost the connection may still get
_BREATH = 15.0  # seconds after which a comment is sent, so that a dead connection is noticed


class Event(NamedTuple):
    """One event: its number, its kind, and its data as JSON has it."""

    id: int
    kind: str
    data: dict[str, Any]

    def line(self) -> bytes:
        """Return it as server-sent events have it."""
        return f"id: {self.id}\nevent: {self.kind}\ndata: {json.dumps(self.data)}\n\n".encode()


class Events:
    """A list of the last events, and those who wait for more; safe to tell from any thread."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)
        self._last: deque[Event] = deque(maxlen=_KEPT)
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def tell(self, kind: str, /, **data: Any) -> None:
        """Tell everybody."""
        with self._lock:
            self._last.append(Event(next(self._ids), kind, data))
            self._wake()

    def close(self) -> None:
        """End all streams: a server that stops waits for them."""
        with self._lock:
            self._closed = True
            self._wake()

    def _wake(self) -> None:
        for loop, bell in self._waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(bell.set)

    async def stream(self, after: int | None = None) -> AsyncIterator[bytes]:
        """Yield what happens from now on, or after the event with that number, as server-sent events."""
        me = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(me)
            seen = (self._last[-1].id if self._last else 0) if after is None else after
        try:
            yield b": here\n\n"
            while not self._closed:
                with self._lock:
                    new = [event for event in self._last if event.id > seen]
                    me[1].clear()
                for event in new:
                    seen = event.id
                    yield event.line()
                if new:
                    continue
                try:
                    await asyncio.wait_for(me[1].wait(), _BREATH)
                except asyncio.TimeoutError:
                    yield b": here\n\n"
        finally:
            with self._lock:
                self._waiting.discard(me)
