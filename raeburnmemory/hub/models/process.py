"""One model's process, from its start to its end, and who is told about it.

The thread that calls `start` waits until the model is ready. From then on a thread of this object waits for the process
to end: it takes in what is left of it and of its group, says why it ended, and starts it again if it may.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shlex
import signal
import threading
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ..errors import LlamafileError
from . import dialect as dialects
from . import formats, ports, system
from .causes import error_for, said_how
from .errors import NotRunning, PlatformUnsupported, PortUnavailable, StoreLocked
from .group import ProcessGroup
from .launcher import child_environment
from .limits import Limits
from .logs import ModelLog
from .preparation import key_file, key_for, program_of, settings_for
from .readiness import wait_ready
from .running import Record, RunningModel
from .spec import ProcessStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .launcher import Spawner
    from .running import Launch, Records
    from .spec import ProcessState
    from .system import Identity

__all__ = ["Limits", "ModelProcess"]

_LOG = logging.getLogger("raeburnmemory.models")
_PORTS = 5  # tries with another port, where the chosen one was taken in between
_TAIL = 40  # lines in an error
_RECENT = 200  # lines that are searched for the cause
_STEADY = 60.0  # seconds of running after which earlier crashes are forgotten
_BACKOFF = (0.5, 30.0)  # seconds before the first and before any later restart


class ModelProcess:
    """The process of the model that *job* describes; *changed* is told of each state it comes into."""

    def __init__(
        self,
        job: Launch,
        *,
        limits: Limits,
        records: Records,
        spawner: Spawner,
        owner: Identity,
        changed: Callable[[str, ProcessState, str], None],
        detached: bool = False,
    ) -> None:
        self.name = job.file.spec.name
        self.job = job
        self.limits = limits
        self.running: RunningModel | None = None
        self.state: ProcessState = "starting"  # it takes up room from now on
        self.last_used = time.monotonic()
        self.log = ModelLog(records.folder.part("logs") / f"{self.name}.log", lines=limits.log_lines)
        self._records = records
        self._spawner = spawner
        self._changed = changed
        self._detached = detached
        self._owner = owner
        self._guard = threading.Lock()  # around the start, so that none comes after a stop
        self._group: ProcessGroup | None = None
        self._stop = threading.Event()
        self._over = threading.Event()
        self._grace = limits.grace
        self._restarts = 0
        self._exit_code: int | None = None
        self._error: LlamafileError | None = None
        self._used_at: str | None = None

    # --- start

    def start(self) -> RunningModel:
        """Start the model, and wait until it is ready.

        Raises:
            LlamafileError: It could not be started, ended by itself, or took too long; nothing of it is left.
        """
        try:
            running = self._up()
        except BaseException as exc:
            if self._stop.is_set() or isinstance(exc, NotRunning) or not isinstance(exc, LlamafileError):
                self._settle("stopped")
            else:
                self._error = exc
                self._settle("failed")
            self.log.close()
            self._over.set()
            raise
        threading.Thread(target=self._supervise, name=f"raeburnmemory-model-{self.name}", daemon=True).start()
        return running

    def _up(self) -> RunningModel:
        """Bring the model up once, on another port if the chosen one was taken."""
        job = self.job
        if job.port and (why := ports.is_free(job.port)):
            raise PortUnavailable(
                f"Model {self.name!r} cannot listen on port {job.port}: {why}.",
                model=self.name,
                remedy="Name another port, or none, then a free one is chosen.",
            )
        for attempt in range(_PORTS):
            try:
                return self._attempt(job.port or ports.free_port())
            except PortUnavailable as exc:
                if job.port or attempt == _PORTS - 1:
                    raise
                self.log.note(f"{exc} Trying another port.")
        raise AssertionError("the loop returns or raises")

    def _attempt(self, port: int) -> RunningModel:
        job, spec = self.job, self.job.file.spec
        program, weights, magic = program_of(job)
        cache = self._records.folder.part("run").parent / "dialects.json"
        traits = dialects.detect(program, magic, spec.dialect, cache)
        settings, key = settings_for(job, traits, weights), key_for(job, traits)
        if key is not None:
            self.log.hide(key)
        environment = child_environment(dialects.gpu_environment(traits, settings.gpu) | job.environment)
        with key_file(self._records.file(self.name, "key"), key) as lent:
            flags = dialects.arguments(traits, settings, port=port, key_file=lent, weights=weights)
            group = self._launch([*formats.command_for(program, magic), *flags], environment)
            try:
                self.log.drain(group.output())
                self._to("starting")
                port = wait_ready(
                    self.name,
                    traits,
                    port=port,
                    key=key,
                    alias=settings.alias,
                    group=group.pid,
                    log=self.log,
                    printed=lambda: self.log.recent(_RECENT),
                    stall=self.limits.stall,
                    limit=self.limits.start,
                    stopping=self._stop,
                    ended=lambda: self._raise_if_ended(group),
                    loading=lambda: self._to("loading"),
                )
                if why := dialects.missing_gpu(traits, settings.gpu, self.log.recent(self.limits.log_lines)):
                    raise PlatformUnsupported(
                        f"Model {self.name!r} was to use gpu={settings.gpu!r}, and runs without: {why}.",
                        model=self.name,
                        remedy="Install its driver and a server built for it, or start with gpu='auto'.",
                        log_tail=tuple(self.log.tail(_TAIL)),
                    )
                self.running = RunningModel(
                    name=self.name,
                    kind=settings.kind,
                    dialect=traits.dialect,
                    base_url=f"http://{ports.HOST}:{port}",
                    port=port,
                    pid=group.pid,
                    alias=settings.alias or self.name,
                    started_at=_now(),
                    key=key,
                    detached=self._detached,
                )
                self.last_used = time.monotonic()
                self._to("ready")
            except BaseException:
                self.running = None
                self._take_in(group)
                raise
        return self.running

    def _launch(self, command: list[str], environment: dict[str, str]) -> ProcessGroup:
        self.log.note(f"Starting {shlex.join(command)}")
        self.log.mark()
        folder = str(self._records.folder.part("run"))
        with self._guard:
            if self._stop.is_set():
                raise self._stopped()
            try:
                group = ProcessGroup(
                    command, environment=environment, folder=folder, grace=self.limits.grace, spawner=self._spawner
                )
            except OSError as exc:
                raise PlatformUnsupported(
                    f"Model {self.name!r} could not be started: {exc}.", model=self.name, remedy="See what is missing."
                ) from exc
            self._group = group
        return group

    # --- while it runs

    def _to(self, state: ProcessState, why: str = "") -> None:
        """Come into a state: written down for other processes, and told to whoever listens."""
        self._write(state)
        self.state = state
        self._changed(self.name, state, why)

    def _settle(self, state: ProcessState) -> None:
        """Come into a state in which it does not run; that it cannot be written down must not keep it from that."""
        self.running = None
        try:
            self._write(state)
        except (LlamafileError, OSError) as exc:
            _LOG.warning("Could not write down that model %r is %s: %s", self.name, state, exc)
        self.state = state
        self._changed(self.name, state, str(self._error) if self._error is not None else "")

    def _write(self, state: ProcessState) -> None:
        group = self._group
        found = system.identify(group.pid) if group is not None and not group.exited() else None
        if found is not None and state in {"starting", "loading"}:
            found = dataclasses.replace(found, exe="")  # a shell still, or the loader of a llamafile
        written = self._records.read(self.name)
        if written is not None and written.owner != self._owner and written.alive:
            return  # somebody else runs the model by now, and what is written down is theirs
        if state == "stopped":
            self._records.remove(self.name)
            return
        tail = tuple(self.log.tail(_TAIL)) if state in {"crashed", "failed"} else ()
        self._records.write(
            Record(
                self.name,
                state,
                found,
                self._owner,
                self.job,
                running=self.running if state in {"ready", "stopping"} else None,
                detached=self._detached,
                # Somebody else may have asked in between; what was asked is not to be written over.
                stopping=state == "stopping" or (group is not None and _is_told_to_stop(written, group.pid, found)),
                restarts=self._restarts,
                exit_code=self._exit_code,
                last_error=str(self._error) if self._error is not None else None,
                last_lines=tail,
            )
        )

    def _raise_if_ended(self, group: ProcessGroup) -> None:
        if group.exited():
            self._exit_code = group.exit_code
            if self._asked_to_stop():
                raise self._stopped()
            self.log.join(1.0)  # what it printed last is on its way
            raise self._why("before it was ready")

    def _stopped(self) -> NotRunning:
        return NotRunning(f"Model {self.name!r} was stopped while it was being started.", model=self.name)

    def _why(self, when: str) -> LlamafileError:
        lines = self.log.recent(_RECENT)
        gpu = self.job.settings.gpu not in {"auto", "disable"}
        found = error_for(self.name, self._exit_code, lines, when=when, gpu=gpu)
        found.log_tail = tuple(lines[-_TAIL:])
        return found

    def _take_in(self, group: ProcessGroup) -> None:
        group.take_in(self._grace)
        self._exit_code = group.exit_code
        with self._guard:
            self._group = None
        self.log.join(2.0)

    def _supervise(self) -> None:
        """Wait for the end of the process; start it again if it may."""
        try:
            while (group := self._group) is not None:
                ready_at = time.monotonic()
                group.exited(wait=True)
                asked = self._asked_to_stop()
                if not asked:
                    _LOG.warning("Model %r %s.", self.name, said_how(group.exit_code))
                self._take_in(group)
                if asked:
                    self._settle("stopped")
                    return
                self._error = self._why("while it ran")
                if time.monotonic() - ready_at > _STEADY:
                    self._restarts = 0
                if not self._again():
                    return
        finally:
            self.log.close()
            self._over.set()

    def _asked_to_stop(self) -> bool:
        if self._stop.is_set():
            return True
        written = self._records.read(self.name)
        return written is not None and written.stopping

    def _again(self) -> bool:
        """Start it again after a crash; False if it may not, or could not as often as it may."""
        while True:
            if self.limits.restart == "never":
                self._settle("crashed")
                return False
            if self._restarts >= self.limits.max_restarts:
                self._settle("failed")
                return False
            self._settle("crashed")
            first, longest = _BACKOFF
            if self._stop.wait(min(longest, first * 2**self._restarts)):
                self._settle("stopped")
                return False
            self._restarts += 1
            try:
                with self._turn():
                    self._up()
            except (LlamafileError, OSError) as exc:
                if self._stop.is_set():
                    self._settle("stopped")
                    return False
                self._error = exc if isinstance(exc, LlamafileError) else self._why(f"on its way up ({exc})")
                continue
            return True

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait to be the one who starts the model; not while somebody waits for this one to stop."""
        with contextlib.ExitStack() as stack:
            while True:
                try:
                    stack.enter_context(self._records.starting(self.name, 0.2))
                    break
                except StoreLocked:
                    if self._stop.is_set():
                        raise
            yield

    # --- stop

    def stop(self, grace: float | None = None) -> bool:
        """End the model and its group: TERM, and KILL after *grace* seconds; True if it ran. Twice is as good as once.

        A start that is under way, in another thread, is broken off; a restart that was to come does not.
        """
        self._grace = self.limits.grace if grace is None else grace
        self._stop.set()
        with self._guard:
            group = self._group
        if group is not None:
            if self.state == "ready":
                with contextlib.suppress(LlamafileError, OSError):  # a full disk must not keep it alive
                    self._to("stopping")
            group.signal(signal.SIGTERM)
        if not self._over.wait(self._grace):
            if group is not None:
                group.signal(signal.SIGKILL)
            self._over.wait(self._grace + 10.0)
        if self.state in {"crashed", "failed"}:
            self._error = None
            self._settle("stopped")
        return group is not None

    # --- how it is

    @property
    def busy(self) -> bool:
        """Whether it runs, or is on its way."""
        return self.state in {"starting", "loading", "ready", "stopping"}

    @property
    def over(self) -> bool:
        """Whether it ended and will not start again by itself."""
        return self._over.is_set()

    @property
    def error(self) -> LlamafileError | None:
        """Why it ended the last time, if it did by itself."""
        return self._error

    def used(self) -> None:
        """Note that somebody talked to it now."""
        self.last_used = time.monotonic()
        self._used_at = _now()

    def status(self) -> ProcessStatus:
        """Say how it stands."""
        running = self.running
        return ProcessStatus(
            self.state,
            pid=running.pid if running else None,
            port=running.port if running else None,
            base_url=running.base_url if running else None,
            started_at=running.started_at if running else None,
            last_used=self._used_at,
            restarts=self._restarts,
            exit_code=self._exit_code,
            last_error=str(self._error) if self._error is not None else None,
        )


def _is_told_to_stop(written: Record | None, pid: int, process: Identity | None) -> bool:
    """Tell whether what is written down asks the process *pid* to end; it may have done so, and is None then."""
    if written is None or written.process is None:
        return False
    known = written.process
    return written.stopping and known.pid == pid and (process is None or process.started == known.started)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
