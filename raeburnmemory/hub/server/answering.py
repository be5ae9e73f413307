"""Answers in the making: what is told of each, to whoever listens, and answers that go on when nobody does."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from ...errors import MemoryGraphError
from ...web import Problem
from ..errors import AlreadyUnderWay
from .problems import problem_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..asking import AnswerStream

__all__ = ["Answering", "LiveAnswer", "line", "told"]

log = logging.getLogger("raeburnmemory.hub")

Told = tuple[str, dict[str, Any]]


def told(stream: AnswerStream) -> Iterator[Told]:
    """Yield what is told of an answer as it is made: `retrieval`, `delta`, `citation`, then `done` or `error`."""
    try:
        yield "retrieval", {"query": stream.query, "sources": [one.to_dict() for one in stream.sources]}
        for piece in stream:
            yield "delta", {"text": piece}
        if stream.stopped:
            return
        answer = stream.answer
        for citation in answer.citations:
            yield "citation", citation.to_dict()
        yield "done", answer.to_dict()
    except MemoryGraphError as exc:
        problem = problem_of(exc) or Problem(500, "Something is wrong here.")
        yield "error", {"status": problem.status, "code": problem.code, "detail": problem.detail}


def line(kind: str, data: dict[str, Any]) -> bytes:
    """Return an event as server-sent events have it."""
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


class LiveAnswer:
    """An answer that is made in a thread of its own; what was told of it is kept, for whoever comes later."""

    def __init__(self, question: str, stream: AnswerStream, ended: Callable[[LiveAnswer], object]) -> None:
        self.question = question
        self._stream, self._ended = stream, ended
        self._told: list[Told] = []
        self._over = False
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="hub answer", daemon=True)
        self._thread.start()

    @property
    def over(self) -> bool:
        """Whether all is told."""
        return self._over

    def stop(self) -> None:
        """Let the model stop; what it said by then is recorded as `cancelled`."""
        self._stream.stop()

    def wait(self, timeout: float) -> None:
        """Wait until it has ended, for so many seconds at most."""
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            for kind, data in told(self._stream):
                self._tell(kind, data)
            if self._stream.stopped:
                self._tell("stopped", {})
        except Exception:  # whatever it is, whoever listens is to know that there comes no more
            log.exception("An answer ended with an error that nobody foresaw")
            self._tell("error", {"status": 500, "code": "", "detail": "Something is wrong here. The log says what."})
        finally:
            with self._lock:
                self._over = True
                self._wake()
            self._ended(self)

    def _tell(self, kind: str, data: dict[str, Any]) -> None:
        with self._lock:
            self._told.append((kind, data))
            self._wake()

    def _wake(self) -> None:
        for loop, bell in self._waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(bell.set)

    async def read(self) -> AsyncIterator[bytes]:
        """Yield all that was and will be told, as server-sent events."""
        me = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiting.add(me)
        seen = 0
        try:
            while True:
                with self._lock:
                    new, over = self._told[seen:], self._over
                    me[1].clear()
                for kind, data in new:
                    yield line(kind, data)
                seen += len(new)
                if over:
                    return
                if not new:
                    await me[1].wait()
        finally:
            with self._lock:
                self._waiting.discard(me)


class Answering:
    """The answers that are made at the moment, one for each thread at most."""

    def __init__(self) -> None:
        self._answers: dict[int, LiveAnswer] = {}
        self._lock = threading.Lock()

    def begin(self, thread_id: int, question: str, make: Callable[[], AnswerStream]) -> LiveAnswer:
        """Begin an answer.

        Raises:
            AlreadyUnderWay: One is being made in that thread.
            MemoryGraphError: What *make* raises.
        """
        self._check(thread_id)  # before a model is asked anything
        stream = make()
        with self._lock:
            try:
                self._check(thread_id)
            except AlreadyUnderWay:
                stream.close()
                raise

            def ended(answer: LiveAnswer) -> None:
                with self._lock:
                    if self._answers.get(thread_id) is answer:
                        del self._answers[thread_id]

            made = self._answers[thread_id] = LiveAnswer(question, stream, ended)
        return made

    def _check(self, thread_id: int) -> None:
        if (known := self._answers.get(thread_id)) is not None and not known.over:
            raise AlreadyUnderWay("An answer is being made in this thread.", remedy="Wait for it, or stop it.")

    def current(self, thread_id: int) -> LiveAnswer | None:
        """Return the answer that is being made in a thread, if there is one."""
        found = self._answers.get(thread_id)
        return None if found is None or found.over else found

    def stop(self) -> None:
        """Let all of them stop."""
        for answer in list(self._answers.values()):
            answer.stop()

    def close(self, timeout: float = 2.0) -> None:
        """Let all of them stop, and wait until they have, so that what was said is recorded."""
        self.stop()
        until = time.monotonic() + timeout
        for answer in list(self._answers.values()):
            answer.wait(max(0.0, until - time.monotonic()))
