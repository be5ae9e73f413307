"""Managing local models, for code that waits: their files, their processes, and talking to them."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

from ._wire import Endpoint
from .catalogue import Catalogue
from .client import AsyncModelClient, ModelClient
from .download import DownloadJob, merged
from .errors import InvalidSpec, ModelInUse
from .files import ModelFiles
from .limits import Limits
from .planning import planned
from .processes import Processes
from .store import ModelFolder

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from .dialect import Gpu
    from .download import Verify
    from .processes import Health, ProcessEvent
    from .running import RunningModel
    from .spec import Kind, ModelSpec, ModelStatus, Plan

__all__ = ["Management"]


_RUNS = {"starting", "loading", "ready", "stopping"}


class Management:
    """What `LlamafileManager` does, without the twins for code that awaits."""

    def __init__(
        self,
        store_dir: str | os.PathLike[str] | None = None,
        *,
        catalogue: Iterable[ModelSpec] | None = None,
        runtime: str | os.PathLike[str] | None = None,
        max_running: int = 1,
        idle_timeout: float | None = 300.0,
        stall_timeout: float = 300.0,
        stop_grace: float = 5.0,
        restart: Literal["never", "on-failure"] = "never",
        max_restarts: int = 3,
        log_lines: int = 2000,
        on_event: Callable[[ProcessEvent], object] | None = None,
        download_timeout: float = 30.0,
        download_retries: int = 6,
        retry_delay: float = 0.5,
    ) -> None:
        if not download_timeout > 0 or not retry_delay >= 0 or download_retries < 0:
            raise InvalidSpec("download_timeout is above 0 s, retry_delay and download_retries are not below 0.")
        self.folder = ModelFolder(store_dir)
        self._catalogue = Catalogue(self.folder, catalogue)
        self.files = ModelFiles(self.folder, self._catalogue)
        self.processes = Processes(
            self.folder,
            runtime=runtime,
            max_running=max_running,
            idle_timeout=idle_timeout,
            limits=Limits(
                stall=stall_timeout,
                grace=stop_grace,
                restart=restart,
                max_restarts=max_restarts,
                log_lines=log_lines,
            ),
            on_event=on_event,
        )
        self._downloading: dict[str, Any] = {
            "stall": download_timeout, "retries": download_retries, "retry_delay": retry_delay,
        }  # fmt: skip
        self._jobs: dict[str, DownloadJob] = {}
        self._guard = threading.Lock()

    # --- which models there are

    def catalogue(self) -> builtins.list[ModelSpec]:
        """Return the models that are known: the packaged ones, and those added to the folder."""
        return list(self._catalogue.all().values())

    def add(self, spec: ModelSpec, *, replace: bool = False) -> None:
        """Add a model to the catalogue of the folder; the same one twice is once.

        Raises:
            InvalidSpec: Another model has its name (unless *replace*) or its file name.
        """
        self._catalogue.add(spec, replace=replace)

    def spec(self, name: str) -> ModelSpec:
        """Return what is known about a model.

        Raises:
            UnknownModel: There is none of that name.
        """
        return self.files.spec(name)

    def list(self) -> builtins.list[ModelSpec]:
        """Return the models whose files are in the folder, those put there by hand included."""
        return self.files.present()

    def status(self, name: str) -> ModelStatus:
        """Say how it stands with a model: its file, and its process.

        Raises:
            UnknownModel: There is none of that name.
        """
        process = self.processes.status(name)
        status = merged(self.files.status(name), self._jobs.get(name))
        told = asdict(process)
        if process.last_error is None:
            del told["last_error"]  # that of the file, then
        return replace(status, **told)

    def statuses(self) -> builtins.list[ModelStatus]:
        """Say how it stands with every model that is known."""
        return [self.status(spec.name) for spec in self.files.known()]

    # --- their files

    def plan(self, name: str, *, ask: bool = True) -> Plan:
        """Return what a download would take: bytes, disk, memory, and what speaks against running it here.

        With *ask* the server is asked for the length of the file where it is not known; nothing is fetched.

        Raises:
            UnknownModel: There is none of that name.
        """
        return planned(self.files, name, ask=ask, stall=self._downloading["stall"], runtime=self.processes.runtime)

    def download(
        self,
        name: str,
        *,
        resume: bool = True,
        verify: Verify = "if-known",
        progress: Callable[[ModelStatus], None] | None = None,
        wait: bool = True,
    ) -> DownloadJob:
        """Fetch the file of a model; one that is there and right is not fetched again.

        What was loaded before is gone on with if *resume*. The whole file is compared with the SHA-256 of the catalogue
        or else of its server: *verify* `"require"` demands that the catalogue has one, `"none"` compares none.
        *progress* is called ten times a second at most. Without *wait* the job comes back at once; with it, somebody
        who interrupts the program pauses the download. A second call while it is under way gives the same job.

        Raises:
            ChecksumMismatch: The file has another digest; it is removed.
            DownloadError: The server refused, broke off once too often, or sent something else.
            InsufficientDisk: It does not fit; what was loaded is kept.
            InvalidSpec: No URL of the model is known, or no digest that *verify* demands.
            SizeMismatch: The server has a file of another length.
            UnknownModel: There is no model of that name.
        """
        spec = self.files.spec(name)
        with self._guard:
            job = self._jobs.get(name)
            if job is None or job.done:
                job = DownloadJob(
                    self.files, spec, resume=resume, verify=verify, progress=progress, **self._downloading
                )  # fmt: skip
                self._jobs[name] = job.start()
        if wait:
            try:
                job.wait()
            except KeyboardInterrupt:
                job.pause()
                raise
        return job

    def verify(self, name: str, *, progress: Callable[[int, int], None] | None = None) -> ModelStatus:
        """Read the whole file of a model, and compare it with the size and the digest that are known.

        Raises:
            ChecksumMismatch: It has another digest. It stays where it is, and is not started.
            NotDownloaded: It is not there.
            SizeMismatch: It has another length.
            StoreLocked: Somebody else works on it.
        """
        return self.files.verify(name, progress=progress)

    def import_file(
        self, path: str | os.PathLike[str], name: str | None = None, *, mode: str = "copy", kind: str = "chat"
    ) -> ModelSpec:
        """Bring a file in from elsewhere, and add it to the catalogue under *name*, by default that of the file.

        With *mode* `"link"` it stays where it is, and the folder has a symbolic link to it.

        Raises:
            InsufficientDisk: There is no room for a copy.
            InvalidSpec: It is no file of a model, or another model has its name or its file name.
            NotDownloaded: There is no such file.
        """
        return self.files.import_file(path, name, mode=mode, kind=kind)

    def remove(self, name: str, *, force: bool = False, forget: bool = False) -> bool:
        """Remove the file of a model and what was loaded of it; False if nothing was there.

        With *force* it is stopped first if it is being loaded or runs. With *forget* a model that was added to the
        catalogue is taken out of it.

        Raises:
            ModelInUse: It runs or is being loaded, and *force* is not given.
            StoreLocked: Another process works on it.
            UnknownModel: There is none of that name.
        """
        self.files.spec(name)
        job = self._jobs.get(name)
        if job is not None and not job.done:
            if not force:
                raise ModelInUse(
                    f"Model {name!r} is being downloaded.", model=name, remedy="Cancel that, or pass force=True."
                )
            job.cancel()
        state = self.processes.status(name).process_state
        if state in _RUNS:
            if not force:
                raise ModelInUse(f"Model {name!r} is {state}.", model=name, remedy="Stop it, or pass force=True.")
            self.processes.stop(name)
        return self.files.remove(name, forget=forget)

    # --- their processes

    def start(
        self,
        name: str,
        *,
        port: int = 0,
        kind: Kind | None = None,
        ctx: int | None = None,
        threads: int | None = None,
        gpu: Gpu = "auto",
        ngl: int | None = None,
        pooling: str | None = None,
        api_key: str | None = "auto",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        detach: bool = False,
    ) -> RunningModel:
        """Start a model, and wait until it is ready; one that is ready already is returned as it is.

        *port* 0 chooses a free one. *kind* is by default that of its description. *ctx* is in tokens, *ngl* is how many
        layers go to the GPU; naming a vendor with *gpu* makes it an error if there is none. *pooling* is how the
        vectors of tokens become one. *api_key* `"auto"` makes one up, None leaves the model open to all users of the
        machine. *args* are handed on as they are. *env* is added to the model's environment. *timeout*, in seconds, is
        for all of it. With *detach* the model lives on when this manager ends.

        Raises:
            ExecFormatError: The system cannot run the file.
            InsufficientMemory: It did not fit.
            InvalidSpec: A setting makes no sense.
            ModelInUse: There is no room: `max_running` models are answering somebody.
            ModelLoadFailed: The weights could not be loaded.
            NotDownloaded: The file is not there.
            PlatformUnsupported: Something that it needs is not here.
            PortUnavailable: It could not listen.
            ProcessExited: It ended by itself.
            StartTimeout: It did not become ready in time.
            UnknownModel: There is none of that name.
        """
        if (found := self.processes.running(name)) is not None:
            return found
        return self.processes.start(
            self.files.runnable(name),
            port=port,
            kind=kind,
            ctx=ctx,
            threads=threads,
            gpu=gpu,
            ngl=ngl,
            pooling=pooling,
            api_key=api_key,
            args=tuple(args),
            env=dict(env or {}),
            timeout=timeout,
            detach=detach,
        )

    def stop(self, name: str | None = None, *, grace: float | None = None) -> bool:
        """Stop a model, whoever started it, or without a name all that this manager started; False if none ran.

        It is asked to end, and made to after *grace* seconds (by default `stop_grace`), its children with it.
        """
        return self.processes.stop(name, grace=grace)

    def restart(self, name: str, *, timeout: float | None = None) -> RunningModel:
        """Stop a model and start it again as it was started before.

        Raises:
            NotRunning: It was not started before.
            LlamafileError: As `start` does.
        """
        return self.processes.restart(name, timeout=timeout)

    def health(self, name: str, *, deep: bool = False, timeout: float = 30.0) -> Health:
        """Ask a model how it is. With *deep* it has to say one token, or embed a word, within *timeout* seconds."""
        return self.processes.health(name, deep=deep, timeout=timeout)

    @overload
    def logs(self, name: str, n: int = 200, *, follow: Literal[False] = False) -> builtins.list[str]: ...
    @overload
    def logs(self, name: str, n: int = 200, *, follow: Literal[True]) -> Iterator[str]: ...
    def logs(self, name: str, n: int = 200, *, follow: bool = False) -> builtins.list[str] | Iterator[str]:
        """Return the last *n* lines that a model printed, an earlier run's if it does not run.

        With *follow*, an iterator of them and of all that come until it ends.

        Raises:
            UnknownModel: There is none of that name.
        """
        self.files.spec(name)
        return self.processes.logs(name, n, follow=follow)

    # --- talking to them

    def client(self, name: str, *, autostart: bool = True, **options: Any) -> ModelClient:
        """Return a client of a model: chat, vectors, tokens. While it asks, the model is not stopped for being idle.

        With *autostart* the model is started when it is first asked, and again after it was stopped. *options* are
        those of `ModelClient`, such as `timeout`.

        Raises:
            UnknownModel: There is none of that name.
        """
        return ModelClient(**self._client_options(name, autostart), **options)

    def async_client(self, name: str, *, autostart: bool = True, **options: Any) -> AsyncModelClient:
        """Return a client for code that awaits; see `client`."""
        return AsyncModelClient(**self._client_options(name, autostart), **options)

    def _client_options(self, name: str, autostart: bool) -> dict[str, Any]:
        spec = self.files.spec(name)
        running = self.processes.running(name)
        kind = spec.kind if running is None else running.kind
        return {"model": name, "kind": kind, "lease": partial(self.leased, name, autostart=autostart)}

    @contextmanager
    def leased(self, name: str, *, autostart: bool = True) -> Iterator[Endpoint]:
        """Give the endpoint of a model for the length of a block, in which it is not stopped for being idle.

        Raises:
            NotRunning: It does not run, and may not be started.
        """
        if autostart and self.processes.running(name) is None:
            self.start(name)
        with self.processes.in_use(name) as running:
            yield Endpoint(f"{running.base_url}/v1", running.key)

    # --- the end

    def close(self) -> None:
        """Stop the models that this manager started, but for detached ones, and pause what is being downloaded."""
        for job in list(self._jobs.values()):
            if not job.done:
                job.pause()
        self.processes.close()
        self.folder.close()
