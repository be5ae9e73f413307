"""Writing a call down as an interaction. What goes wrong with that is told, and never reaches the call itself."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..nodes import as_json

if TYPE_CHECKING:
    from ..memory_graph import MemoryGraph

__all__ = ["Answer", "Call", "Recorder"]

_log = logging.getLogger("raeburnmemory")

_TAKEN = {"id", "type", "text", "timestamp", "session_id", "agent_id"}  # they mean something in what is written


@dataclass
class Answer:
    """One answer to a call: its text, and what else is known of it."""

    text: str
    about: dict[str, Any] = field(default_factory=dict)


@dataclass
class Call:
    """A call that has begun: what was asked, in which session, and what came of it."""

    asked: str
    session: str | None
    agent: Any = None
    about: dict[str, Any] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    began: float = field(default_factory=time.perf_counter)
    over: bool = False

    def failed(self, error: BaseException) -> None:
        """Remember what the call failed with, or that it was given up."""
        if isinstance(error, (GeneratorExit, asyncio.CancelledError)):
            self.about["cancelled"] = True
        else:
            self.about["error"] = f"{type(error).__name__}: {error}"


class Recorder:
    """Writes calls as interactions of a memory, and counts them.

    `recorded` is how many were written, `failed` how often something went wrong with recording: a call that could not
    be written, or text from the memory that could not be had for one. Each such error is logged as a warning in
    `raeburnmemory`, `last_error` is the last of them, and the call goes on as if nobody recorded it.

    A prompt has the id of the call, its responses that and their number; all have the attribute `run_id`, `latency` in
    seconds, and what the caller knows of the call.
    """

    def __init__(
        self,
        memory: MemoryGraph,
        *,
        session_id: str | Callable[[], str | None] | None = None,
        agent: Any = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.memory = memory
        self.recorded = self.failed = 0
        self.last_error: Exception | None = None
        self._session_id, self._agent = session_id, agent
        self._metadata = dict(metadata or {})
        if taken := sorted(_TAKEN & set(self._metadata)):
            raise InvalidInput(f"{taken[0]!r} in the metadata of a recorder is taken. Choose another name.")
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Recorder of {self.memory!r}: {self.recorded} recorded, {self.failed} failed>"

    def begin(self, asked: str, session: str | None = None, agent: Any = None, **about: Any) -> Call:
        """Return a call that begins now; the session is that of the recorder, unless it is named."""
        if session is None:
            session = self._session_id() if callable(self._session_id) else self._session_id
        return Call(asked, session, self._agent if agent is None else agent, {**self._metadata, **about})

    def end(self, call: Call) -> None:
        """Write a call down, once."""
        with self._lock:
            if call.over:
                return
            call.over = True
        latency = round(time.perf_counter() - call.began, 6)
        try:
            about = as_json({**call.about, "run_id": call.id, "latency": latency})
            prompt = {**about, "id": call.id, "text": _clean(call.asked)}
            records: list[dict[str, Any]] = []
            for number, answer in enumerate(call.answers):
                response = {**about, **as_json(answer.about), "id": f"{call.id}/{number}", "text": _clean(answer.text)}
                records.append({"prompt": prompt, "response": response, "agent": call.agent})
            records = records or [{"prompt": prompt}]
            self.memory.add_many({**record, "session_id": call.session} for record in records)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the call itself went as it went
            self.told(exc, f"The call {call.id} could not be recorded")
        else:
            with self._lock:
                self.recorded += 1

    def told(self, error: Exception, what: str) -> None:
        """Say that something went wrong with recording, and count it."""
        with self._lock:
            self.failed += 1
            self.last_error = error
        _log.warning("%s: %s", what, error)


def _clean(text: str) -> str:
    """Return a text without halves of surrogate pairs: a record with a replaced character is better than none."""
    return text.encode("utf-8", "replace").decode()
