"""The façade over local models: their files, their processes, and talking to them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from .catalogue import Catalogue
from .download import DownloadJob, merged
from .errors import InvalidSpec, ModelInUse
from .files import ModelFiles
from .planning import planned
from .store import ModelFolder

if TYPE_CHECKING:
    import builtins
    import os
    from collections.abc import Callable, Iterable

    from .download import Verify
    from .spec import ModelSpec, ModelStatus, Plan

__all__ = ["LlamafileManager"]


class LlamafileManager:
    """Finds, downloads, checks, runs and stops models in *store_dir*, and talks to them.

    *store_dir* is by default the folder that `LLAMAFILES_DIR` names, or else a folder of the user's. *catalogue* takes
    the place of the packaged models. Several managers, in several processes, may share a folder: on one model works one
    of them at a time, and all of them see how it stands. A server that sends nothing for *download_timeout* seconds has
    failed; so often as *download_retries* says a failed download is tried again, after *retry_delay* seconds and each
    time twice as long.

    Every method has a twin for code that awaits, its name with an `a` before it.
    """

    def __init__(
        self,
        store_dir: str | os.PathLike[str] | None = None,
        *,
        catalogue: Iterable[ModelSpec] | None = None,
        download_timeout: float = 30.0,
        download_retries: int = 6,
        retry_delay: float = 0.5,
    ) -> None:
        if not download_timeout > 0 or not retry_delay >= 0 or download_retries < 0:
            raise InvalidSpec("download_timeout is above 0 s, retry_delay and download_retries are not below 0.")
        self.folder = ModelFolder(store_dir)
        self._catalogue = Catalogue(self.folder, catalogue)
        self.files = ModelFiles(self.folder, self._catalogue)
        self._downloading: dict[str, Any] = {
            "stall": download_timeout, "retries": download_retries, "retry_delay": retry_delay,
        }  # fmt: skip
        self._jobs: dict[str, DownloadJob] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> LlamafileManager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> LlamafileManager:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

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
        return merged(self.files.status(name), self._jobs.get(name))

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
        return planned(self.files, name, ask=ask, stall=self._downloading["stall"], runtime=None)

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
        return self.files.remove(name, forget=forget)

    # --- the end

    def close(self) -> None:
        """Pause what is being downloaded, and give back what is held."""
        for job in list(self._jobs.values()):
            if not job.done:
                job.pause()
        self.folder.close()

    # --- for code that awaits

    async def acatalogue(self) -> builtins.list[ModelSpec]:
        """`catalogue` for code that awaits."""
        return await asyncio.to_thread(self.catalogue)

    async def aadd(self, spec: ModelSpec, *, replace: bool = False) -> None:
        """`add` for code that awaits."""
        await asyncio.to_thread(self.add, spec, replace=replace)

    async def aspec(self, name: str) -> ModelSpec:
        """`spec` for code that awaits."""
        return await asyncio.to_thread(self.spec, name)

    async def alist(self) -> builtins.list[ModelSpec]:
        """`list` for code that awaits."""
        return await asyncio.to_thread(self.list)

    async def astatus(self, name: str) -> ModelStatus:
        """`status` for code that awaits."""
        return await asyncio.to_thread(self.status, name)

    async def astatuses(self) -> builtins.list[ModelStatus]:
        """`statuses` for code that awaits."""
        return await asyncio.to_thread(self.statuses)

    async def aplan(self, name: str, *, ask: bool = True) -> Plan:
        """`plan` for code that awaits."""
        return await asyncio.to_thread(self.plan, name, ask=ask)

    async def adownload(
        self,
        name: str,
        *,
        resume: bool = True,
        verify: Verify = "if-known",
        progress: Callable[[ModelStatus], None] | None = None,
        wait: bool = True,
    ) -> DownloadJob:
        """`download` for code that awaits; a task that is cancelled pauses it."""
        job = await asyncio.to_thread(self.download, name, resume=resume, verify=verify, progress=progress, wait=False)
        if wait:
            try:
                await asyncio.to_thread(job.wait)
            except asyncio.CancelledError:
                job.pause()
                raise
        return job

    async def averify(self, name: str, *, progress: Callable[[int, int], None] | None = None) -> ModelStatus:
        """`verify` for code that awaits."""
        return await asyncio.to_thread(self.verify, name, progress=progress)

    async def aimport_file(
        self, path: str | os.PathLike[str], name: str | None = None, *, mode: str = "copy", kind: str = "chat"
    ) -> ModelSpec:
        """`import_file` for code that awaits."""
        return await asyncio.to_thread(self.import_file, path, name, mode=mode, kind=kind)

    async def aremove(self, name: str, *, force: bool = False, forget: bool = False) -> bool:
        """`remove` for code that awaits."""
        return await asyncio.to_thread(self.remove, name, force=force, forget=forget)

    async def aclose(self) -> None:
        """`close` for code that awaits."""
        await asyncio.to_thread(self.close)
