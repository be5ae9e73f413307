"""The processes of the models in a folder: starting and stopping them, one or several at once, whoever started them.

A manager owns what it starts. What others started it sees by what they wrote down, and can talk to, and stop; what was
left behind by a manager that is gone it ends, if it is that very process.
"""

from __future__ import annotations

import collections
import logging
import os
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from . import system
from .dialect import Settings
from .errors import InvalidSpec, ModelInUse, NotRunning, PlatformUnsupported
from .launcher import Spawner
from .limits import Limits
from .overview import Health, Overview, ProcessEvent
from .process import ModelProcess
from .running import Launch

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dialect import Gpu
    from .running import Record, RunningModel
    from .spec import Kind, ProcessState, RunnableFile
    from .store import ModelFolder

__all__ = ["Health", "ProcessEvent", "Processes"]

_LOG = logging.getLogger("raeburnmemory.models")
_TICK = 1.0  # seconds between two looks for idle models, at most
_BY_OTHERS = 5.0  # seconds that another manager has to take note of a stop


class Processes(Overview):
    """Starts, watches and stops the models in *folder*.

    *runtime* is the server for bare GGUF files: a llamafile without weights, or llama-server. *max_running* is how many
    of its own models a manager runs at once; one more stops the one that was idle for longest. A model that nobody
    talked to for *idle_timeout* seconds is stopped; None is never. *on_event* is called with each `ProcessEvent`, in
    the thread where it happens.
    """

    def __init__(
        self,
        folder: ModelFolder,
        *,
        runtime: str | os.PathLike[str] | None = None,
        max_running: int = 1,
        idle_timeout: float | None = 300.0,
        limits: Limits | None = None,
        on_event: Callable[[ProcessEvent], object] | None = None,
    ) -> None:
        if isinstance(max_running, bool) or not isinstance(max_running, int) or max_running < 1:
            raise InvalidSpec(f"max_running is {max_running!r}. It is a number from 1 on.")
        if idle_timeout is not None and (isinstance(idle_timeout, bool) or not idle_timeout > 0):
            raise InvalidSpec(f"idle_timeout is {idle_timeout!r}. It is a number of seconds, or None for never.")
        super().__init__(folder)
        self.runtime = os.fspath(runtime) if runtime is not None else None
        self.max_running = max_running
        self.idle_timeout = idle_timeout
        self.limits = limits or Limits()
        self._on_event = on_event
        self._spawner = Spawner()
        self._turns: collections.defaultdict[str, threading.RLock] = collections.defaultdict(threading.RLock)
        self._room = threading.Lock()  # around making room: two that start must not both take the last one
        self._closed = threading.Event()
        self._idle: threading.Thread | None = None
        self._pid = os.getpid()
        self._recovered = False

    # --- start

    def start(
        self,
        file: RunnableFile,
        *,
        port: int = 0,
        kind: Kind | None = None,
        ctx: int | None = None,
        threads: int | None = None,
        gpu: Gpu = "auto",
        ngl: int | None = None,
        pooling: str | None = None,
        api_key: str | None = "auto",
        args: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        timeout: float | None = None,
        detach: bool = False,
    ) -> RunningModel:
        """Start the model in *file*, and wait until it is ready; one that is ready already is returned as it is.

        *port* 0 chooses a free one. *ctx* is in tokens, *ngl* is how many layers go to the GPU; naming a vendor with
        *gpu* makes it an error if there is none. *api_key* `"auto"` makes one up, None leaves the server open to all
        users of the machine. *env* is added to the model's environment. *timeout*, in seconds, is for all of it. With
        *detach* the model lives on when this manager ends.

        Raises:
            ExecFormatError: The system cannot run the file.
            InsufficientMemory: It did not fit.
            InvalidSpec: A setting makes no sense.
            ModelInUse: There is no room: `max_running` models are answering somebody.
            ModelLoadFailed: The weights could not be loaded.
            NotRunning: It was stopped while it was being started.
            PlatformUnsupported: Something that it needs is not here.
            PortUnavailable: It could not listen.
            ProcessExited: It ended by itself.
            StartTimeout: It did not become ready in time.
        """
        if os.name != "posix":
            raise PlatformUnsupported("Models can be run on Linux, macOS and other POSIX systems only so far.")
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise InvalidSpec(f"port is {port!r}. It is a number from 1 to 65535, or 0 for any that is free.")
        if api_key is not None and (not isinstance(api_key, str) or not api_key.strip() or not api_key.isprintable()):
            raise InvalidSpec("api_key is empty or not printable. Pass a text, 'auto' for a new one, or None for none.")
        settings = Settings(kind or file.spec.kind, "", ctx, threads, gpu, ngl, pooling, tuple(args))
        job = Launch(file, settings, port, api_key, dict(env or {}), self.runtime)
        return self._start(job, timeout=timeout, detach=detach)

    def keep(self, job: Launch) -> RunningModel:
        """Start *job* in a keeper: it is detached, and whoever had the keeper start it holds the turn.

        Raises:
            LlamafileError: As `start` does.
        """
        return self._up(job, self.limits, detached=True)

    def wait(self, name: str, ended: threading.Event) -> None:
        """Wait until a model of this manager ended for good, or *ended* was set."""
        with self._guard:
            model = self._own.get(name)
        while model is not None and not ended.wait(_TICK):
            if model.over:
                return

    def _start(self, job: Launch, *, timeout: float | None, detach: bool) -> RunningModel:
        name = job.file.spec.name
        limits = self.limits if timeout is None else replace(self.limits, start=timeout)
        self._check_open()
        self.recover()
        if (found := self.running(name)) is not None:
            return found
        with self._turns[name], self._records.starting(name, limits.start):
            if (found := self.running(name)) is not None:
                return found
            self._clear(name)
            if detach:
                return self._start_detached(job, limits)
            return self._up(job, limits, detached=False)

    def _up(self, job: Launch, limits: Limits, *, detached: bool) -> RunningModel:
        name = job.file.spec.name
        self._check_open()
        with self._room:
            self._make_room(name, time.monotonic() + limits.start)
            model = ModelProcess(
                job,
                limits=limits,
                records=self._records,
                spawner=self._spawner,
                owner=self._me(),
                changed=self._tell,
                detached=detached,
            )
            with self._guard:
                self._own[name] = model
        running = model.start()
        if self._closed.is_set():  # in between: closing has not seen it
            model.stop()
            self._check_open()
        self._watch_idle()
        return running

    def _start_detached(self, job: Launch, limits: Limits) -> RunningModel:
        from .keeper import keep

        keep(self.folder, job, limits, self.idle_timeout)
        found = self.running(job.file.spec.name)
        if found is None:
            raise NotRunning(
                f"Model {job.file.spec.name!r} was ready, and has ended.",
                model=job.file.spec.name,
                remedy="See its log.",
            )
        return found

    def _clear(self, name: str) -> None:
        """Put an end to what is left of an earlier run: one that crashed, and may be about to start again."""
        with self._guard:
            old = self._own.pop(name, None)
        if old is not None:
            old.stop()
        record = self._records.read(name)
        if record is not None and record.alive:  # neither ready nor on its way: its manager is gone, or it hangs
            self._end(record, self.limits.grace)

    def _make_room(self, name: str, deadline: float) -> None:
        """Stop the models that were idle for longest, until there is room for one more."""
        while True:
            with self._guard:
                busy = [model for model in self._own.values() if model.busy and model.name != name]
            if len(busy) < self.max_running:
                return
            if any(model.state != "ready" for model in busy) and time.monotonic() < deadline:
                time.sleep(0.05)  # one that is on its way is soon there, or gone
                continue
            for model in sorted(busy, key=lambda each: each.last_used):
                if self._stop_if_idle(model, 0.0):
                    break
            else:
                raise ModelInUse(
                    f"{len(busy)} models run and are answering somebody: "
                    f"{', '.join(repr(model.name) for model in busy)}. No more than {self.max_running} may run.",
                    model=name,
                    remedy="Stop one of them, or allow more with max_running=.",
                )

    def _stop_if_idle(self, model: ModelProcess, idle: float) -> bool:
        """Stop *model* if it is ready, nobody is talking to it, and nobody did for *idle* seconds."""
        if model.state != "ready":
            return False
        try:
            with self._records.unused(model.name) as last:
                if time.monotonic() - max(model.last_used, last) < idle:
                    return False
                model.stop()
                return True
        except ModelInUse:
            return False

    # --- stop

    def stop(self, name: str | None = None, *, grace: float | None = None) -> bool:
        """Stop a model, whoever started it, or with None all that this manager started; False if none ran.

        It is asked to end, and after *grace* seconds (default: those of the limits) made to, its children with it.
        """
        if name is None:
            return self._stop_own(grace)
        self.recover()
        with self._guard:
            model = self._own.get(name)
        ran = model is not None and model.stop(grace)
        record = self._records.read(name)
        if record is None:
            return ran
        if record.alive:
            self._end(record, self.limits.grace if grace is None else grace)
            return True
        if record.owner != self._me() and record.state not in {"crashed", "failed"} and system.same(record.owner):
            return ran  # somebody else is starting it at this moment
        self._records.remove(name)
        return ran

    def _stop_own(self, grace: float | None) -> bool:
        with self._guard:
            models = list(self._own.values())
        outcome: list[bool] = []
        # At once: each may take its grace.
        threads = [threading.Thread(target=lambda model=model: outcome.append(model.stop(grace))) for model in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return any(outcome)

    def _end(self, record: Record, grace: float) -> None:
        """End a process that this manager does not own; *record* was read a moment ago, and it is that one."""
        assert record.process is not None
        self._records.write(replace(record, state="stopping", stopping=True))
        system.end_group(record.process.pid, grace)
        deadline = time.monotonic() + _BY_OTHERS
        while system.same(record.owner) and time.monotonic() < deadline:  # its owner takes note, and tidies up
            now = self._records.read(record.name)
            if now is None or now.process != record.process:
                return
            time.sleep(0.05)
        self._records.remove(record.name)

    def restart(self, name: str, *, timeout: float | None = None) -> RunningModel:
        """Stop a model and start it again as it was started before.

        Raises:
            NotRunning: Nothing is known of an earlier start.
            LlamafileError: As `start` does.
        """
        record = self._records.read(name)
        with self._guard:
            model = self._own.get(name)
        job = model.job if model is not None else record.launch if record is not None else None
        if job is None:
            raise NotRunning(f"Model {name!r} does not run.", model=name, remedy="Start it.")
        detached = record is not None and record.detached
        self.stop(name)
        return self._start(job, timeout=timeout, detach=detached)

    def close(self) -> None:
        """Stop all models that this manager started, but for detached ones."""
        if self._pid != os.getpid():
            return  # a fork: the models are its parent's
        self._closed.set()
        self._stop_own(None)
        if self._idle is not None and self._idle is not threading.current_thread():
            self._idle.join(_TICK * 5)
        self._spawner.close()

    def recover(self) -> None:
        """End what managers that are gone have left behind, each only if it is the very process that they started."""
        if self._recovered:
            return
        self._recovered = True
        for name in self._records.names():
            record = self._records.read(name)
            if record is None or system.same(record.owner):
                continue
            if record.alive:
                _LOG.warning("Ending model %r, which the manager with process %d left.", name, record.owner.pid)
                self._end(record, self.limits.grace)
            elif record.state not in {"crashed", "failed"}:
                self._records.remove(name)

    # --- in the background

    def _watch_idle(self) -> None:
        if self.idle_timeout is None:
            return
        with self._guard:
            if self._idle is None or not self._idle.is_alive():
                self._idle = threading.Thread(target=self._stop_idle, name="raeburnmemory-idle", daemon=True)
                self._idle.start()

    def _stop_idle(self) -> None:
        assert self.idle_timeout is not None
        while not self._closed.wait(min(_TICK, self.idle_timeout / 4)):
            with self._guard:
                models = list(self._own.values())
            for model in models:
                if self._stop_if_idle(model, self.idle_timeout):
                    _LOG.info("Stopped model %r: nobody used it for %g s.", model.name, self.idle_timeout)

    def _tell(self, name: str, state: ProcessState, why: str) -> None:
        if self._on_event is None:
            return
        try:
            self._on_event(ProcessEvent(name, state, why))
        except Exception:  # noqa: BLE001 - a listener of somebody else must not stop the watching
            _LOG.exception("on_event failed for model %r in state %s.", name, state)

    def _me(self) -> Any:
        found = system.identify(os.getpid())
        assert found is not None
        return found

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise NotRunning("This manager is closed.", remedy="Open another one.")
        if self._pid != os.getpid():
            raise NotRunning(
                "This manager belongs to the process that this one was forked from.", remedy="Open another one."
            )
        if sys.platform == "emscripten":
            raise PlatformUnsupported("There are no processes in a browser.")
