"""Local models as the hub's pages handle them: each call answers at once, with the state changed already.

`LlamafileManager.start` waits until a model is ready, and before it starts one it may read the whole file. Here that
goes on in a thread, and the model counts as running from the moment it was asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import HubError, NoModel
from ..models.errors import UnknownModel
from ..models.open_client import open_client
from ..models.passing import Passing

if TYPE_CHECKING:
    from ..models.interface import ChatClient
    from ..models.manager import LlamafileManager
    from ..models.spec import Kind, ModelSpec, ModelStatus

__all__ = ["ModelControl", "Shown"]

_RUNS = {"starting", "loading", "ready", "stopping"}
_LOADS = {"queued", "downloading", "paused", "verifying"}
_AT_ONCE = 0.3  # seconds in which a start that cannot succeed mostly has failed
_LONGEST = 600.0  # seconds that an answer waits for a model to be ready


@dataclass(frozen=True)
class Shown:
    """How it stands with a model, in the five states that the pages know, and a sentence about it."""

    state: str
    message: str
    status: ModelStatus


class ModelControl:
    """The models of *manager*, and the server at *url* where one was named, which is asked instead of them."""

    def __init__(self, manager: LlamafileManager, url: str | None = None, model: str | None = None) -> None:
        self.manager = manager
        self.url = url
        self.model = model
        self._upstream = None if url is None else open_client(f"openai:{url}", model=model)
        self._passing: dict[str | None, Passing] = {}
        self._starting: dict[str, threading.Thread] = {}
        self._failed: dict[str, str] = {}
        self._guard = threading.Lock()
        self.on_change: Callable[[str], object] = lambda _name: None

    # --- which there are ----------------------------------------------------------------------------------------

    def specs(self) -> list[ModelSpec]:
        """Return all models that are known."""
        return self.manager.files.known()

    def by_file(self, filename: str) -> ModelSpec:
        """Return the model with that file name.

        Raises:
            UnknownModel: There is none.
        """
        for spec in self.specs():
            if spec.filename == filename:
                return spec
        raise UnknownModel(f"No model has the file {filename!r}.", remedy="List them to see which there are.")

    def running(self) -> ModelSpec | None:
        """Return the chat model that runs or is about to, None if none does."""
        return next(iter(self.all_running("chat")), None)

    def all_running(self, kind: Kind | None = None) -> list[ModelSpec]:
        """Return the models, of one kind or any, that run or are about to."""
        with self._guard:
            starting = [name for name, thread in self._starting.items() if thread.is_alive()]
        return [
            spec
            for spec in self.specs()
            if spec.kind == (kind or spec.kind)
            and (spec.name in starting or self.manager.processes.status(spec.name).process_state in _RUNS)
        ]

    def shown(self, name: str) -> Shown:
        """Say how it stands with a model.

        Raises:
            UnknownModel: There is none of that name.
        """
        status = self.manager.status(name)
        with self._guard:
            thread, failed = self._starting.get(name), self._failed.get(name)
        file, process = status.file_state, status.process_state
        if thread is not None and thread.is_alive() and process not in {"ready", "loading"}:
            return Shown("running", "It is being started.", status)
        if process in _RUNS:
            return Shown("running", "It is ready." if process == "ready" else f"It is {process}.", status)
        if failed is not None or process in {"crashed", "failed"}:
            return Shown("error", failed or status.last_error or f"It {process}.", status)
        if file in _LOADS:
            return Shown("downloading", f"It is {file}.", status)
        if file == "corrupt":
            return Shown("error", status.last_error or "Its file is damaged. Delete it, and fetch it again.", status)
        if file == "ready":
            return Shown("idle", "It is here, and does not run.", status)
        return Shown("absent", status.last_error or "It is not here.", status)

    # --- doing something with them ------------------------------------------------------------------------------

    def download(self, name: str) -> None:
        """Begin to fetch a model, or go on with it.

        Raises:
            LlamafileError: It cannot be fetched.
        """
        self._forget(name)
        self.manager.download(name, wait=False)
        self.on_change(name)

    def start(self, name: str, **options: Any) -> None:
        """Begin to start a model; chat models that run are stopped.

        Raises:
            LlamafileError: It failed within a moment.
        """
        spec = self.manager.spec(name)
        self._forget(name)
        if spec.kind == "chat":
            for other in self.specs():
                if other.kind == "chat" and other.name != name and self.shown(other.name).state == "running":
                    self.stop(other.name)
        failed: list[Exception] = []

        def run() -> None:
            me = threading.current_thread()
            try:
                self.manager.start(name, **options)
            except (HubError, OSError) as exc:
                failed.append(exc)
                with self._guard:
                    if self._starting.get(name) is me:
                        self._failed[name] = str(exc)
            else:
                with self._guard:
                    unwanted = self._starting.get(name) is None
                if unwanted:  # it was stopped while its file was read, when there was no process to end
                    self.manager.stop(name)
            self.on_change(name)

        with self._guard:
            thread = self._starting.get(name)
            if thread is None or not thread.is_alive():
                thread = self._starting[name] = threading.Thread(target=run, name=f"start {name}", daemon=True)
                thread.start()
        self.on_change(name)
        thread.join(_AT_ONCE)
        if failed:
            raise failed[0]

    def stop(self, name: str) -> bool:
        """Stop a model, or its start; False if it did not run.

        Raises:
            LlamafileError: There is none of that name.
        """
        self.manager.spec(name)
        self._forget(name)
        with self._guard:
            thread = self._starting.pop(name, None)
        stopped = self.manager.stop(name)
        if thread is not None and thread.is_alive():
            thread.join(_AT_ONCE)
            stopped = self.manager.stop(name) or stopped or thread.is_alive()
        self.on_change(name)
        return stopped

    def remove(self, name: str) -> bool:
        """Delete the file of a model; it is stopped, and its download ended, before. False if nothing was there.

        Raises:
            LlamafileError: It cannot be deleted.
        """
        self.stop(name)
        removed = self.manager.remove(name, force=True)
        self.on_change(name)
        return removed

    def _forget(self, name: str) -> None:
        with self._guard:
            self._failed.pop(name, None)

    # --- asking them --------------------------------------------------------------------------------------------

    def client(self) -> ChatClient:
        """Return who answers: the server that was named, or the chat model that runs, ready by then.

        Raises:
            LlamafileError: It failed to start.
            NoModel: There is none.
        """
        if self._upstream is not None:
            return self._upstream
        return self.manager.client(self._ready("chat", None))

    def passing(self, kind: Kind, wanted: str | None = None) -> Passing:
        """Return who takes requests of that kind as they are: the server that was named, or a model that runs.

        *wanted* is the model that whoever asks has named. One that is known here and does not run is not answered for
        by another; any other name is: programs have names of their own.

        Raises:
            NoModel: There is none.
        """
        if self.url is not None:
            return self._kept(None, lambda: Passing(self.url, self.model))
        name = self._ready(kind, wanted)
        return self._kept(name, lambda: Passing(model=name, lease=partial(self.manager.leased, name)))

    def _kept(self, name: str | None, make: Callable[[], Passing]) -> Passing:
        with self._guard:
            if name not in self._passing:
                self._passing[name] = make()
            return self._passing[name]

    def _ready(self, kind: Kind, wanted: str | None) -> str:
        """Return the name of the model that answers, when it is ready."""
        running = [spec.name for spec in self.all_running(kind)]
        wanted = next((spec.name for spec in self.specs() if wanted in {spec.name, spec.filename}), None)
        if wanted is not None and wanted not in running:
            raise NoModel(f"The model {wanted!r} does not run.", remedy="Start it, or ask for the one that runs.")
        if not running:
            what = "answer" if kind == "chat" else "make vectors"
            raise NoModel(f"No model runs that could {what}.", remedy="Start one, or name a server: --completions-url.")
        name = wanted or running[0]
        with self._guard:
            thread = self._starting.get(name)
        if thread is not None:
            thread.join(_LONGEST)
        return name

    def offered(self) -> list[dict[str, Any]]:
        """Return the models that run, as OpenAI lists models."""
        found = []
        for spec in self.all_running():
            running = self.manager.processes.running(spec.name)
            began = 0 if running is None else int(datetime.fromisoformat(running.started_at).timestamp())
            found.append({"id": spec.name, "object": "model", "created": began, "owned_by": "local"})
        return found

    async def aclose(self) -> None:
        """Close the connections on which requests were passed on."""
        for one in self._passing.values():
            await one.aclose()

    def close(self) -> None:
        """Stop the models that were started here."""
        if self._upstream is not None:
            self._upstream.close()
        self.manager.close()


def display_size(spec: ModelSpec) -> str:
    """Return the size of a model as text, such as `3.97 GB`; empty where nobody knows it."""
    if spec.size_text:
        return spec.size_text
    if spec.size is None:
        return ""
    return f"{spec.size / 1e9:.2f} GB" if spec.size >= 1e9 else f"{spec.size / 1e6:.0f} MB"


def listed(spec: ModelSpec) -> Mapping[str, str]:
    """Return a model as the original lists it: six texts, and nothing else."""
    return {
        "model": spec.title or spec.name,
        "size": display_size(spec),
        "license": spec.license or "",
        "license_url": spec.license_url or "",
        "filename": spec.filename,
        "url": spec.url or "",
    }
