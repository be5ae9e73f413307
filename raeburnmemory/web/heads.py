"""Connections on which the head of a request does not come: uvicorn would keep them for ever, and count them.

It answers nobody else when it has as many connections as it may have, so that any program that opens a thousand and
says nothing would keep everybody out.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from asyncio import Protocol as _Protocol
else:
    _Protocol = object

__all__ = ["H11", "Auto"]

SECONDS = 10.0  # for a head, from the beginning of the connection or the end of the answer before
MOST = 64 << 10  # bytes of a head; the parser of httptools knows no limit
_turns = itertools.count()


class _Heads(_Protocol):
    """Closes its connection when a head takes too long or too much, and the one that waits longest where all are taken.

    A half of what is allowed may wait: the rest is for those who ask something.
    """

    waiting: int | None = None  # its turn among those that wait, while no request is under way
    _head = 0

    def connection_made(self: Any, transport: Any) -> None:
        super().connection_made(transport)
        self._settle()
        if self.limit_concurrency is not None and len(self.connections) > self.limit_concurrency // 2:
            others = [one for one in self.connections if one is not self and getattr(one, "waiting", None) is not None]
            if others:
                min(others, key=lambda one: one.waiting).give_up()

    def data_received(self: Any, data: bytes) -> None:
        if self.waiting is not None:
            self._head += len(data)
        super().data_received(data)
        self._settle()
        if self.waiting is not None and self._head > MOST:
            self.give_up()

    def on_response_complete(self: Any) -> None:
        super().on_response_complete()  # type: ignore[misc]  # uvicorn's
        self._settle()

    def connection_lost(self: Any, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _settle(self: Any) -> None:
        """Begin to wait where no request is under way, and stop where one is."""
        if self.transport.is_closing() or not (self.cycle is None or self.cycle.response_complete):
            self._stop()
        elif self.waiting is None:
            self.waiting, self._head = next(_turns), 0  # not the time: the clock of uvloop stands still for a while
            self._late = self.loop.call_later(SECONDS, self.give_up)

    def _stop(self: Any) -> None:
        if self.waiting is not None:
            self.waiting = None
            self._late.cancel()

    def give_up(self: Any) -> None:
        """Close the connection."""
        self._stop()
        self.transport.close()


class H11(_Heads, H11Protocol):
    """HTTP by h11."""


class Auto(_Heads, AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """HTTP by httptools where that is installed, else by h11."""
