"""How the models in a folder are: what runs, whoever started it, whether it is well, what it printed, who uses it."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import ports, system
from .errors import InvalidSpec, NotRunning
from .logs import follow_file, read_tail
from .running import Records
from .spec import ProcessStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .process import ModelProcess
    from .running import RunningModel
    from .spec import ProcessState
    from .store import ModelFolder

__all__ = ["Health", "Overview", "ProcessEvent"]


@dataclass(frozen=True)
class ProcessEvent:
    """That the process of model `name` came into a state; `detail` says why, where there is a reason."""

    name: str
    state: ProcessState
    detail: str = ""


@dataclass(frozen=True)
class Health:
    """How a model is: `ok`, or `detail` says what is wrong. `seconds` is how long the answer took."""

    name: str
    ok: bool
    state: ProcessState
    seconds: float
    detail: str = ""


class Overview:
    """The models in *folder*: those that this manager owns, and those of others by what they wrote down."""

    def __init__(self, folder: ModelFolder) -> None:
        self.folder = folder
        self._records = Records(folder)
        self._own: dict[str, ModelProcess] = {}
        self._guard = threading.Lock()  # around what is owned; nothing is waited for under it

    def running(self, name: str) -> RunningModel | None:
        """Return a model that is ready, whoever started it; None if it is not."""
        with self._guard:
            model = self._own.get(name)
        if model is not None and model.busy:
            return model.running if model.state == "ready" else None
        record = self._records.read(name)
        if record is None or record.state != "ready" or not record.alive or not system.same(record.owner):
            return None
        return record.running

    def status(self, name: str) -> ProcessStatus:
        """Say how it stands with the process of a model, whoever started it."""
        with self._guard:
            model = self._own.get(name)
        if model is not None and model.state != "stopped":
            return model.status()
        record = self._records.read(name)
        if record is None:
            return model.status() if model is not None else ProcessStatus()
        if record.state in {"crashed", "failed"}:
            return ProcessStatus(
                record.state, restarts=record.restarts, exit_code=record.exit_code, last_error=record.last_error
            )
        if not record.alive:
            return ProcessStatus()
        seen = record.running
        return ProcessStatus(
            record.state,
            pid=record.process.pid if record.process else None,
            port=seen.port if seen else None,
            base_url=seen.base_url if seen else None,
            started_at=seen.started_at if seen else None,
            restarts=record.restarts,
        )

    def statuses(self) -> dict[str, ProcessStatus]:
        """Say how it stands with every model that runs or that something is known of."""
        with self._guard:
            names = set(self._own)
        return {name: self.status(name) for name in sorted(names | set(self._records.names()))}

    def health(self, name: str, *, deep: bool = False, timeout: float = 30.0) -> Health:
        """Ask a model how it is. With *deep* it has to say one token, or to embed a word, within *timeout* seconds."""
        begun = time.monotonic()
        found = self.running(name)
        if found is None:
            state = self.status(name).process_state
            return Health(name, ok=False, state=state, seconds=0.0, detail=f"it is {state}")
        if deep:
            with self.in_use(name):
                wrong = ports.real_request(found.port, found.kind, key=found.key, model=found.alias, timeout=timeout)
        else:
            path = "/v1/models" if found.dialect == "v2" else "/health"
            answer = ports.ask(found.port, path, key=found.key, timeout=timeout)
            wrong = "" if answer.status == 200 else answer.error or f"it answered with status {answer.status}"
        return Health(name, not wrong, self.status(name).process_state, time.monotonic() - begun, wrong)

    def logs(self, name: str, n: int = 200, *, follow: bool = False) -> list[str] | Iterator[str]:
        """Return the last *n* lines that a model printed, an earlier run's if it does not run.

        With *follow*, an iterator of them and of all that come until it ends.
        """
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise InvalidSpec(f"n is {n!r}. It is a number of lines from 0 on.")
        with self._guard:
            model = self._own.get(name)
        if model is not None:
            return model.log.follow(n) if follow else model.log.tail(n)
        path = self.folder.log_file(name)
        if follow:
            return follow_file(path, n, lambda: self.status(name).process_state in {"starting", "loading", "ready"})
        return read_tail(path, n)

    @contextlib.contextmanager
    def in_use(self, name: str) -> Iterator[RunningModel]:
        """Talk to a model within the block: until its end nobody stops it for being idle, in whichever process.

        Raises:
            NotRunning: It does not run. `log_tail` has the last lines if it crashed.
        """
        with self._guard:
            model = self._own.get(name)
        with self._records.using(name):
            found = self.running(name)
            if found is None:
                raise self._not_running(name, model)
            try:
                yield found
            finally:
                if model is not None:
                    model.used()

    def _not_running(self, name: str, model: ModelProcess | None) -> NotRunning:
        status = self.status(name)
        record = self._records.read(name)
        tail = tuple(model.log.tail(40)) if model is not None else record.last_lines if record is not None else ()
        why = f": {status.last_error}" if status.last_error else "."
        return NotRunning(
            f"Model {name!r} is {status.process_state}{why}", model=name, remedy="Start it.", log_tail=tail
        )
